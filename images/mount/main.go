// Command sandbar-mount hands folders of the host to the agent of a cluster, as descriptors of detached mounts. It runs
// in a container that binds one folder, the root, and stays: when the agent restarts, or another folder is found where
// a wanted one was, it hands over again. On engines in a virtual machine, its bind keeps file events flowing.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"sandbar.dev/lib/mounts"
	"sandbar.dev/lib/packets"
)

const (
	configPath = "/etc/sandbar/config.json"
	rootPath   = "/source"
	// An editor or `git clone` that replaces the whole root is done by then.
	replacementPatience = 2 * time.Second
)

func main() {
	// Next to nothing lives here: a small heap costs no time.
	debug.SetGCPercent(20)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		os.Exit(0)
	}()
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "sandbar-mount: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	rootID, err := readRootID()
	if err != nil {
		return err
	}
	watcher, err := newWatcher()
	if err != nil {
		return err
	}
	for {
		connection, err := meet(watcher)
		if err != nil {
			return err
		}
		err = serve(connection, rootID, watcher)
		connection.Close()
		if err != nil {
			return err
		}
	}
}

func readRootID() (string, error) {
	content, err := os.ReadFile(configPath)
	if err != nil {
		return "", err
	}
	var config struct {
		RootID string `json:"rootId"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return "", fmt.Errorf("%s: %w", configPath, err)
	}
	return config.RootID, nil
}

// meet waits until the agent accepts a connection. The agent makes its socket anew whenever it starts, which is an event
// in the shared folder: nothing is asked over and over.
func meet(watcher *watcher) (*net.UnixConn, error) {
	if err := watcher.watchMeetingDirectory(); err != nil {
		return nil, err
	}
	for {
		connection, err := packets.Dial(filepath.Join(mounts.MeetingDirectory, mounts.SocketName))
		if err == nil {
			return connection, nil
		}
		<-watcher.changed
	}
}

// serve hands over what the agent wants, for as long as it is there. An error means that the root is gone for good.
func serve(connection *net.UnixConn, rootID string, watcher *watcher) error {
	if err := mounts.Send(connection, rootID); err != nil {
		return nil
	}
	requests := make(chan []mounts.Wanted)
	go func() {
		defer close(requests)
		for {
			wanted, err := mounts.ReceiveWanted(connection)
			if err != nil {
				return
			}
			requests <- wanted
		}
	}()
	root, err := openRoot()
	if err != nil {
		return err
	}
	defer root.close()
	for {
		select {
		case wanted, isOpen := <-requests:
			if !isOpen {
				return nil
			}
			root.want(wanted)
		case <-watcher.changed:
		}
		if root.isGone() || watcher.isRootGone() {
			// The engine binds what is at the path when it starts the container again.
			time.Sleep(replacementPatience)
			return fmt.Errorf("the folder that is handed over from was removed or replaced")
		}
		if err := root.handOver(connection, watcher); err != nil {
			// The agent has gone: the next one is told everything.
			connection.Close()
			drain(requests)
			return nil
		}
	}
}

func drain(requests <-chan []mounts.Wanted) {
	for range requests {
	}
}

package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"sandbar.dev/lib/agent"
)

const (
	pauseArchive = "/usr/share/sandbar/pause.tar"
	// Most programs that handle SIGTERM need a fraction of this; the rest ignores it, and `docker stop` should be quick.
	podGrace = 1200 * time.Millisecond
	// A program that ends sooner than this after its start is broken rather than unlucky: its restarts slow down.
	shortestRun       = 5 * time.Second
	firstRestartDelay = 50 * time.Millisecond
	lastRestartDelay  = 10 * time.Second
)

// runNode brings the node up and returns only when the container is to stop.
func runNode(config agent.Config) error {
	log.SetFlags(log.Ltime | log.Lmicroseconds | log.Lmsgprefix)
	log.SetPrefix("sandbar-agent: ")
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	children := newChildren()

	// cgroups first: children must be born in the right one.
	groups, err := prepareControlGroups()
	if err != nil {
		return fmt.Errorf("prepare control groups: %w", err)
	}
	if err := prepareFileSystem(); err != nil {
		return fmt.Errorf("prepare file system: %w", err)
	}
	if err := prepareNetwork(config, children); err != nil {
		return fmt.Errorf("prepare network: %w", err)
	}
	environment, err := writeContainerdFiles(config)
	if err != nil {
		return fmt.Errorf("write containerd's configuration: %w", err)
	}

	containerd := children.keepRunning("containerd", command{name: "containerd", environment: environment})
	go importPauseImage(children)
	// What an interrupted deletion has left.
	for _, name := range listNames(agent.RemovedDirectory) {
		path := filepath.Join(agent.RemovedDirectory, name)
		go children.run(command{name: "rm", arguments: []string{"-rf", "--one-file-system", path}})
	}
	// The kubelet's process waits by itself for containerd's socket and for the API server, with its image already
	// loaded from disk by then.
	kubelet := children.keepRunning("kubelet", command{name: os.Args[0], arguments: []string{"kubelet"}, hasOwnMounts: true})

	received := <-signals
	log.Printf("received %v, stopping", received)
	kubelet.stop()
	groups.stopPods(podGrace)
	containerd.stop()
	syscall.Sync()
	return nil
}

func importPauseImage(children *children) {
	if err := waitForSocket(agent.ContainerdSocket); err != nil {
		log.Printf("import pause image: %v", err)
		return
	}
	archive, err := os.Open(pauseArchive)
	if err != nil {
		log.Printf("import pause image: %v", err)
		return
	}
	defer archive.Close()
	if err := children.run(command{
		name: "sandbar-images", arguments: []string{"import", "--unless-named", agent.PauseImage}, stdin: archive,
	}); err != nil {
		log.Printf("import pause image: %v", err)
	}
}

func waitForSocket(path string) error {
	const patience = time.Minute
	deadline := time.Now().Add(patience)
	for {
		connection, err := net.Dial("unix", path)
		if err == nil {
			return connection.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer after %v: %w", path, patience, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Command sandbar-ports opens ports of 127.0.0.1 for the agent of a cluster. It runs in the host's network, opens what
// the agent wants, and hands the sockets over; it neither accepts a connection nor reads a byte of one.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"sandbar.dev/lib/container"
	"sandbar.dev/lib/packets"
	"sandbar.dev/lib/ports"
)

type config struct {
	// Ports of the host that belong to other containers of the cluster, whether or not they run just now.
	Reserved []uint16 `json:"reserved"`
}

func main() {
	// Next to nothing lives here: a small heap costs no time.
	debug.SetGCPercent(20)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		os.Exit(0)
	}()
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "sandbar-ports: %v\n", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 1 && arguments[0] == "check" {
		return check()
	}
	if len(arguments) > 0 {
		return fmt.Errorf("unknown command %q, there is check", arguments)
	}
	config, err := container.ReadConfig[config](container.ConfigPath)
	if err != nil {
		return err
	}
	return newOpener(config.Reserved).run(ports.SocketPath)
}

// check fails where the agent has nobody who opens ports for it.
func check() error {
	connection, err := packets.Dial(ports.SocketPath)
	if err != nil {
		return fmt.Errorf("the agent does not serve ports yet: %w", err)
	}
	defer connection.Close()
	problem, err := ports.Ask(connection)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	if problem != "" {
		return fmt.Errorf("%s", problem)
	}
	return nil
}

// Command sandbar-agent is process 1 of the agent container. It turns the container into a Kubernetes node: prepares
// mounts, control groups and packet filter, then keeps containerd and the kubelet running, each restarted alone.
package main

import (
	"fmt"
	"os"

	"sandbar.dev/lib/agent"
)

func main() {
	if err := dispatch(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "sandbar-agent: %v\n", err)
		os.Exit(1)
	}
}

func dispatch(arguments []string) error {
	config, err := agent.ReadConfig()
	if err != nil {
		return err
	}
	switch {
	case len(arguments) == 0:
		return runNode(config)
	case arguments[0] == "kubelet":
		return becomeKubelet()
	case arguments[0] == "resolve":
		return resolve(config, arguments[1:])
	case arguments[0] == "mounts":
		return runMountCommand(arguments[1:])
	case arguments[0] == "await-policies":
		return awaitPolicies(arguments[1:])
	case arguments[0] == "reset":
		return resetNode(arguments[1:])
	default:
		return fmt.Errorf("unknown command %q (known: resolve, mounts, reset)", arguments[0])
	}
}

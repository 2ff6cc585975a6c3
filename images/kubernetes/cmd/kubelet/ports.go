package main

import (
	"context"

	"sandbar.dev/kubernetes/ports"
	"sandbar.dev/lib/agent"
)

// runPorts makes Services of type LoadBalancer and published ports reachable from the host, as the volume provisioner's
// user.
func runPorts(ctx context.Context, config agent.Config, clients clients) error {
	client, err := clients.new(provisionerKubeconfig)
	if err != nil {
		return err
	}
	return ports.Run(ctx, client, config.LoadBalancerSubnet)
}

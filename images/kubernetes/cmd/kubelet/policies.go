package main

import (
	"context"

	"sandbar.dev/kubernetes/policies"
	"sandbar.dev/lib/agent"
)

// runPolicies enforces NetworkPolicies. It reads them as the volume provisioner's user, whose place on this node is the
// same.
func runPolicies(ctx context.Context, config agent.Config, clients clients, proxied <-chan struct{}) error {
	if config.NetworkPolicy == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	client, err := clients.new(provisionerKubeconfig)
	if err != nil {
		return err
	}
	return policies.New(config, client, proxied).Run(ctx)
}

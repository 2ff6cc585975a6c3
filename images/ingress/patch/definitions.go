//go:build ignore

// Copied into Traefik's own package by apply.sh, which takes these first lines off.

package gateway

import (
	"context"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// definitions are the kinds that the provider watches: all of them have to be there before it does any work.
var definitions = map[string][]string{
	"gateway.networking.k8s.io/v1":      {"GatewayClass", "Gateway", "HTTPRoute", "GRPCRoute", "BackendTLSPolicy"},
	"gateway.networking.k8s.io/v1beta1": {"ReferenceGrant"},
}

// waitForDefinitions returns when the API server has them. Upstream begins to watch at once, and what it watches fails,
// with an error in the log each time and growing pauses between, until somebody makes the definitions.
func (c *clientWrapper) waitForDefinitions(ctx context.Context) error {
	const firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
	for pause := firstPause; !c.hasDefinitions(); pause = min(2*pause, longestPause) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	return nil
}

func (c *clientWrapper) hasDefinitions() bool {
	for groupVersion, kinds := range definitions {
		found, err := c.csGateway.Discovery().ServerResourcesForGroupVersion(groupVersion)
		if err != nil {
			return false
		}
		for _, kind := range kinds {
			if !slices.ContainsFunc(found.APIResources, func(resource metav1.APIResource) bool { return resource.Kind == kind }) {
				return false
			}
		}
	}
	return true
}

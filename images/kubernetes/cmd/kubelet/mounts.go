package main

import (
	"context"

	"sandbar.dev/kubernetes/mounts"
	"sandbar.dev/lib/agent"
)

// runMounts serves live mounts. It reads their records as the volume provisioner's user, whose place on this node is
// the same: what is recorded in the API and lies in a folder.
func runMounts(ctx context.Context, clients clients) error {
	client, err := clients.new(provisionerKubeconfig)
	if err != nil {
		return err
	}
	service, err := mounts.New(mounts.Directories{
		Namespace:  "/proc/1/ns/mnt",
		Places:     agent.MountsDirectory,
		Kept:       agent.KeptDirectory,
		Staging:    "/run/sandbar/handed-over",
		KeptMounts: "/run/sandbar/kept",
		Bundles:    "/run/containerd/io.containerd.runtime.v2.task/k8s.io",
	})
	if err != nil {
		return err
	}
	return service.Run(ctx, client)
}

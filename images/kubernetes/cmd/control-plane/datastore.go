package main

import (
	"fmt"
	"net/url"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

const (
	datastoreDirectory = "/var/lib/etcd/data"
	datastoreSocket    = "/run/etcd.sock"
	// etcd insists on a place to listen for other members, of which there will never be any.
	datastorePeerSocket = "/run/etcd-peer.sock"

	mebibyte = 1 << 20
)

type datastore struct{ *embed.Etcd }

// startDatastore returns as soon as etcd listens; a lone member elects itself a moment later, and its clients wait.
func startDatastore() (*datastore, error) {
	// etcd allocates two log segments at once, by default 64 MiB each: far more than a sandbox writes between two snapshots.
	wal.SegmentSizeBytes = 16 * mebibyte
	for _, socket := range []string{datastoreSocket, datastorePeerSocket} {
		// Left over when the process was killed and its container started again with the same /run.
		if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("etcd: %w", err)
		}
	}
	started, err := embed.StartEtcd(datastoreConfig())
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return &datastore{started}, nil
}

func datastoreConfig() *embed.Config {
	config := embed.NewConfig()
	config.Name = "sandbar"
	config.Dir = datastoreDirectory
	config.ListenClientUrls = []url.URL{{Scheme: "unix", Path: datastoreSocket}}
	config.ListenPeerUrls = []url.URL{{Scheme: "unix", Path: datastorePeerSocket}}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.EnableGRPCGateway = false
	config.LogLevel = "error"
	// Entries are kept in memory until the next snapshot, and after it for members that lag behind: there are none.
	config.SnapshotCount = 1000
	config.SnapshotCatchUpEntries = 100
	// The API server compacts history every five minutes; the quota only guards against a runaway client.
	config.QuotaBackendBytes = 4096 * mebibyte
	return config
}

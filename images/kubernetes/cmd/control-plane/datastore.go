package main

import (
	"context"
	"errors"
	"expvar"
	"time"
	_ "unsafe" // for go:linkname

	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

const (
	datastoreDirectory = "/var/lib/etcd/data"

	// Ticks drive elections and heartbeats between members; a lone one needs few.
	tickMs             = 500
	electionRetryDelay = 5 * time.Millisecond

	mebibyte = 1 << 20
)

// datastore is etcd, started in the background.
type datastore struct {
	started chan struct{}
	// etcd and err are set when started is closed.
	etcd *embed.Etcd
	err  error
}

// startDatastore begins to start etcd and returns at once. Whoever asks for an etcd client waits until it is ready.
func startDatastore(ctx context.Context, directory string) *datastore {
	store := &datastore{started: make(chan struct{})}
	newEtcdClient = func(storagebackend.TransportConfig) (*kubernetes.Client, error) {
		<-store.started
		if store.err != nil {
			return nil, store.err
		}
		return store.newClient(), nil
	}
	go func() {
		defer close(store.started)
		if store.etcd, store.err = startEtcd(directory); store.err == nil {
			feature.DefaultFeatureSupportChecker.CheckClient(ctx, versionClient{store.newClient()}, storage.RequestWatchProgress)
		}
	}()
	return store
}

func (d *datastore) newClient() *kubernetes.Client {
	client := &kubernetes.Client{Client: v3client.New(d.etcd.Server)}
	client.Kubernetes = client
	return client
}

// versionClient names an endpoint, which a client without connections lacks. The API server asks each endpoint for
// its version, and without an answer it takes etcd for one too old for consistent reads from its cache and for
// watches that begin with a list.
type versionClient struct{ *kubernetes.Client }

// Endpoints names the one etcd.
func (versionClient) Endpoints() []string { return []string{placeholderEtcd} }

// wait returns when etcd has ended.
func (d *datastore) wait() error {
	<-d.started
	if d.err != nil {
		return d.err
	}
	<-d.etcd.Server.StopNotify()
	return errors.New("stopped")
}

// close stops etcd in an orderly way.
func (d *datastore) close() {
	<-d.started
	if d.err == nil {
		d.etcd.Close()
	}
}

func startEtcd(directory string) (*embed.Etcd, error) {
	// etcd allocates two log segments at once, by default 64 MiB each: far more than a sandbox writes between two snapshots.
	wal.SegmentSizeBytes = 16 * mebibyte
	etcd, err := embed.StartEtcd(datastoreConfig(directory))
	if err != nil {
		return nil, err
	}
	for {
		select {
		case <-etcd.Server.ReadyNotify():
			return etcd, nil
		case <-etcd.Server.StopNotify():
			return nil, errors.New("stopped")
		case <-time.After(electionRetryDelay):
			// A member waits up to a second, at random, for a leader to show up before it stands for election.
			// Here nobody else can: the message by which a leader hands over makes it stand at once.
			if etcd.Server.Leader() == 0 && hasCaughtUp() {
				self := uint64(etcd.Server.MemberID())
				if err := etcd.Server.Process(context.Background(), raftpb.Message{Type: raftpb.MsgTimeoutNow, From: self, To: self}); err != nil {
					return nil, err
				}
			}
		}
	}
}

// hasCaughtUp tells whether raft has handed on all that it knows to be committed. Before that, a member that is to
// stand for election looks for changes of membership in entries that etcd may have dropped from memory already, and
// raft ends the process over it. Alone, nothing new is committed before the election, so what holds here stays so.
func hasCaughtUp() bool {
	published, isPublished := expvar.Get("raft.status").(expvar.Func)
	if !isPublished {
		return false
	}
	status, isKnown := published.Value().(raft.Status)
	return isKnown && status.Applied >= status.Commit
}

// newEtcdClient is the constructor that the API server calls for every kind of resource that it stores. Upstream's
// opens a gRPC connection each time: about 80 connections from this process to itself, with buffers and encoding on
// both ends, each of which has to be up before the server goes on. Ours calls etcd's functions directly.
// Upstream has no other place to put it, hence the link to its variable.
//
//go:linkname newEtcdClient k8s.io/apiserver/pkg/storage/storagebackend/factory.newETCD3Client
var newEtcdClient func(storagebackend.TransportConfig) (*kubernetes.Client, error)

func datastoreConfig(directory string) *embed.Config {
	config := embed.NewConfig()
	config.Name = "sandbar"
	config.Dir = directory
	// The API server calls etcd's functions, and there are no other members: it listens nowhere.
	config.ListenClientUrls = nil
	config.ListenPeerUrls = nil
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.EnableGRPCGateway = false
	config.TickMs = tickMs
	config.ElectionMs = 10 * tickMs
	config.LogLevel = "error"
	// Entries are kept in memory until the next snapshot, and after it for members that lag behind: there are none.
	config.SnapshotCount = 1000
	config.SnapshotCatchUpEntries = 100
	// The API server compacts history every five minutes; the quota only guards against a runaway client.
	config.QuotaBackendBytes = 4096 * mebibyte
	return config
}

package main

import (
	"context"
	"errors"
	"expvar"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
	_ "unsafe" // for go:linkname

	clientv3 "go.etcd.io/etcd/client/v3"
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
	datastoreDirectory = "/var/lib/etcd"
	memberName         = "sandbar"

	// Ticks drive elections and heartbeats between members; a lone one needs few.
	tickMs             = 500
	electionRetryDelay = 5 * time.Millisecond

	mebibyte = 1 << 20
)

// datastore is etcd, started in the background, and what lies beside it on its volume.
type datastore struct {
	directory string
	nodeName  string
	gate      gate
	closing   sync.Once
	started   chan struct{}
	// What follows is set when started is closed.
	etcd         *embed.Etcd
	client       *clientv3.Client
	isFirstStart bool
	err          error
}

// startDatastore begins to start etcd and returns at once. Whoever asks for an etcd client waits until it is ready.
func startDatastore(ctx context.Context, directory, nodeName string) *datastore {
	store := &datastore{directory: directory, nodeName: nodeName, started: make(chan struct{})}
	newEtcdClient = func(storagebackend.TransportConfig) (*kubernetes.Client, error) {
		<-store.started
		if store.err != nil {
			return nil, store.err
		}
		return store.newClient(), nil
	}
	go func() {
		defer close(store.started)
		store.err = store.open(ctx)
		if errors.As(store.err, new(damagedError)) {
			// The API server would end the process in its own way, and with its own exit status.
			exit(store.err)
		}
		if store.err == nil {
			feature.DefaultFeatureSupportChecker.CheckClient(ctx, versionClient{store.newClient()}, storage.RequestWatchProgress)
			go store.keepSettled(ctx)
		}
	}()
	return store
}

func (d *datastore) open(ctx context.Context) error {
	if err := d.prepare(); err != nil {
		return err
	}
	etcd, err := startEtcd(d.path(dataDirectory))
	if err != nil {
		return err
	}
	d.etcd, d.client = etcd, v3client.New(etcd.Server)
	if err := os.Remove(d.path(unprovenFile)); err != nil {
		return err
	}
	if err := d.finishStartOver(ctx); err != nil {
		return err
	}
	return d.forgetRegistrations(ctx)
}

// path is that of a file beside etcd's own.
func (d *datastore) path(name string) string { return filepath.Join(d.directory, name) }

// newClient is for the API server: its writes pass the gate.
func (d *datastore) newClient() *kubernetes.Client {
	client := &kubernetes.Client{Client: v3client.New(d.etcd.Server)}
	client.Kubernetes = gatedStore{kubernetes.Client{Client: client.Client}, &d.gate}
	return client
}

// saved returns what a reset goes back to, from what there is now: the golden copy, or a snapshot of the user's.
func (d *datastore) saved(from string) (func(current keyValues) keyValues, error) {
	golden, err := readCopy(d.path(goldenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the cluster has no golden copy: it was made by an older Sandbar")
	}
	if err != nil {
		return nil, err
	}
	own := func(current keyValues) keyValues { return d.withSettled(golden, current) }
	if from == "golden" {
		return own, nil
	}
	saved, err := readCopy(d.path(restoreFile))
	if err != nil {
		return nil, err
	}
	// Once, since a pod gets another UID each time.
	adapted := adapt(saved, d.nodeName)
	return func(current keyValues) keyValues {
		if areOfOneCluster(saved, golden) {
			return adapted
		}
		return withOwn(adapted, own(current))
	}, nil
}

// repairNode puts the Node back where it was deleted: a kubelet makes one only when it starts.
func (d *datastore) repairNode(ctx context.Context) (isMade bool, err error) {
	node := d.node()
	if node.first == nil {
		return false, nil
	}
	response, err := d.newClient().Kubernetes.OptimisticPut(ctx, node.key(), node.first, 0, kubernetes.PutOptions{})
	return response.Succeeded, err
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

// close stops etcd in an orderly way, once.
func (d *datastore) close() {
	<-d.started
	if d.err == nil {
		d.closing.Do(d.etcd.Close)
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
	config.Name = memberName
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

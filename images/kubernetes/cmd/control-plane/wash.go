package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/sets"
)

const (
	// Each write waits for the disk; etcd puts those that wait at the same time into one flush.
	washConcurrency = 128
	// With the gate closed nobody else writes, so the second pass finds nothing but what expired meanwhile.
	maxPasses = 5
)

// Keep says what a reset leaves alone.
type Keep struct {
	// Keys of the store, for single objects.
	Keys []string `json:"keys"`
	// All that is in these namespaces, with what it stands on.
	Namespaces []string `json:"namespaces"`
	// Claims and volumes, with the namespaces that claims are in.
	HasVolumes bool `json:"hasVolumes"`
}

// washed counts what a reset changed.
type washed struct {
	Deleted  int   `json:"deleted"`
	Restored int   `json:"restored"`
	Passes   int   `json:"passes"`
	Revision int64 `json:"revision"`
}

// wash makes the store hold what wanted holds, key by key and as ordinary transactions: revisions only rise, and
// every watcher sees honest events. Finalizers, webhooks and grace periods play no part in it. One big transaction
// would give many objects the same resourceVersion.
func wash(ctx context.Context, client *clientv3.Client, wanted func(current keyValues) keyValues) (washed, error) {
	var done washed
	for done.Passes < maxPasses {
		done.Passes++
		current, revision, err := readAll(ctx, client)
		if err != nil {
			return done, err
		}
		done.Revision = revision
		changes := compare(current, wanted(current))
		if len(changes.deletions)+len(changes.puts) == 0 {
			return done, nil
		}
		if err := changes.apply(ctx, client); err != nil {
			return done, err
		}
		done.Deleted += len(changes.deletions)
		done.Restored += len(changes.puts)
	}
	return done, fmt.Errorf("something else writes to the datastore: it differs after %d passes", maxPasses)
}

func readAll(ctx context.Context, client *clientv3.Client) (keyValues, int64, error) {
	response, err := client.Get(ctx, registryPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, err
	}
	found := make(keyValues, len(response.Kvs))
	for _, entry := range response.Kvs {
		found[string(entry.Key)] = entry.Value
	}
	return found, response.Header.Revision, nil
}

type changes struct {
	deletions []string
	puts      keyValues
}

func compare(current, target keyValues) changes {
	found := changes{puts: keyValues{}}
	for key := range current {
		if _, isWanted := target[key]; !isWanted {
			found.deletions = append(found.deletions, key)
		}
	}
	for key, value := range target {
		if existing, isThere := current[key]; !isThere || !bytes.Equal(existing, value) {
			found.puts[key] = value
		}
	}
	return found
}

func (c changes) apply(ctx context.Context, client *clientv3.Client) error {
	deletions, puts := byRank(slices.Values(c.deletions)), byRank(maps.Keys(c.puts))
	for rank := range ranks {
		if err := forAll(ctx, deletions[rank], func(ctx context.Context, key string) error {
			_, err := client.Delete(ctx, key)
			return err
		}); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
	}
	for rank := ranks - 1; rank >= 0; rank-- {
		if err := forAll(ctx, puts[rank], func(ctx context.Context, key string) error {
			_, err := client.Put(ctx, key, string(c.puts[key]))
			return err
		}); err != nil {
			return fmt.Errorf("put back: %w", err)
		}
	}
	return nil
}

func byRank(keys func(yield func(string) bool)) (ranked [ranks][]string) {
	for key := range keys {
		rank := rankOf(key)
		ranked[rank] = append(ranked[rank], key)
	}
	return ranked
}

func forAll(ctx context.Context, keys []string, act func(context.Context, string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(washConcurrency)
	for _, key := range keys {
		group.Go(func() error { return act(ctx, key) })
	}
	return group.Wait()
}

// target is what the store is to hold after a reset: the copy, but for what belongs to the running machine and for
// what is kept.
func target(saved, current keyValues, node nodeRecord, keep Keep) keyValues {
	wanted := maps.Clone(saved)
	isOfMachine := func(key string, value []byte) bool {
		return isOfMachine(key, node.name) || isRegistration(key, value)
	}
	maps.DeleteFunc(wanted, isOfMachine)
	for key, value := range current {
		if isOfMachine(key, value) {
			wanted[key] = value
		}
	}
	if value := node.reset(current); value != nil {
		wanted[node.key()] = value
	}
	isKept := keptKeys(current, keep)
	for key, value := range current {
		if isKept(key) {
			wanted[key] = value
		}
	}
	return wanted
}

// isOfMachine tells whether a key says how the cluster's own parts are just now: leases by which they show that they
// live, where the API server is found, and what the kubelet reports about the node.
func isOfMachine(key, nodeName string) bool {
	return strings.HasPrefix(key, registryPrefix+"masterleases/") ||
		strings.HasPrefix(key, registryPrefix+"leases/kube-system/apiserver-") ||
		key == registryPrefix+"leases/kube-node-lease/"+nodeName ||
		key == registryPrefix+"services/endpoints/default/kubernetes" ||
		key == registryPrefix+"endpointslices/default/kubernetes" ||
		key == registryPrefix+"csinodes/"+nodeName ||
		key == nodePrefix+nodeName
}

// keptKeys returns what a reset leaves as it is besides. With a namespace goes what its objects stand on: definitions
// of their types, their volumes, and the addresses of their Services.
func keptKeys(current keyValues, keep Keep) func(key string) bool {
	keys := sets.New(keep.Keys...)
	namespaces := sets.New(keep.Namespaces...)
	for key, value := range current {
		at := placeOf(key)
		isInKept := at.namespace != "" && namespaces.Has(at.namespace)
		switch {
		case isInKept && at.customGroup != "":
			keys.Insert(key, definitionPrefix+at.resource+"."+at.customGroup)
			keys.Insert(apiServicesOf(current, at.customGroup)...)
		case isInKept:
			keys.Insert(key)
		case keep.HasVolumes && strings.HasPrefix(key, claimPrefix):
			keys.Insert(key, namespacePrefix+at.namespace)
		case strings.HasPrefix(key, volumePrefix):
			if keep.HasVolumes || namespaces.Has(claimNamespaceOf(value)) {
				keys.Insert(key)
			}
		case strings.HasPrefix(key, addressPrefix):
			if namespaces.Has(serviceNamespaceOf(value)) {
				keys.Insert(key)
			}
		case strings.HasPrefix(key, allocationPrefix):
			// One map for all Services: with some of them it stays, and upstream's own repair frees what is unused.
			if namespaces.Len() > 0 {
				keys.Insert(key)
			}
		}
	}
	for namespace := range namespaces {
		keys.Insert(namespacePrefix + namespace)
	}
	return keys.Has
}

func apiServicesOf(current keyValues, group string) []string {
	var keys []string
	for key := range current {
		// VERSION.GROUP
		name, isAPIService := strings.CutPrefix(key, apiServicePrefix)
		if _, ofGroup, _ := strings.Cut(name, "."); isAPIService && ofGroup == group {
			keys = append(keys, key)
		}
	}
	return keys
}

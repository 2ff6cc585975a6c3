package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
)

const (
	// The definitions of upstream's standard channel, put into the image when it is built.
	bundlePath   = "/gateway-api.json"
	gatewayGroup = "gateway.networking.k8s.io"
	classPrefix  = registryPrefix + gatewayGroup + "/gatewayclasses/"
	// By then an agent that is to come has come.
	nodeTimeout = 10 * time.Second
)

// GatewayClass is the class that the ingress serves.
type GatewayClass struct {
	Name           string `json:"name"`
	ControllerName string `json:"controllerName"`
}

// gatewayAPI keeps the definitions of the Gateway API, and a class, in the datastore. They are made once the node is
// ready, which is when a start is over: the server builds its documents and checks its rules for them for a third of a
// second. A user's own definitions stay as they are.
type gatewayAPI struct {
	datastore  *datastore
	bundlePath string
	// None where it is off.
	class *GatewayClass
	// Whether it is past the first time, which is not a repair.
	isMade atomic.Bool
}

// keep makes what is missing once the node is ready, or removes what is unused where it is off.
func (g *gatewayAPI) keep(ctx context.Context) {
	g.datastore.untilNodeReady(ctx, nodeTimeout)
	if _, err := g.repair(ctx); err != nil && ctx.Err() == nil {
		klog.ErrorS(err, "Could not make the definitions of the Gateway API")
	}
	g.isMade.Store(true)
}

// repair makes what is missing and brings up to date what an older version made; returns the names. Where it is off, it
// removes what was made and is unused.
func (g *gatewayAPI) repair(ctx context.Context) ([]string, error) {
	if g.class == nil {
		return nil, g.removeUnused(ctx)
	}
	wanted, err := g.wanted()
	if err != nil {
		return nil, err
	}
	client := g.datastore.newClient().Kubernetes
	isMade := make([]bool, len(wanted))
	group, ctx := errgroup.WithContext(ctx)
	for i, object := range wanted {
		group.Go(func() error {
			current, err := client.Get(ctx, object.key(), kubernetes.GetOptions{})
			if err != nil {
				return err
			}
			made, revision := object.made(), int64(0)
			if current.KV != nil {
				found, isOwn := readOwn(current.KV.Value)
				if !isOwn || found.version() == object.version() {
					return nil
				}
				made, revision = object.insteadOf(found), current.KV.ModRevision
			}
			written, err := client.OptimisticPut(ctx, object.key(), mustEncode(made), revision, kubernetes.PutOptions{})
			isMade[i] = written.Succeeded
			return err
		})
	}
	err = group.Wait()
	var names []string
	for i, object := range wanted {
		if isMade[i] {
			names = append(names, object.Kind+" "+object.Name)
		}
	}
	return names, err
}

// forReset returns what adds to a golden copy what a reset leaves as it is, or puts back: the copy was made before any
// of it was there.
func (g *gatewayAPI) forReset() (func(golden, current keyValues) keyValues, error) {
	if g.class == nil {
		return func(golden, _ keyValues) keyValues { return golden }, nil
	}
	wanted, err := g.wanted()
	if err != nil {
		return nil, err
	}
	return func(golden, current keyValues) keyValues {
		all := maps.Clone(golden)
		for _, object := range wanted {
			key := object.key()
			found, isOwn := readOwn(current[key])
			switch {
			case isOwn && found.isAsMade(object):
				all[key] = current[key]
			case isOwn:
				all[key] = mustEncode(object.insteadOf(found))
			default:
				all[key] = mustEncode(object.made())
			}
		}
		// The server makes these from the definitions.
		for _, key := range apiServicesOf(current, gatewayGroup) {
			all[key] = current[key]
		}
		return all
	}, nil
}

// wanted returns the objects as they are to be made.
func (g *gatewayAPI) wanted() ([]ownObject, error) {
	content, err := os.ReadFile(g.bundlePath)
	if err != nil {
		return nil, fmt.Errorf("read the Gateway API: %w", err)
	}
	var bundle struct {
		Version     string      `json:"version"`
		Definitions []ownObject `json:"definitions"`
	}
	if err := json.Unmarshal(content, &bundle); err != nil {
		return nil, fmt.Errorf("read the Gateway API: %w", err)
	}
	wanted := []ownObject{g.class.object(bundle.Version)}
	for _, definition := range bundle.Definitions {
		definition.Annotations[ownVersionAnnotation] = bundle.Version
		wanted = append(wanted, definition)
	}
	return wanted, nil
}

// removeUnused removes what was made here and can go without a loss: the class, and definitions of which there is no
// other object.
func (g *gatewayAPI) removeUnused(ctx context.Context) error {
	client := g.datastore.newClient().Kubernetes
	revisions, isUsed := map[string]int64{}, map[string]bool{}
	for _, prefix := range []string{registryPrefix + gatewayGroup + "/", definitionPrefix} {
		found, err := client.List(ctx, prefix, kubernetes.ListOptions{})
		if err != nil {
			return err
		}
		for _, entry := range found.Kvs {
			key := string(entry.Key)
			if _, isOwn := readOwn(entry.Value); isOwn {
				revisions[key] = entry.ModRevision
			} else if at := placeOf(key); at.customGroup == gatewayGroup {
				isUsed[definitionPrefix+at.resource+"."+gatewayGroup] = true
			}
		}
	}
	for key, revision := range revisions {
		if isUsed[key] {
			continue
		}
		if _, err := client.OptimisticDelete(ctx, key, revision, kubernetes.DeleteOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// untilNodeReady returns when the Node is ready, or the time is over.
func (d *datastore) untilNodeReady(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	key := nodePrefix + d.nodeName
	current, err := d.client.Get(ctx, key)
	if err != nil || len(current.Kvs) > 0 && isReady(current.Kvs[0].Value) {
		return
	}
	for batch := range d.client.Watch(ctx, key, clientv3.WithRev(current.Header.Revision+1)) {
		for _, event := range batch.Events {
			if event.Type == clientv3.EventTypePut && isReady(event.Kv.Value) {
				return
			}
		}
	}
}

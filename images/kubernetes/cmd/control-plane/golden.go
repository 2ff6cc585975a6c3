package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
)

const (
	goldenHookName = "sandbar-golden"
	// Written by controllers of the API server that no hook waits for.
	authenticationKey = registryPrefix + "configmaps/kube-system/extension-apiserver-authentication"
	tokenTrackingKey  = registryPrefix + "configmaps/kube-system/kube-apiserver-legacy-service-account-token-tracking"
	// The bootstrap has to end before.
	goldenTimeout = 2 * bootstrapTimeout
)

// keepGolden writes the copy that resets go back to. On the first start of all it holds back the server's readiness
// until that is done, so that no object of a user can be in it, whenever the process is killed.
func (d *datastore) keepGolden(hook genericapiserver.PostStartHookContext) error {
	if !d.isFirstStart {
		return nil
	}
	ctx, cancel := context.WithTimeout(hook, goldenTimeout)
	defer cancel()
	client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
	if err != nil {
		return err
	}
	isSettled := func() bool {
		request := client.Discovery().RESTClient().Get().AbsPath("/readyz").Param("exclude", "poststarthook/"+goldenHookName)
		return request.Do(ctx).Error() == nil && d.hasKeys(ctx, authenticationKey, tokenTrackingKey)
	}
	for !isSettled() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("keep a golden copy: the server is not ready otherwise: %w", ctx.Err())
		case <-time.After(readyPollInterval):
		}
	}
	if err := writeCopy(d.etcd, d.path(goldenFile)); err != nil {
		return fmt.Errorf("keep a golden copy: %w", err)
	}
	return os.Remove(d.path(firstStartFile))
}

func (d *datastore) hasKeys(ctx context.Context, keys ...string) bool {
	return !slices.ContainsFunc(keys, func(key string) bool {
		response, err := d.client.Get(ctx, key, clientv3.WithCountOnly())
		return err != nil || response.Count == 0
	})
}

func (d *datastore) node() nodeRecord {
	return nodeRecord{name: d.nodeName, first: d.settled()[nodePrefix+d.nodeName]}
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

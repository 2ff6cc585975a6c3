package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

const (
	goldenHookName = "sandbar-golden"
	// Written by controllers of the API server that no hook waits for.
	authenticationKey = registryPrefix + "configmaps/kube-system/extension-apiserver-authentication"
	tokenTrackingKey  = registryPrefix + "configmaps/kube-system/kube-apiserver-legacy-service-account-token-tracking"
	goldenTimeout     = bootstrapTimeout
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

// keepFirstNode writes down the Node as it first is Ready, for resets to go back to.
func (d *datastore) keepFirstNode(ctx context.Context, name string) {
	if _, err := os.Stat(d.path(nodeFile)); name == "" || err == nil {
		return
	}
	keep := func(value []byte) bool {
		if !isReady(value) {
			return false
		}
		if err := writeFile(d.path(nodeFile), value); err != nil {
			klog.ErrorS(err, "Could not keep the first state of the node")
		}
		return true
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	response, err := d.client.Get(ctx, nodePrefix+name)
	if err != nil {
		return
	}
	for _, entry := range response.Kvs {
		if keep(entry.Value) {
			return
		}
	}
	for batch := range d.client.Watch(ctx, nodePrefix+name, clientv3.WithRev(response.Header.Revision+1)) {
		for _, event := range batch.Events {
			if event.Kv != nil && keep(event.Kv.Value) {
				return
			}
		}
	}
}

func (d *datastore) node() nodeRecord {
	first, _ := os.ReadFile(d.path(nodeFile))
	return nodeRecord{name: d.nodeName, first: first}
}

// writeFile writes a file whole or not at all.
func writeFile(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

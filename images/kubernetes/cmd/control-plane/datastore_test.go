package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

func TestDatastoreIsReadyAtOnceAndKeepsWhatItAcknowledged(t *testing.T) {
	directory := t.TempDir()
	store := startDatastore(t.Context(), directory, "")
	begin := time.Now()
	client, err := newEtcdClient(storagebackend.TransportConfig{})
	if err != nil {
		t.Fatal(err)
	}
	// A member that waits for its election timeout is ready after five seconds or more.
	if took := time.Since(begin); took > 3*time.Second {
		t.Fatalf("ready after %s", took)
	}
	if _, err := client.OptimisticPut(t.Context(), "/registry/a", []byte("1"), 0, kubernetes.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	store.close()

	store = startDatastore(t.Context(), directory, "")
	defer store.close()
	client, err = newEtcdClient(storagebackend.TransportConfig{})
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Kubernetes.Get(t.Context(), "/registry/a", kubernetes.GetOptions{})
	if err != nil || response.KV == nil || string(response.KV.Value) != "1" {
		t.Fatalf("read %+v, error %v", response, err)
	}
}

func TestDatastoreIsKnownToReportProgressToWatches(t *testing.T) {
	store := startDatastore(t.Context(), t.TempDir(), "")
	defer store.close()
	for deadline := time.Now().Add(5 * time.Second); !feature.DefaultFeatureSupportChecker.Supports(storage.RequestWatchProgress); {
		if time.Now().After(deadline) {
			t.Fatal("the API server would not serve watches that begin with a list")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestDatastoreComesBackAfterACrashWithALongLog(t *testing.T) {
	directory := t.TempDir()
	store := startDatastore(t.Context(), directory, "")
	defer store.close()
	client, err := newEtcdClient(storagebackend.TransportConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 900 {
		if _, err := client.Put(t.Context(), fmt.Sprintf("/registry/%d", i), "value"); err != nil {
			t.Fatal(err)
		}
	}
	for range 60 {
		// What a crash leaves: nothing was written in an orderly way at the end.
		crashed := t.TempDir()
		if err := os.CopyFS(crashed, os.DirFS(store.path(dataDirectory))); err != nil {
			t.Fatal(err)
		}
		etcd, err := startEtcd(crashed)
		if err != nil {
			t.Fatal(err)
		}
		etcd.Close()
	}
}

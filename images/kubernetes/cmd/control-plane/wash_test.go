package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// openStore starts a datastore in a directory, with the keys in it.
func openStore(t *testing.T, directory string, keys keyValues) *datastore {
	t.Helper()
	store := startDatastore(t.Context(), directory, "sandbar-dev")
	if <-store.started; store.err != nil {
		t.Fatal(store.err)
	}
	t.Cleanup(store.close)
	for key, value := range keys {
		if _, err := store.client.Put(t.Context(), key, string(value)); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

func washTo(t *testing.T, store *datastore, wanted keyValues) washed {
	t.Helper()
	done, err := wash(t.Context(), store.client, func(keyValues) keyValues { return wanted })
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func allKeys(t *testing.T, store *datastore) keyValues {
	t.Helper()
	found, _, err := readAll(t.Context(), store.client)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func text(values keyValues) map[string]string {
	found := map[string]string{}
	for key, value := range values {
		found[strings.TrimPrefix(key, registryPrefix)] = string(value)
	}
	return found
}

func keysOf(values map[string]string) keyValues {
	found := keyValues{}
	for key, value := range values {
		found[registryPrefix+key] = []byte(value)
	}
	return found
}

func TestWashBringsBackEveryKeyAndLeavesTheRestAlone(t *testing.T) {
	golden := map[string]string{"namespaces/default": "1", "clusterroles/view": "1", "secrets/default/keys": "1"}
	store := openStore(t, t.TempDir(), keysOf(map[string]string{
		"namespaces/default": "1", "clusterroles/view": "edited", "pods/default/web": "x", "example.dev/things/shop/a": "x",
	}))
	if _, err := store.client.Put(t.Context(), "compact_rev_key", "5"); err != nil {
		t.Fatal(err)
	}
	before, err := store.client.Get(t.Context(), registryPrefix+"namespaces/default")
	if err != nil {
		t.Fatal(err)
	}
	done := washTo(t, store, keysOf(golden))
	if done.Deleted != 2 || done.Restored != 2 || done.Passes != 2 {
		t.Errorf("counted %+v", done)
	}
	if got := text(allKeys(t, store)); !maps.Equal(got, golden) {
		t.Errorf("the store holds %v", got)
	}
	after, err := store.client.Get(t.Context(), registryPrefix+"namespaces/default")
	if err != nil || after.Kvs[0].ModRevision != before.Kvs[0].ModRevision {
		t.Error("a key that was right was written")
	}
	if own, err := store.client.Get(t.Context(), "compact_rev_key"); err != nil || len(own.Kvs) != 1 {
		t.Error("a key that is not an object's is gone")
	}
}

func TestWashIsSeenByWatchersInOrderWithARevisionForEachKey(t *testing.T) {
	keys := map[string]string{
		"namespaces/shop": "x", "pods/shop/web": "x", "deployments/shop/web": "x", "example.dev/things/shop/a": "x",
		"apiextensions.k8s.io/customresourcedefinitions/things.example.dev": "x", "secrets/shop/key": "x",
		"validatingwebhookconfigurations/dead": "x", "apiregistration.k8s.io/apiservices/v1.dead.example": "x",
	}
	store := openStore(t, t.TempDir(), keysOf(keys))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	watch := store.client.Watch(ctx, registryPrefix, clientv3.WithPrefix())
	washTo(t, store, keyValues{})
	var seen []string
	revisions := map[int64]bool{}
	for batch := range watch {
		for _, event := range batch.Events {
			if event.Type != clientv3.EventTypeDelete {
				t.Fatalf("saw %v", event)
			}
			seen = append(seen, strings.TrimPrefix(string(event.Kv.Key), registryPrefix))
			revisions[event.Kv.ModRevision] = true
		}
		if len(seen) == len(keys) {
			break
		}
	}
	want := []string{
		"validatingwebhookconfigurations/dead", "apiregistration.k8s.io/apiservices/v1.dead.example", "example.dev/things/shop/a",
		"apiextensions.k8s.io/customresourcedefinitions/things.example.dev", "deployments/shop/web", "pods/shop/web", "secrets/shop/key",
		"namespaces/shop",
	}
	if !slices.Equal(seen, want) || len(revisions) != len(keys) {
		t.Errorf("saw %v in %d revisions", seen, len(revisions))
	}
}

func TestWashOfThousandsOfKeysTakesSeconds(t *testing.T) {
	keys := keyValues{}
	for i := range 5000 {
		keys[fmt.Sprintf("%sconfigmaps/shop/%d", registryPrefix, i)] = []byte(strings.Repeat("x", 300))
	}
	store := openStore(t, t.TempDir(), nil)
	washTo(t, store, keys)
	if done := washTo(t, store, keyValues{}); done.Deleted != len(keys) || len(allKeys(t, store)) != 0 {
		t.Errorf("counted %+v", done)
	}
}

func TestWashGivesUpWhenSomethingElseWrites(t *testing.T) {
	store := openStore(t, t.TempDir(), nil)
	round := 0
	_, err := wash(t.Context(), store.client, func(keyValues) keyValues {
		round++
		return keysOf(map[string]string{"secrets/default/a": fmt.Sprint(round)})
	})
	if err == nil || round != maxPasses {
		t.Errorf("error %v after %d rounds", err, round)
	}
}

func TestRefusedWritesFailUntilTheGateIsOpenAndThoseUnderWayAreWaitedFor(t *testing.T) {
	store := openStore(t, t.TempDir(), nil)
	client := store.newClient().Kubernetes
	done, err := store.gate.pass()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan func())
	go func() { closed <- store.gate.refuse() }()
	select {
	case <-closed:
		t.Fatal("the gate was closed during a write")
	case <-time.After(50 * time.Millisecond):
	}
	done()
	open := <-closed
	_, err = client.OptimisticPut(t.Context(), registryPrefix+"a", nil, 0, kubernetes.PutOptions{})
	if !apierrors.IsServiceUnavailable(err) {
		t.Errorf("put: %v", err)
	}
	if _, isTold := apierrors.SuggestsClientDelay(err); isTold {
		t.Error("clients would repeat what they decided before the reset")
	}
	if _, err = client.OptimisticDelete(t.Context(), registryPrefix+"a", 0, kubernetes.DeleteOptions{}); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("delete: %v", err)
	}
	open()
	if _, err = client.OptimisticPut(t.Context(), registryPrefix+"a", nil, 0, kubernetes.PutOptions{}); err != nil {
		t.Error(err)
	}
}

func TestHeldWritesWait(t *testing.T) {
	store := openStore(t, t.TempDir(), nil)
	open := store.gate.hold()
	written := make(chan error)
	go func() {
		_, err := store.newClient().Kubernetes.OptimisticPut(t.Context(), registryPrefix+"a", nil, 0, kubernetes.PutOptions{})
		written <- err
	}()
	select {
	case <-written:
		t.Fatal("written while the writes are held")
	case <-time.After(50 * time.Millisecond):
	}
	open()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}

func TestACopyHoldsTheNewestOfEachKeyWithoutWhatExpires(t *testing.T) {
	store := openStore(t, t.TempDir(), keysOf(map[string]string{"secrets/default/a": "1", "secrets/default/b": "1", "secrets/default/c": "1"}))
	lease, err := store.client.Grant(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, write := range []func() error{
		func() error {
			_, err := store.client.Put(t.Context(), registryPrefix+"secrets/default/a", "2")
			return err
		},
		func() error {
			_, err := store.client.Delete(t.Context(), registryPrefix+"secrets/default/b")
			return err
		},
		func() error {
			_, err := store.client.Put(t.Context(), registryPrefix+"events/default/e", "1", clientv3.WithLease(lease.ID))
			return err
		},
	} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	path := store.path("copy.db")
	if err := writeCopy(store.etcd, path); err != nil {
		t.Fatal(err)
	}
	copied, err := readCopy(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := text(copied); !maps.Equal(got, map[string]string{"secrets/default/a": "2", "secrets/default/c": "1"}) {
		t.Errorf("the copy holds %v", got)
	}
}

func TestStartingOverBeginsFromTheGoldenCopyWithRevisionsThatRise(t *testing.T) {
	directory := t.TempDir()
	golden := map[string]string{"namespaces/default": "1"}
	store := openStore(t, directory, keysOf(golden))
	if err := writeCopy(store.etcd, store.path(goldenFile)); err != nil {
		t.Fatal(err)
	}
	// Completed later than the copy, as the Node, which a kubelet that goes on does not make again.
	if err := os.WriteFile(store.path(settledFile), []byte(`{"/registry/minions/sandbar-dev": "bm9kZQ=="}`), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"namespaces/default": "1", "minions/sandbar-dev": "node"}
	for round := range 3 {
		put, err := store.client.Put(t.Context(), registryPrefix+"secrets/default/a", "1")
		if err != nil {
			t.Fatal(err)
		}
		store.close()
		if err := os.WriteFile(store.path(startOverFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if round == 1 {
			// As if killed between the two renames.
			if err := os.Rename(store.path(dataDirectory), store.path(dataDirectory+".old")); err != nil {
				t.Fatal(err)
			}
		}
		store = openStore(t, directory, nil)
		if got := text(allKeys(t, store)); !maps.Equal(got, want) {
			t.Errorf("the store holds %v", got)
		}
		next, err := store.client.Put(t.Context(), registryPrefix+"secrets/default/b", "1")
		if err != nil || next.Header.Revision <= put.Header.Revision {
			t.Errorf("revision %d after %d, error %v", next.Header.Revision, put.Header.Revision, err)
		}
		if names := listNames(t, directory); !slices.Equal(names, []string{dataDirectory, firstStartFile, goldenFile, settledFile}) {
			t.Errorf("left %v", names)
		}
	}
}

func TestStartingOverWithoutAGoldenCopyIsAFirstStart(t *testing.T) {
	directory := t.TempDir()
	store := openStore(t, directory, keysOf(map[string]string{"secrets/default/a": "1"}))
	store.close()
	if err := os.Remove(store.path(firstStartFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(store.path(startOverFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	store = openStore(t, directory, nil)
	if got := allKeys(t, store); len(got) != 0 || !store.isFirstStart {
		t.Errorf("the store holds %v, first start: %v", text(got), store.isFirstStart)
	}
}

func TestADamagedDatastoreIsDetectedAndKeptWhenStartingOver(t *testing.T) {
	for name, damage := range map[string]func(string) error{
		"the database cut off": func(directory string) error {
			// Within what is used; etcd makes the file larger in advance.
			return os.Truncate(filepath.Join(directory, dataDirectory, "member", "snap", "db"), 3*int64(os.Getpagesize()))
		},
		"a page of the database overwritten": func(directory string) error {
			file, err := os.OpenFile(filepath.Join(directory, dataDirectory, "member", "snap", "db"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer file.Close()
			for page := range int64(12) {
				if _, err := file.WriteAt([]byte(strings.Repeat("damaged ", 512)), (page+2)*4096); err != nil {
					return err
				}
			}
			return nil
		},
		"the database empty": func(directory string) error {
			return os.Truncate(filepath.Join(directory, dataDirectory, "member", "snap", "db"), 0)
		},
		"the log overwritten": func(directory string) error {
			logs, err := filepath.Glob(filepath.Join(directory, dataDirectory, "member", "wal", "*.wal"))
			if err != nil {
				return err
			}
			return os.WriteFile(logs[0], []byte(strings.Repeat("damaged ", 100)), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			store := openStore(t, directory, keysOf(map[string]string{"namespaces/default": "1"}))
			if err := writeCopy(store.etcd, store.path(goldenFile)); err != nil {
				t.Fatal(err)
			}
			store.close()
			if err := os.Remove(store.path(firstStartFile)); err != nil {
				t.Fatal(err)
			}
			if err := damage(directory); err != nil {
				t.Fatal(err)
			}
			// Left by a start that failed.
			if err := os.WriteFile(store.path(unprovenFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			store = &datastore{directory: directory}
			if err := store.prepare(); err == nil || !strings.HasPrefix(err.Error(), "the datastore is damaged: member/") {
				t.Fatalf("error is %v", err)
			}
			if err := os.WriteFile(store.path(startOverFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			store = openStore(t, directory, nil)
			if got := text(allKeys(t, store)); !maps.Equal(got, map[string]string{"namespaces/default": "1"}) {
				t.Errorf("the store holds %v", got)
			}
			if kept, _ := filepath.Glob(filepath.Join(directory, "damaged-*", "member", "snap", "db")); len(kept) != 1 {
				t.Errorf("kept %v", kept)
			}
		})
	}
}

func TestAFirstStartThatWasKilledBeginsAgain(t *testing.T) {
	directory := t.TempDir()
	for _, name := range []string{firstStartFile, unprovenFile, goldenFile + ".123", snapshotFile} {
		if err := os.WriteFile(filepath.Join(directory, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(directory, dataDirectory, "member", "wal.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	store := openStore(t, directory, nil)
	if names := listNames(t, directory); !slices.Equal(names, []string{dataDirectory, firstStartFile}) || !store.isFirstStart {
		t.Errorf("there are %v", names)
	}
}

func TestAHealthyDatastoreOutlivesAnInterruptedStart(t *testing.T) {
	directory := t.TempDir()
	store := openStore(t, directory, keysOf(map[string]string{"namespaces/default": "1"}))
	store.close()
	if err := os.WriteFile(store.path(unprovenFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := allKeys(t, openStore(t, directory, nil)); len(got) != 1 {
		t.Errorf("the store holds %v", text(got))
	}
}

func listNames(t *testing.T, directory string) []string {
	t.Helper()
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func node(change func(*corev1.Node)) *corev1.Node {
	made := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: "sandbar-dev", Labels: map[string]string{"kubernetes.io/hostname": "sandbar-dev"}},
	}
	change(made)
	return made
}

func TestTheNodeLosesWhatWasSetOnItAndKeepsWhatTheKubeletReports(t *testing.T) {
	first := nodeRecord{"sandbar-dev", encode(node(func(made *corev1.Node) {
		made.Spec.Taints = []corev1.Taint{{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoSchedule}}
	}))}
	reported := func(made *corev1.Node) {
		made.Spec.PodCIDR = "10.244.0.0/24"
		made.Status.NodeInfo.KubeletVersion = "v1.36.3"
		made.Spec.Taints = []corev1.Taint{{Key: "node.kubernetes.io/disk-pressure", Effect: corev1.TaintEffectNoSchedule}}
	}
	current := keyValues{first.key(): encode(node(func(made *corev1.Node) {
		reported(made)
		made.Labels["tier"] = "gold"
		made.Annotations = map[string]string{"note": "mine"}
		made.Spec.Unschedulable = true
		made.Spec.Taints = append(made.Spec.Taints, corev1.Taint{Key: "mine", Effect: corev1.TaintEffectNoExecute},
			corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}))}
	if got, want := first.reset(current), encode(node(reported)); string(got) != string(want) {
		got, _ := decode(got, &corev1.Node{})
		t.Errorf("the node is %+v", got)
	}
	if first.reset(keyValues{first.key(): encode(node(reported))}) != nil {
		t.Error("a node on which nothing was set is written")
	}
	if string(first.reset(keyValues{})) != string(first.first) {
		t.Error("a node that was deleted does not come back")
	}
}

func TestWhatIsKeptKeepsWhatItStandsOn(t *testing.T) {
	claimed := func(namespace string) string {
		return string(encode(&corev1.PersistentVolume{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolume"},
			Spec:     corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: namespace}},
		}))
	}
	address := func(namespace string) string {
		return string(encode(&networkingv1.IPAddress{
			TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "IPAddress"},
			Spec:     networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Namespace: namespace}},
		}))
	}
	current := keysOf(map[string]string{
		"namespaces/shop": "", "pods/shop/web": "", "services/specs/shop/web": "", "example.dev/things/shop/a": "",
		"apiextensions.k8s.io/customresourcedefinitions/things.example.dev": "", "apiregistration.k8s.io/apiservices/v1.example.dev": "",
		"persistentvolumes/pv-shop": claimed("shop"), "ipaddresses/10.96.0.7": address("shop"), "ranges/servicenodeports": "",
		"namespaces/blog": "", "pods/blog/web": "", "persistentvolumeclaims/blog/db": "", "persistentvolumes/pv-blog": claimed("blog"),
		"ipaddresses/10.96.0.8": address("blog"), "other.dev/things/blog/a": "",
		"apiextensions.k8s.io/customresourcedefinitions/things.other.dev": "", "clusterroles/mine": "",
		"configmaps/sandbar-system/mount-web": "",
	})
	tests := map[string]struct {
		keep Keep
		want []string
	}{
		"nothing": {Keep{}, nil},
		"a namespace": {Keep{Namespaces: []string{"shop"}}, []string{
			"apiextensions.k8s.io/customresourcedefinitions/things.example.dev", "apiregistration.k8s.io/apiservices/v1.example.dev",
			"example.dev/things/shop/a", "ipaddresses/10.96.0.7", "namespaces/shop", "persistentvolumes/pv-shop", "pods/shop/web",
			"ranges/servicenodeports", "services/specs/shop/web",
		}},
		"volumes": {Keep{HasVolumes: true}, []string{
			"namespaces/blog", "persistentvolumeclaims/blog/db", "persistentvolumes/pv-blog", "persistentvolumes/pv-shop",
		}},
		"a key": {Keep{Keys: []string{registryPrefix + "configmaps/sandbar-system/mount-web"}}, []string{"configmaps/sandbar-system/mount-web"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := slices.Sorted(maps.Keys(text(target(keyValues{}, current, nodeRecord{name: "sandbar-dev"}, test.keep))))
			if !slices.Equal(got, test.want) {
				t.Errorf("kept %v", got)
			}
		})
	}
}

func TestWhatTheMachineSaysOfItselfIsNeitherDeletedNorPutBack(t *testing.T) {
	saved := keysOf(map[string]string{"leases/kube-node-lease/sandbar-dev": "old", "masterleases/172.30.0.2": "old", "leases/default/mine": "golden"})
	current := keysOf(map[string]string{"leases/kube-node-lease/sandbar-dev": "new", "csinodes/sandbar-dev": "new", "csinodes/fake": "new"})
	want := map[string]string{"leases/kube-node-lease/sandbar-dev": "new", "csinodes/sandbar-dev": "new", "leases/default/mine": "golden"}
	if got := text(target(saved, current, nodeRecord{name: "sandbar-dev"}, Keep{})); !maps.Equal(got, want) {
		t.Errorf("the store is to hold %v", got)
	}
}

func pod(name string, change func(*corev1.Pod)) []byte {
	made := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{NodeName: "sandbar-dev"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.0.5"},
	}
	change(made)
	return encode(made)
}

func slice(managedBy string) []byte {
	return encode(&discoveryv1.EndpointSlice{
		TypeMeta:   metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{discoveryv1.LabelManagedBy: managedBy}},
	})
}

func TestPodsOfASnapshotAreMadeAnew(t *testing.T) {
	isController := true
	ended := pod("ended", func(made *corev1.Pod) { made.Status.Phase = corev1.PodSucceeded })
	saved := keyValues{
		podPrefix + "shop/alone": pod("alone", func(*corev1.Pod) {}),
		podPrefix + "shop/owned": pod("owned", func(made *corev1.Pod) {
			made.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Controller: &isController}}
		}),
		podPrefix + "shop/going":     pod("going", func(made *corev1.Pod) { made.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }),
		podPrefix + "shop/ended":     ended,
		slicePrefix + "shop/web-x":   slice("endpointslice-controller.k8s.io"),
		slicePrefix + "shop/by-hand": slice(""),
	}
	adapted := adapt(saved, "sandbar-dev")
	if names := slices.Sorted(maps.Keys(text(adapted))); !slices.Equal(names, []string{"endpointslices/shop/by-hand", "pods/shop/alone", "pods/shop/ended"}) {
		t.Fatalf("put back %v", names)
	}
	if string(adapted[podPrefix+"shop/ended"]) != string(ended) {
		t.Error("a pod that has ended was changed")
	}
	alone, _ := decode(adapted[podPrefix+"shop/alone"], &corev1.Pod{})
	if alone.UID == "uid-alone" || alone.Spec.NodeName != "" || alone.Status.Phase != corev1.PodPending || alone.Status.PodIP != "" {
		t.Errorf("put back %+v", alone)
	}
}

func TestASnapshotOfAnotherClusterGetsThisOnesOwnObjects(t *testing.T) {
	volume := &corev1.PersistentVolume{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolume"},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/var/lib/sandbar/volumes/pv"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"sandbar-other"}}},
			}}}},
		},
	}
	saved := keysOf(map[string]string{
		"namespaces/kube-system": "theirs", "secrets/default/object-store": "theirs", "secrets/shop/mine": "theirs",
		"configmaps/sandbar-system/mount-web": "theirs", "minions/sandbar-other": "theirs", "persistentvolumes/pv": string(encode(volume)),
	})
	own := keysOf(map[string]string{"namespaces/kube-system": "ours", "secrets/default/object-store": "ours"})
	adapted := withOwn(adapt(saved, "sandbar-dev"), own)
	moved, _ := decode(adapted[volumePrefix+"pv"], &corev1.PersistentVolume{})
	if values := moved.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values; !slices.Equal(values, []string{"sandbar-dev"}) {
		t.Errorf("the volume is on %v", values)
	}
	delete(adapted, volumePrefix+"pv")
	want := map[string]string{"namespaces/kube-system": "ours", "secrets/default/object-store": "ours", "secrets/shop/mine": "theirs"}
	if got := text(adapted); !maps.Equal(got, want) {
		t.Errorf("adapted to %v", got)
	}
}

func systemNamespace(uid types.UID, labels map[string]string) []byte {
	return encode(&corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: uid, Labels: labels},
	})
}

func TestASnapshotIsRestoredInOnePassAndKnowsItsCluster(t *testing.T) {
	const identity = namespacePrefix + "kube-system"
	store := openStore(t, t.TempDir(), keyValues{identity: systemNamespace("ours", nil), registryPrefix + "secrets/default/keys": []byte("golden")})
	if _, err := store.saved("snapshot"); err == nil {
		t.Error("without a golden copy nobody knows whose snapshot it is")
	}
	if err := writeCopy(store.etcd, store.path(goldenFile)); err != nil {
		t.Fatal(err)
	}
	washTo(t, store, keyValues{
		// Somebody has put a label on it, and edited what every cluster has.
		identity: systemNamespace("ours", map[string]string{"team": "shop"}), registryPrefix + "secrets/default/keys": []byte("edited"),
		mountPrefix + "web": []byte("x"), podPrefix + "shop/alone": pod("alone", func(*corev1.Pod) {}),
	})
	if err := writeCopy(store.etcd, store.path(restoreFile)); err != nil {
		t.Fatal(err)
	}
	saved, err := store.saved("snapshot")
	if err != nil {
		t.Fatal(err)
	}
	done, err := wash(t.Context(), store.client, saved)
	if err != nil || done.Passes != 2 {
		t.Errorf("washed %+v, error %v", done, err)
	}
	got := text(allKeys(t, store))
	if got["secrets/default/keys"] != "edited" || got["configmaps/sandbar-system/mount-web"] != "x" || got["pods/shop/alone"] == "" {
		t.Errorf("the store holds %v", slices.Sorted(maps.Keys(got)))
	}
}

func TestWhatSettlesLaterIsKeptAsItFirstIsComplete(t *testing.T) {
	store := openStore(t, t.TempDir(), nil)
	role := func(name string, rules ...rbacv1.PolicyRule) []byte {
		return encode(&rbacv1.ClusterRole{
			TypeMeta: metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules,
		})
	}
	services := func(finalizers ...string) []byte {
		return encode(&networkingv1.ServiceCIDR{
			TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDR"}, ObjectMeta: metav1.ObjectMeta{Finalizers: finalizers},
		})
	}
	ready := encode(node(func(made *corev1.Node) {
		made.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	}))
	put := func(key string, value []byte) {
		t.Helper()
		if _, err := store.client.Put(t.Context(), key, string(value)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range aggregatedRoles {
		put(name, role(name))
	}
	put(serviceRangeKey, services())
	put(nodePrefix+"sandbar-dev", encode(node(func(*corev1.Node) {})))
	for _, key := range []string{kubernetesServiceKey, systemAccountKey} {
		put(key, []byte("x"))
	}
	current := allKeys(t, store)
	if got := store.withSettled(keyValues{}, current); !maps.Equal(text(got), text(current)) {
		t.Errorf("before they are known, %v is to stay", text(got))
	}
	put(serviceRangeKey, services("finalizer"))
	for _, name := range aggregatedRoles {
		put(name, role(name, rbacv1.PolicyRule{Verbs: []string{"get"}}))
	}
	put(nodePrefix+"sandbar-dev", ready)
	put(nodePrefix+"sandbar-dev", encode(node(func(made *corev1.Node) { made.Labels["mine"] = "x" })))
	for deadline := time.Now().Add(5 * time.Second); store.settled() == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was kept")
		}
	}
	if string(store.node().first) != string(ready) || string(store.settled()[serviceRangeKey]) != string(services("finalizer")) {
		t.Errorf("kept %v", text(store.settled()))
	}
	if _, err := store.client.Delete(t.Context(), store.node().key()); err != nil {
		t.Fatal(err)
	}
	if isMade, err := store.repairNode(t.Context()); !isMade || err != nil {
		t.Errorf("made %v, error %v", isMade, err)
	}
	if isMade, err := store.repairNode(t.Context()); isMade || err != nil {
		t.Errorf("made again %v, error %v", isMade, err)
	}
}

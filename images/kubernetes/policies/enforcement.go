package policies

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/cloudnativelabs/kube-router/v2/pkg/utils"
	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"sandbar.dev/lib/agent"
)

// enforcement is what runs while there are policies.
type enforcement struct {
	config     agent.Config
	end        func()
	pods       cache.SharedIndexInformer
	namespaces cache.SharedIndexInformer
	// What the library reads, filled anew for every run.
	seenPolicies cache.Indexer
	seenPods     cache.Indexer
	library      syncer
}

// syncer is what patch/sync.go adds to the library.
type syncer interface {
	Sync(jumps func(saved string) []string) error
}

func startEnforcement(ctx context.Context, config agent.Config, client clientset.Interface, change func()) (*enforcement, error) {
	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(withoutUnread))
	e := &enforcement{
		config:       config,
		end:          func() { cancel(); factory.Shutdown() },
		pods:         factory.Core().V1().Pods().Informer(),
		namespaces:   factory.Core().V1().Namespaces().Informer(),
		seenPolicies: newIndexer(),
		seenPods:     newIndexer(),
	}
	err := e.connect(ctx, client, change)
	if err == nil {
		factory.Start(ctx.Done())
		if !cache.WaitForCacheSync(ctx.Done(), e.pods.HasSynced, e.namespaces.HasSynced) {
			err = ctx.Err()
		}
	}
	if err != nil {
		e.stop()
		return nil, err
	}
	return e, nil
}

func (e *enforcement) stop() { e.end() }

func (e *enforcement) connect(ctx context.Context, client clientset.Interface, change func()) error {
	if _, err := e.pods.AddEventHandler(wheneverPods(change)); err != nil {
		return err
	}
	if _, err := e.namespaces.AddEventHandler(wheneverNamespaces(change)); err != nil {
		return err
	}
	sets, err := utils.NewIPSet(false)
	if err != nil {
		return err
	}
	controller, err := netpol.NewNetworkPolicyController(client,
		&options.KubeRouterConfig{
			EnableIPv4:       true,
			ClusterIPCIDRs:   []string{e.config.ServiceSubnet},
			NodePortRange:    "30000-32767",
			HostnameOverride: e.config.NodeName,
		},
		indexed{indexer: e.seenPods}, indexed{indexer: e.seenPolicies}, e.namespaces, &sync.Mutex{}, nil,
		map[v1.IPFamily]utils.IPSetHandler{v1.IPv4Protocol: sets})
	if err != nil {
		return fmt.Errorf("create the controller of network policies: %w", err)
	}
	library, isPatched := any(controller).(syncer)
	if !isPatched {
		return errors.New("this program was built without patch/apply.sh, which network policies need")
	}
	e.library = library
	return nil
}

// apply puts the policies into force for the pods that it returns; an error leaves what was in force before.
func (e *enforcement) apply(policies []*networking.NetworkPolicy, young map[podRef]string) (map[podRef]string, error) {
	var pods []*v1.Pod
	covered := map[podRef]string{}
	for _, object := range e.pods.GetStore().List() {
		pod := object.(*v1.Pod)
		pods = append(pods, pod)
		covered[refOf(pod)] = addressOf(pod, young)
	}
	neighbours := e.config.NetworkPolicy.Neighbours
	if err := replace(e.seenPolicies, translatePolicies(policies)); err != nil {
		return nil, err
	}
	if err := replace(e.seenPods, translatePods(policies, pods, young, neighbours, e.config.Address)); err != nil {
		return nil, err
	}
	return covered, e.library.Sync(func(saved string) []string { return jumpRules(e.config.PolicyJumps(), saved) })
}

// jumpRules makes each jump the first of its chain again, before what kube-proxy accepts. saved is the table as
// iptables-save prints it; nothing where there is no reason to think that somebody else has changed it.
func jumpRules(jumps []string, saved string) []string {
	var rules []string
	for _, jump := range jumps {
		times := 1
		if saved != "" {
			times = strings.Count(saved, "-A "+jump+"\n")
		}
		rules = append(rules, slices.Repeat([]string{"-D " + jump}, times)...)
		rules = append(rules, "-I "+jump)
	}
	return rules
}

func (e *enforcement) findPod(ref podRef) *v1.Pod {
	object, exists, err := e.pods.GetStore().GetByKey(ref.String())
	if err != nil || !exists || refOf(object.(*v1.Pod)) != ref {
		return nil
	}
	return object.(*v1.Pod)
}

// indexed is an informer as far as the library uses one.
type indexed struct {
	cache.SharedIndexInformer
	indexer cache.Indexer
}

func (i indexed) GetIndexer() cache.Indexer { return i.indexer }

func newIndexer() cache.Indexer {
	return cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
}

func replace[Object any](indexer cache.Indexer, objects []Object) error {
	list := make([]any, len(objects))
	for i, object := range objects {
		list[i] = object
	}
	return indexer.Replace(list, "")
}

func wheneverPods(change func()) cache.ResourceEventHandler {
	isSame := func(before, after *v1.Pod) bool {
		return refOf(before) == refOf(after) && addressOf(before, nil) == addressOf(after, nil) &&
			maps.Equal(before.Labels, after.Labels)
	}
	return cache.ResourceEventHandlerFuncs{
		// One without an address changes nothing, but a container of it may wait for the pod to be known.
		AddFunc: func(any) { change() },
		UpdateFunc: func(before, after any) {
			if !isSame(before.(*v1.Pod), after.(*v1.Pod)) {
				change()
			}
		},
		DeleteFunc: func(any) { change() },
	}
}

func wheneverNamespaces(change func()) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { change() },
		UpdateFunc: func(before, after any) {
			if !maps.Equal(before.(*v1.Namespace).Labels, after.(*v1.Namespace).Labels) {
				change()
			}
		},
		DeleteFunc: func(any) { change() },
	}
}

// withoutUnread keeps of a pod and a namespace what policies are about.
func withoutUnread(object any) (any, error) {
	switch object := object.(type) {
	case *v1.Pod:
		meta := keptMeta(object.ObjectMeta)
		// The kubelet knows a pod that it read from a file by another name than the API.
		if uid, isMirror := object.Annotations[v1.MirrorPodAnnotationKey]; isMirror {
			meta.UID = types.UID(uid)
		}
		return &v1.Pod{
			ObjectMeta: meta,
			Spec: v1.PodSpec{
				HostNetwork:    object.Spec.HostNetwork,
				Containers:     keptContainers(object.Spec.Containers),
				InitContainers: keptContainers(object.Spec.InitContainers),
			},
			Status: v1.PodStatus{Phase: object.Status.Phase, PodIP: object.Status.PodIP},
		}, nil
	case *v1.Namespace:
		return &v1.Namespace{ObjectMeta: keptMeta(object.ObjectMeta)}, nil
	}
	return object, nil
}

func keptMeta(object metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: object.Namespace, Name: object.Name, UID: object.UID, ResourceVersion: object.ResourceVersion,
		Labels: object.Labels,
	}
}

func keptContainers(containers []v1.Container) []v1.Container {
	kept := make([]v1.Container, len(containers))
	for i, container := range containers {
		kept[i] = v1.Container{Name: container.Name, Ports: container.Ports, RestartPolicy: container.RestartPolicy}
	}
	return kept
}

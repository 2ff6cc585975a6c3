// Package policies keeps NetworkPolicies in force on this node, by the controller of kube-router. What that needs beside
// it is here: to run it only while there are policies, to hand it the cluster as it understands it, and to let no
// container of a pod start before the pod's policies are in force.
package policies

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"sandbar.dev/kubernetes/objects"
	"sandbar.dev/lib/agent"
)

const (
	// The first change is applied at once; this is how long the next one waits. A run takes some 20 ms.
	leastInterval = 50 * time.Millisecond
	firstRetry    = 200 * time.Millisecond
	lastRetry     = 30 * time.Second
	// A container whose pod is not covered by then is not created; the kubelet tries again.
	longestWait = 8 * time.Second
)

// Service is to be made by New.
type Service struct {
	client   clientset.Interface
	policies cache.Store
	changed  chan struct{}
	begin    func(context.Context) (enforcer, error)
	// Containers about to be created, and those of them that still wait.
	arriving chan *arrival
	waiting  []*arrival
	// Addresses of pods whose status does not tell of them yet.
	young map[podRef]string
	// The pods that policies know, with their addresses, as of the last run.
	covered map[podRef]string
	// Nothing while there is no policy.
	active enforcer
	// Of the process before this one, until a run has looked.
	mayHaveRules bool
}

// enforcer is an enforcement.
type enforcer interface {
	apply(policies []*networking.NetworkPolicy, young map[podRef]string) (map[podRef]string, error)
	findPod(podRef) *v1.Pod
	stop()
}

// entrance is a door.
type entrance interface {
	open() error
	close() error
}

// arrival is a container of a pod with an address of its own.
type arrival struct {
	pod     podRef
	address string
	covered chan struct{}
	ctx     context.Context
}

// New makes a service; the configuration is that of a cluster where policies are enforced. proxied is closed once
// kube-proxy has written its rules: it puts them before those that are there.
func New(config agent.Config, client clientset.Interface, proxied <-chan struct{}) *Service {
	s := newService(client)
	s.begin = func(ctx context.Context) (enforcer, error) {
		select {
		case <-proxied:
			return startEnforcement(ctx, config, client, s.change)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s
}

func newService(client clientset.Interface) *Service {
	return &Service{
		client:   client,
		changed:  make(chan struct{}, 1),
		arriving: make(chan *arrival),
		young:    map[podRef]string{},
	}
}

// Run ends with an error, or with the context.
func (s *Service) Run(ctx context.Context) error {
	_, err := os.Lstat(agent.PoliciesSocket)
	s.mayHaveRules = err == nil
	door, err := openDoor()
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(s.client, 0, informers.WithTransform(objects.WithoutManagedFields))
	informer := factory.Networking().V1().NetworkPolicies().Informer()
	if _, err := informer.AddEventHandler(objects.Whenever(s.change)); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return ctx.Err()
	}
	s.policies = informer.GetStore()
	go door.serve(ctx, s.cover)
	return s.keepInForce(ctx, door)
}

func (s *Service) keepInForce(ctx context.Context, door entrance) error {
	retry := firstRetry
	for {
		err := s.settle(ctx, door)
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Network policies are not in force", "retryAfter", retry)
			again = time.After(retry)
			retry = min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(leastInterval):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
		case <-again:
		case arrival := <-s.arriving:
			s.receive(arrival)
		}
	}
}

// receive takes all that ask at the same time. A further container of a pod that is known need not wait.
func (s *Service) receive(arrival *arrival) {
	for {
		if s.covered[arrival.pod] == arrival.address {
			close(arrival.covered)
		} else {
			s.waiting = append(s.waiting, arrival)
			s.young[arrival.pod] = arrival.address
		}
		select {
		case arrival = <-s.arriving:
		default:
			return
		}
	}
}

// settle brings the node into the state that the policies ask for.
func (s *Service) settle(ctx context.Context, door entrance) error {
	policies := s.listPolicies()
	if s.active == nil && (s.mayHaveRules || len(policies) > 0) {
		active, err := s.begin(ctx)
		if err != nil {
			return err
		}
		s.active = active
	}
	if s.active == nil {
		s.letGo(func(*arrival) bool { return true })
		clear(s.young)
		return door.close()
	}
	if err := door.open(); err != nil {
		return err
	}
	s.forgetGrownUp()
	// A container waits for no policies but those of its own pod.
	s.letGo(func(arrival *arrival) bool {
		pod := s.active.findPod(arrival.pod)
		return pod != nil && !isSelected(pod, policies)
	})
	covered, err := s.active.apply(policies, s.young)
	if err != nil {
		return err
	}
	s.covered, s.mayHaveRules = covered, false
	s.letGo(func(arrival *arrival) bool {
		_, isCovered := covered[arrival.pod]
		return isCovered
	})
	if len(policies) == 0 {
		s.active.stop()
		s.active, s.covered = nil, nil
		clear(s.young)
		return door.close()
	}
	return nil
}

func (s *Service) listPolicies() []*networking.NetworkPolicy {
	var policies []*networking.NetworkPolicy
	for _, object := range s.policies.List() {
		policies = append(policies, object.(*networking.NetworkPolicy))
	}
	return policies
}

// letGo has containers created, and forgets those that nobody asks for any more.
func (s *Service) letGo(mayGo func(*arrival) bool) {
	var waiting []*arrival
	for _, arrival := range s.waiting {
		switch {
		case arrival.ctx.Err() != nil:
		case mayGo(arrival):
			close(arrival.covered)
		default:
			waiting = append(waiting, arrival)
		}
	}
	s.waiting = waiting
}

// forgetGrownUp drops addresses that are in the pods' status by now, and those of pods that are gone.
func (s *Service) forgetGrownUp() {
	arriving := map[podRef]bool{}
	for _, arrival := range s.waiting {
		arriving[arrival.pod] = true
	}
	for ref, address := range s.young {
		pod := s.active.findPod(ref)
		if pod == nil && !arriving[ref] || pod != nil && pod.Status.PodIP == address {
			delete(s.young, ref)
		}
	}
}

// cover returns when the policies of a pod that is about to run a container are in force.
func (s *Service) cover(ctx context.Context, question agent.PolicyQuestion) error {
	address, err := findAddress(agent.AddressesDirectory, question.SandboxID)
	if errors.Is(err, fs.ErrNotExist) {
		// On the node's network.
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the address of %s/%s: %w", question.Namespace, question.Pod, err)
	}
	pod := types.NamespacedName{Namespace: question.Namespace, Name: question.Pod}
	return s.await(ctx, podRef{pod, types.UID(question.UID)}, address)
}

func (s *Service) await(ctx context.Context, pod podRef, address string) error {
	ctx, cancel := context.WithTimeout(ctx, longestWait)
	defer cancel()
	arrival := &arrival{pod: pod, address: address, covered: make(chan struct{}), ctx: ctx}
	select {
	case s.arriving <- arrival:
	case <-ctx.Done():
		return s.late(arrival)
	}
	select {
	case <-arrival.covered:
		return nil
	case <-ctx.Done():
		return s.late(arrival)
	}
}

func (s *Service) late(arrival *arrival) error {
	return fmt.Errorf("the network policies of %s are not in force after %v; the node's log says why", arrival.pod, longestWait)
}

func (s *Service) change() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Package ports makes Services of type LoadBalancer, and whatever the command line has recorded, reachable from the host:
// at an address of the Docker network, and at ports of 127.0.0.1 that a container in the host's network opens for it.
package ports

import (
	"context"
	"net"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"sandbar.dev/kubernetes/objects"
	"sandbar.dev/lib/packets"
	"sandbar.dev/lib/ports"
)

const (
	systemNamespace = "sandbar-system"
	// On every ConfigMap that records a port.
	recordLabel = "sandbar.dev/port"
)

// Service holds the cluster's ports on the host.
type Service struct {
	subnet   netip.Prefix
	services corelisters.ServiceLister
	records  corelisters.ConfigMapLister
	resolver resolver
	routes   *routes
	writer   *writer
	// Everything is to be looked at again.
	changed chan struct{}

	// Everything below is touched by these functions only, one after the other.
	events chan func()
	// To the ports container; nil while there is none.
	opener *net.UnixConn
	// There is none for longer than a restart takes.
	isOpenerMissed bool
	// What this ports container was told, and what it said, by id.
	sent []ports.Wanted
	said map[string]ports.Opened
	// What is wanted, and what has been open since it is, by id.
	wishes   map[string]wish
	forwards map[string]*forward
}

// Run serves until ctx ends.
func Run(ctx context.Context, client clientset.Interface, loadBalancerSubnet string) error {
	subnet, err := netip.ParsePrefix(loadBalancerSubnet)
	if err != nil {
		return err
	}
	routes, err := openRoutes()
	if err != nil {
		return err
	}
	services := informers.NewSharedInformerFactory(client, 0)
	records := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(systemNamespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = recordLabel }))
	s := newService(client, subnet, routes, services.Core().V1().Services().Lister(), records.Core().V1().ConfigMaps().Lister())
	var synced []cache.InformerSynced
	for _, informer := range []cache.SharedIndexInformer{
		services.Core().V1().Services().Informer(), records.Core().V1().ConfigMaps().Informer(),
	} {
		if err := informer.SetTransform(objects.WithoutManagedFields); err != nil {
			return err
		}
		registration, err := informer.AddEventHandler(objects.Whenever(s.change))
		if err != nil {
			return err
		}
		synced = append(synced, registration.HasSynced)
	}
	services.Start(ctx.Done())
	records.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return ctx.Err()
	}
	go routes.run(ctx)
	go s.writer.run(ctx)
	// Only now: whoever comes must find out at once what is wanted.
	listener, err := packets.Serve(ports.SocketPath, func(connection *net.UnixConn) { s.serve(ctx, connection) })
	if err != nil {
		return err
	}
	defer listener.Close()
	s.change()
	s.missOpenerLater(ctx)
	return s.loop(ctx)
}

func newService(
	client clientset.Interface, subnet netip.Prefix, routes *routes,
	services corelisters.ServiceLister, records corelisters.ConfigMapLister,
) *Service {
	return &Service{
		subnet:   subnet,
		services: services,
		records:  records,
		resolver: resolver{client, services},
		routes:   routes,
		writer:   newWriter(client, services, records),
		changed:  make(chan struct{}, 1),
		events:   make(chan func()),
		said:     map[string]ports.Opened{},
		wishes:   map[string]wish{},
		forwards: map[string]*forward{},
	}
}

func (s *Service) loop(ctx context.Context) error {
	for {
		select {
		case event := <-s.events:
			event()
		case <-s.changed:
			s.reconcile()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// do has event run after those before it.
func (s *Service) do(ctx context.Context, event func()) {
	select {
	case s.events <- event:
	case <-ctx.Done():
	}
}

// change has everything looked at again, soon.
func (s *Service) change() {
	wake(s.changed)
}

// wake is for a channel with room for one: whoever is woken looks at things as they are by then.
func wake(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default:
	}
}

// reconcile makes everything what Services and records say now. Nothing in it waits for anybody: not for the API, nor
// for the kernel's routes, which are locked for a quarter of a second at times while many pods end.
func (s *Service) reconcile() {
	services, err := s.services.List(labels.Everything())
	if err != nil {
		klog.ErrorS(err, "Ports: list Services")
		return
	}
	records, err := s.records.List(labels.Everything())
	if err != nil {
		klog.ErrorS(err, "Ports: list records")
		return
	}
	assigned := assignAddresses(s.subnet, services)
	s.routes.set(assigned)
	wishes := slices.Concat(planRecords(records), planServices(services, assigned))
	s.want(wishes)
	s.writer.set(s.reports(services, records, assigned, wishes))
}

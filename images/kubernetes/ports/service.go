// Package ports makes Services of type LoadBalancer, and whatever the command line has recorded, reachable from the host:
// at an address of the Docker network, and at ports of 127.0.0.1 that a container in the host's network opens for it.
package ports

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
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
	// A container that restarts is back by then: nobody is told of its absence.
	openerPatience = 3 * time.Second
	// One that is paused reads nothing; nobody else shall wait for it.
	writePatience = 500 * time.Millisecond
	// After the kernel refused a route.
	retryDelay = 2 * time.Second
)

// Service holds the cluster's ports on the host.
type Service struct {
	subnet   netip.Prefix
	services corelisters.ServiceLister
	records  corelisters.ConfigMapLister
	resolver resolver
	routes   *routes
	writer   *writer

	// Has everything looked at again, soon.
	change func()

	// Everything below is touched by these functions only, one after the other.
	events chan func()
	// To the ports container; nil while there is none.
	opener *net.UnixConn
	// There is none for longer than a restart takes.
	isOpenerMissed bool
	sent           []ports.Wanted
	// Both by id.
	wishes map[string]wish
	open   map[string]*openPort
}

// openPort is what the ports container said of a wanted port.
type openPort struct {
	opened  ports.Opened
	forward *forward
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
	s := &Service{subnet: subnet, routes: routes, events: make(chan func()), open: map[string]*openPort{}}
	if err := s.follow(ctx, client); err != nil {
		return err
	}
	s.writer = newWriter(client, s.services, s.records)
	go s.writer.run(ctx)
	// Only now: whoever comes must find out at once what is wanted.
	listener, err := packets.Serve(ports.SocketPath, func(connection *net.UnixConn) { s.serve(ctx, connection) })
	if err != nil {
		return err
	}
	defer listener.Close()
	s.change()
	s.missOpenerLater(ctx)
	for {
		select {
		case event := <-s.events:
			event()
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

// follow returns once everything is known that there is, and has every change looked at from then on.
func (s *Service) follow(ctx context.Context, client clientset.Interface) error {
	services := informers.NewSharedInformerFactory(client, 0)
	records := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(systemNamespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = recordLabel }))
	s.services = services.Core().V1().Services().Lister()
	s.records = records.Core().V1().ConfigMaps().Lister()
	s.resolver = resolver{client, s.services}
	changed := make(chan struct{}, 1)
	s.change = func() {
		select {
		case changed <- struct{}{}:
		default:
			// What is looked at next is as it is by then.
		}
	}
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
	go func() {
		for {
			select {
			case <-changed:
				s.do(ctx, s.reconcile)
			case <-ctx.Done():
				return
			}
		}
	}()
	return nil
}

// serve speaks with a ports container, or with a command in it.
func (s *Service) serve(ctx context.Context, connection *net.UnixConn) {
	greeting, err := ports.ReceiveGreeting(connection)
	switch {
	case err != nil:
		return
	case greeting == ports.Asking:
		problem := make(chan string, 1)
		s.do(ctx, func() { problem <- s.openerProblem() })
		select {
		case text := <-problem:
			// Whoever asked may have gone.
			_ = ports.Answer(connection, text)
		case <-ctx.Done():
		}
		return
	}
	s.do(ctx, func() { s.setOpener(connection) })
	for {
		opened, err := ports.ReceiveOpened(connection)
		if err != nil {
			break
		}
		s.do(ctx, func() { s.take(connection, opened) })
	}
	s.do(ctx, func() {
		if s.opener == connection {
			s.setOpener(nil)
			s.missOpenerLater(ctx)
		}
	})
}

func (s *Service) openerProblem() string {
	if s.opener == nil {
		return "the ports container is not connected to the agent"
	}
	return ""
}

// setOpener forgets what an earlier container opened: its successor cannot open a port that is still open here.
func (s *Service) setOpener(connection *net.UnixConn) {
	if s.opener != nil {
		s.opener.Close()
	}
	for id := range s.open {
		s.closePort(id)
	}
	s.opener, s.sent = connection, nil
	if connection != nil {
		s.isOpenerMissed = false
		s.reconcile()
	}
}

func (s *Service) missOpenerLater(ctx context.Context) {
	time.AfterFunc(openerPatience, func() {
		s.do(ctx, func() {
			if s.opener == nil {
				s.isOpenerMissed = true
				s.reconcile()
			}
		})
	})
}

// take serves a port that was opened.
func (s *Service) take(connection *net.UnixConn, opened ports.Opened) {
	w, isWanted := s.wishes[opened.ID]
	if s.opener != connection || !isWanted {
		packets.Close(opened.Descriptor)
		return
	}
	s.closePort(opened.ID)
	port := &openPort{opened: opened}
	if opened.State == ports.Open {
		var err error
		port.forward, err = startForward(w.wanted.Protocol, opened.Descriptor, func(ctx context.Context) (string, error) {
			return s.resolver.resolve(ctx, w.target)
		})
		if err != nil {
			port.opened.State, port.opened.Detail = ports.Failed, err.Error()
		}
	}
	s.open[opened.ID] = port
	s.reconcile()
}

func (s *Service) closePort(id string) {
	if port := s.open[id]; port != nil && port.forward != nil {
		port.forward.stop()
	}
	delete(s.open, id)
}

// reconcile makes everything what Services and records say now. Nothing in it waits for anybody.
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
	s.answerFor(assigned)
	wishes := slices.Concat(planRecords(records), planServices(services, assigned))
	s.want(wishes)
	s.writer.set(s.reports(services, records, assigned, wishes))
}

func (s *Service) answerFor(assigned map[types.NamespacedName]assignment) {
	addresses := map[netip.Addr]bool{}
	for _, a := range assigned {
		if a.address.IsValid() {
			addresses[a.address] = true
		}
	}
	if err := s.routes.set(addresses); err != nil {
		klog.ErrorS(err, "Ports: answer for the addresses of Services")
		time.AfterFunc(retryDelay, s.change)
	}
}

// want tells the ports container what is to be open from now on.
func (s *Service) want(wishes []wish) {
	s.wishes = map[string]wish{}
	wanted := wantedOf(wishes)
	for _, w := range wishes {
		if w.refusal == "" {
			s.wishes[w.wanted.ID] = w
		}
	}
	for id := range s.open {
		if _, isWanted := s.wishes[id]; !isWanted {
			s.closePort(id)
		}
	}
	if s.opener == nil || (s.sent != nil && slices.EqualFunc(s.sent, wanted, isSame)) {
		return
	}
	s.opener.SetWriteDeadline(time.Now().Add(writePatience))
	if err := ports.SendWanted(s.opener, wanted); err != nil {
		// It connects again, and is told again.
		s.opener.Close()
	}
	s.sent = wanted
}

// isSame ignores which port was had before: that only matters to who opens it anew.
func isSame(a, b ports.Wanted) bool {
	a.Former, b.Former = 0, 0
	return a == b
}

// reports says of every object that may have ports on the host what is to stand in it.
func (s *Service) reports(
	services []*v1.Service, records []*v1.ConfigMap, assigned map[types.NamespacedName]assignment, wishes []wish,
) map[owner]standing {
	entries := map[owner][]hostPort{}
	isPending := map[owner]bool{}
	for _, w := range wishes {
		entry, isKnown := s.describe(w)
		entries[w.owner] = append(entries[w.owner], entry)
		isPending[w.owner] = isPending[w.owner] || !isKnown
	}
	reports := map[owner]standing{}
	add := func(o owner, annotations map[string]string) {
		text := formatHostPorts(entries[o])
		if isPending[o] {
			// The answer is on its way; what stands there also tells which port was had before.
			text = annotations[hostPortsAnnotation]
		}
		reports[o] = standing{hostPorts: text, address: assigned[o.NamespacedName].address}
	}
	for _, service := range services {
		add(owner{"Service", keyOf(service)}, service.Annotations)
	}
	for _, record := range records {
		add(owner{"ConfigMap", types.NamespacedName{Namespace: record.Namespace, Name: record.Name}}, record.Annotations)
	}
	return reports
}

// describe says what became of a port, where that is known.
func (s *Service) describe(w wish) (entry hostPort, isKnown bool) {
	entry = w.former
	entry.Detail = ""
	port := s.open[w.wanted.ID]
	switch {
	case w.refusal != "":
		entry.State, entry.Detail = closed, w.refusal
	case port != nil:
		entry.State, entry.Detail = string(port.opened.State), port.opened.Detail
		if port.opened.State == ports.Open {
			entry.HostPort = port.opened.Port
		}
	case s.isOpenerMissed:
		entry.State, entry.Detail = waiting, s.openerProblem()
	default:
		return entry, false
	}
	return entry, true
}

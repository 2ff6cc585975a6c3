package ports

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"sandbar.dev/lib/packets"
	"sandbar.dev/lib/ports"
)

// world is a Service with what it would know of the API, and the socket at which ports containers meet it.
type world struct {
	t        *testing.T
	service  *Service
	services cache.Indexer
	records  cache.Indexer
	path     string
}

func startWorld(t *testing.T) *world {
	t.Helper()
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	w := &world{
		t:        t,
		services: cache.NewIndexer(cache.MetaNamespaceKeyFunc, byNamespace),
		records:  cache.NewIndexer(cache.MetaNamespaceKeyFunc, byNamespace),
		path:     filepath.Join(t.TempDir(), "agent.sock"),
	}
	w.service = newService(nil, subnet, &routes{changed: make(chan struct{}, 1)},
		corelisters.NewServiceLister(w.services), corelisters.NewConfigMapLister(w.records))
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.service.loop(ctx)
	}()
	listener, err := packets.Serve(w.path, func(connection *net.UnixConn) { w.service.serve(ctx, connection) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		end()
		<-ended
		listener.Close()
		for _, f := range w.service.forwards {
			f.stop()
		}
	})
	return w
}

// serveAt makes a Service of the cluster that is the server at this address.
func (w *world) serveAt(name string, server net.Addr) {
	w.t.Helper()
	address := server.(*net.TCPAddr)
	if err := w.services.Add(&v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: v1.ServiceSpec{ClusterIP: address.IP.String(), Ports: []v1.ServicePort{
			{Name: "main", Port: int32(address.Port), Protocol: v1.ProtocolTCP},
		}},
	}); err != nil {
		w.t.Fatal(err)
	}
}

// publish has a port of the host lead to a Service.
func (w *world) publish(port uint16, service string) *v1.ConfigMap {
	w.t.Helper()
	object := record(fmt.Sprintf("port-%d-tcp", port), map[string]string{
		"port": strconv.Itoa(int(port)), "protocol": "TCP",
		"kind": "Service", "namespace": "default", "name": service, "targetPort": "main",
	})
	if err := w.records.Add(object); err != nil {
		w.t.Fatal(err)
	}
	w.service.change()
	return object
}

func (w *world) withdraw(object *v1.ConfigMap) {
	w.t.Helper()
	if err := w.records.Delete(object); err != nil {
		w.t.Fatal(err)
	}
	w.service.change()
}

// container does what the ports container does, as simply as that can be done.
type container struct {
	t          *testing.T
	connection *net.UnixConn
	sockets    map[string]*net.TCPListener
}

func (w *world) startContainer() *container {
	w.t.Helper()
	connection, err := packets.Dial(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	connection.SetDeadline(time.Now().Add(20 * time.Second))
	c := &container{w.t, connection, map[string]*net.TCPListener{}}
	w.t.Cleanup(c.end)
	if err := ports.Greet(connection, ports.Opening); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// obey does what it is told next, and returns what it says of the ports that it did not have yet.
func (c *container) obey() []ports.Opened {
	c.t.Helper()
	wanted, err := ports.ReceiveWanted(c.connection)
	if err != nil {
		c.t.Fatal(err)
	}
	isWanted := map[string]bool{}
	for _, w := range wanted {
		isWanted[w.ID] = true
	}
	for id, socket := range c.sockets {
		if !isWanted[id] {
			socket.Close()
			delete(c.sockets, id)
		}
	}
	var said []ports.Opened
	for _, w := range wanted {
		if c.sockets[w.ID] != nil {
			continue
		}
		opened := ports.Opened{ID: w.ID, State: ports.Taken, Port: w.Port, Descriptor: -1}
		if socket, err := net.ListenTCP("tcp4", loopbackAddress(w.Port)); err == nil {
			c.sockets[w.ID] = socket
			opened.State, opened.Descriptor = ports.Open, copyOf(c.t, socket)
		}
		if err := ports.SendOpened(c.connection, opened); err != nil {
			c.t.Fatal(err)
		}
		packets.Close(opened.Descriptor)
		said = append(said, opened)
	}
	return said
}

func (c *container) obeyAndOpen() {
	c.t.Helper()
	if said := c.obey(); len(said) != 1 || said[0].State != ports.Open {
		c.t.Fatalf("got %+v", said)
	}
}

func (c *container) end() {
	c.connection.Close()
	for _, socket := range c.sockets {
		socket.Close()
	}
}

func loopbackAddress(port uint16) *net.TCPAddr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	listener, err := net.ListenTCP("tcp4", loopbackAddress(0))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return uint16(listener.Addr().(*net.TCPAddr).Port)
}

// untilClosed waits for the end of a connection.
func untilClosed(t *testing.T, connection net.Conn) {
	t.Helper()
	if _, err := io.ReadAll(connection); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Fatal(err)
	}
}

func TestAPortThatLeadsElsewhereIsNotTakenByItself(t *testing.T) {
	w := startWorld(t)
	w.serveAt("first", startServer(t, "first ").Addr())
	w.serveAt("second", startServer(t, "second ").Addr())
	container := w.startContainer()
	container.obey()
	port := freePort(t)
	for round := range 20 {
		name := []string{"first", "second"}[round%2]
		w.publish(port, name)
		container.obeyAndOpen()
		if answer, err := ask(t, loopbackAddress(port).String(), ""); answer != name+" " {
			t.Fatalf("got %q, %v instead of %s", answer, err, name)
		}
	}
}

func TestConnectionsOutliveTheContainerThatOpenedTheirPort(t *testing.T) {
	w := startWorld(t)
	w.serveAt("web", startServer(t, "got ").Addr())
	port := freePort(t)
	object := w.publish(port, "web")
	first := w.startContainer()
	first.obeyAndOpen()
	address := loopbackAddress(port).String()
	var clients []*net.TCPConn
	for range 2 {
		client, err := net.DialTCP("tcp4", nil, loopbackAddress(port))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(client, "before ")
		clients = append(clients, client)
	}
	// Accepted after these two.
	if answer, _ := ask(t, address, "this"); answer != "got this" {
		t.Fatalf("got %q", answer)
	}

	first.end()
	second := w.startContainer()
	// Were the port still open here, it would be taken.
	second.obeyAndOpen()
	if answer, err := ask(t, address, "this"); answer != "got this" {
		t.Errorf("the new container's port: got %q, %v", answer, err)
	}
	io.WriteString(clients[0], "and after")
	clients[0].CloseWrite()
	if answer, err := io.ReadAll(clients[0]); string(answer) != "got before and after" {
		t.Errorf("got %q, %v", answer, err)
	}

	w.withdraw(object)
	untilClosed(t, clients[1])
	second.obey()
	if again, err := net.Dial("tcp4", address); err == nil {
		again.Close()
		t.Error("it still listens")
	}
}

func TestAnyNumberOfPortsIsToldAndReported(t *testing.T) {
	const count = 3000
	w := startWorld(t)
	for number := range uint16(count) {
		w.publish(10000+number, "web")
	}
	container := w.startContainer()
	wanted, err := ports.ReceiveWanted(container.connection)
	for err == nil && len(wanted) < count {
		// What was known before all were published.
		wanted, err = ports.ReceiveWanted(container.connection)
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		// The same again, as long as publishing them was noticed in parts.
		for err == nil {
			_, err = ports.ReceiveWanted(container.connection)
		}
	}()
	for _, w := range wanted {
		opened := ports.Opened{ID: w.ID, State: ports.Failed, Port: w.Port, Detail: "tried", Descriptor: -1}
		if err := ports.SendOpened(container.connection, opened); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for reported := 0; reported < count; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d are reported", reported, count)
		}
		<-w.service.writer.changed
		reported = 0
		w.service.writer.lock.Lock()
		for _, standing := range w.service.writer.standings {
			if strings.Contains(standing.hostPorts, "tried") {
				reported++
			}
		}
		w.service.writer.lock.Unlock()
	}
}

func TestWhatIsOpenedTooLateIsClosed(t *testing.T) {
	w := startWorld(t)
	container := w.startContainer()
	container.obey()
	port := freePort(t)
	socket, err := net.ListenTCP("tcp4", loopbackAddress(port))
	if err != nil {
		t.Fatal(err)
	}
	late := ports.Opened{ID: "gone", State: ports.Open, Port: port, Descriptor: copyOf(t, socket)}
	if err := ports.SendOpened(container.connection, late); err != nil {
		t.Fatal(err)
	}
	packets.Close(late.Descriptor)
	socket.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		client, err := net.Dial("tcp4", loopbackAddress(port).String())
		if err != nil {
			return
		}
		client.Close()
		if time.Now().After(deadline) {
			t.Fatal("it still listens")
		}
		time.Sleep(time.Millisecond)
	}
}

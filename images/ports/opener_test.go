package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/packets"
	"sandbar.dev/lib/ports"
)

func TestCandidates(t *testing.T) {
	tests := map[string]struct {
		wanted ports.Wanted
		first  []uint16
		count  int
	}{
		"a fixed port has no stand-in":              {ports.Wanted{Port: 8080, IsFixed: true}, []uint16{8080}, 1},
		"the next free one comes after it":          {ports.Wanted{Port: 5432}, []uint16{5432, 5433, 5434}, 201},
		"the web's ports have well-known stand-ins": {ports.Wanted{Port: 80}, []uint16{80, 8080, 8081}, 201},
		"TLS too":                               {ports.Wanted{Port: 443}, []uint16{443, 8443, 8444}, 201},
		"what it had before comes first":        {ports.Wanted{Port: 80, Former: 8085}, []uint16{8085, 80, 8080}, 202},
		"there is nothing behind the last port": {ports.Wanted{Port: 65535}, []uint16{65535}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			found := candidates(test.wanted)
			if len(found) != test.count || !slices.Equal(found[:len(test.first)], test.first) {
				t.Errorf("got %d: %v", len(found), found[:len(test.first)])
			}
		})
	}
}

func TestAReservedPortIsLeftAlone(t *testing.T) {
	port := freePort(t)
	socket, opened, err := open(ports.Wanted{Protocol: ports.TCP, Port: port}, []uint16{port})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if opened == port {
		t.Errorf("opened %d", opened)
	}
	if _, _, err := open(ports.Wanted{Protocol: ports.TCP, Port: port, IsFixed: true}, []uint16{port}); err == nil {
		t.Error("a fixed reserved port was opened")
	}
}

func TestAServiceThatIsRefusedALowPortGetsAHigherOne(t *testing.T) {
	withoutLowPorts(t)
	socket, opened, err := open(ports.Wanted{Protocol: ports.TCP, Port: 80}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if opened < 8080 {
		t.Errorf("opened %d", opened)
	}
	if _, _, err := open(ports.Wanted{Protocol: ports.TCP, Port: 80, IsFixed: true}, nil); !errors.Is(err, unix.EACCES) {
		t.Errorf("got %v", err)
	}
}

// withoutLowPorts takes the right to open them from the test's thread, which ends with the test.
func withoutLowPorts(t *testing.T) {
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		t.Fatal(err)
	}
	sets[0].Effective &^= 1 << unix.CAP_NET_BIND_SERVICE
	if err := unix.Capset(&header, &sets[0]); err != nil {
		t.Fatal(err)
	}
}

// agent is the other side: it accepts the opener, and wants.
type agent struct {
	t          *testing.T
	listener   *net.UnixListener
	connection *net.UnixConn
}

func startAgent(t *testing.T, path string) *agent {
	listener, err := packets.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	connection, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	if greeting, err := ports.ReceiveGreeting(connection); err != nil || greeting != ports.Opening {
		t.Fatalf("greeted with %q, %v", greeting, err)
	}
	connection.SetDeadline(time.Now().Add(10 * time.Second))
	return &agent{t, listener, connection}
}

func (a *agent) want(wanted ...ports.Wanted) {
	if err := ports.SendWanted(a.connection, wanted); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) receive() ports.Opened {
	opened, err := ports.ReceiveOpened(a.connection)
	if err != nil {
		a.t.Fatal(err)
	}
	return opened
}

func (a *agent) end() {
	a.connection.Close()
	a.listener.Close()
}

func startOpener(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "agent.sock")
	go newOpener(nil).run(path)
	return path
}

func freePort(t *testing.T) uint16 {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return uint16(listener.Addr().(*net.TCPAddr).Port)
}

func TestASocketIsHandedOverAndAcceptsWhatCame(t *testing.T) {
	agent := startAgent(t, startOpener(t))
	defer agent.end()
	port := freePort(t)
	agent.want(ports.Wanted{ID: "web", Protocol: ports.TCP, Port: port})
	opened := agent.receive()
	if opened.State != ports.Open || opened.Port != port || opened.Descriptor < 0 {
		t.Fatalf("got %+v", opened)
	}
	client, err := net.Dial("tcp4", address(port))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	listener := listenerOf(t, opened.Descriptor)
	defer listener.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if accepted.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("accepted %s from %s", client.LocalAddr(), accepted.RemoteAddr())
	}
}

func TestTheNextAgentGetsTheSamePorts(t *testing.T) {
	path := startOpener(t)
	first := startAgent(t, path)
	wanted := ports.Wanted{ID: "dns", Protocol: ports.UDP, Port: freePort(t)}
	first.want(wanted)
	before := first.receive()
	first.end()
	packets.Close(before.Descriptor)

	second := startAgent(t, path)
	defer second.end()
	// Had the first socket been closed meanwhile, somebody else could have taken the port.
	if taken, err := net.ListenPacket("udp4", address(before.Port)); err == nil {
		taken.Close()
		t.Fatal("the port was given back")
	}
	wanted.Former = before.Port
	second.want(wanted)
	if after := second.receive(); after.Port != before.Port || after.State != ports.Open || after.Descriptor < 0 {
		t.Errorf("got %+v after %+v", after, before)
	}
}

func TestWhatIsNoLongerWantedIsGivenBack(t *testing.T) {
	agent := startAgent(t, startOpener(t))
	defer agent.end()
	port := freePort(t)
	agent.want(ports.Wanted{ID: "web", Protocol: ports.TCP, Port: port, IsFixed: true})
	packets.Close(agent.receive().Descriptor)
	agent.want(ports.Wanted{ID: "other", Protocol: ports.TCP, Port: port, IsFixed: true})
	if opened := agent.receive(); opened.ID != "other" || opened.State != ports.Open {
		t.Errorf("got %+v", opened)
	}
}

func TestATakenPortIsOpenedOnceItIsFree(t *testing.T) {
	agent := startAgent(t, startOpener(t))
	defer agent.end()
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(taken.Addr().(*net.TCPAddr).Port)
	agent.want(ports.Wanted{ID: "web", Protocol: ports.TCP, Port: port, IsFixed: true})
	if opened := agent.receive(); opened.State != ports.Taken || opened.Descriptor >= 0 {
		t.Fatalf("got %+v", opened)
	}
	taken.Close()
	if opened := agent.receive(); opened.State != ports.Open || opened.Port != port {
		t.Errorf("got %+v", opened)
	}
}

func TestAnUnknownProtocolFailsAlone(t *testing.T) {
	agent := startAgent(t, startOpener(t))
	defer agent.end()
	agent.want(ports.Wanted{ID: "stream", Protocol: "SCTP", Port: 9000}, ports.Wanted{ID: "web", Protocol: ports.TCP, Port: freePort(t)})
	states := map[string]ports.State{}
	for range 2 {
		opened := agent.receive()
		states[opened.ID] = opened.State
	}
	if states["stream"] != ports.Failed || states["web"] != ports.Open {
		t.Errorf("got %v", states)
	}
}

func TestAllThatIsWantedArrivesHoweverMuch(t *testing.T) {
	agent := startAgent(t, startOpener(t))
	defer agent.end()
	// What cannot be opened takes neither ports nor descriptors.
	wanted := make([]ports.Wanted, 5000)
	for i := range wanted {
		wanted[i] = ports.Wanted{ID: fmt.Sprintf("%s %d", strings.Repeat("n", 300), i), Protocol: "SCTP", Port: 9000}
	}
	agent.want(wanted...)
	arrived := map[string]bool{}
	for range wanted {
		arrived[agent.receive().ID] = true
	}
	if len(arrived) != len(wanted) {
		t.Errorf("got %d of %d", len(arrived), len(wanted))
	}
}

func TestWhatFailedForWantOfDescriptorsIsOpenedLater(t *testing.T) {
	agent := startAgent(t, startOpener(t))
	defer agent.end()
	port := freePort(t)
	restore := leaveNoDescriptors(t)
	agent.want(ports.Wanted{ID: "web", Protocol: ports.TCP, Port: port})
	opened := agent.receive()
	restore()
	if opened.State != ports.Failed || !strings.Contains(opened.Detail, "too many open files") {
		t.Fatalf("got %+v", opened)
	}
	if opened := agent.receive(); opened.State != ports.Open || opened.Port != port {
		t.Errorf("got %+v", opened)
	}
}

// leaveNoDescriptors has the process open nothing until the returned function is called.
func leaveNoDescriptors(t *testing.T) (restore func()) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnAgentThatCannotBeTalkedToIsNotAskedWithoutEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	var greetings atomic.Int32
	listener, err := packets.Serve(path, func(connection *net.UnixConn) {
		ports.ReceiveGreeting(connection)
		greetings.Add(1)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go newOpener(nil).run(path)
	time.Sleep(5 * meetPause)
	if count := greetings.Load(); count < 1 || count > 6 {
		t.Errorf("it asked %d times", count)
	}
}

func address(port uint16) string {
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)}).String()
}

func listenerOf(t *testing.T, descriptor int) net.Listener {
	file := os.NewFile(uintptr(descriptor), "socket")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

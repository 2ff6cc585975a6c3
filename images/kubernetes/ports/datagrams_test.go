package ports

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sandbar.dev/lib/ports"
)

// startEcho answers every datagram with the address that it came from, and itself.
func startEcho(t *testing.T) net.PacketConn {
	t.Helper()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		buffer := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			server.WriteTo([]byte(from.String()+" "+string(buffer[:n])), from)
		}
	}()
	return server
}

// datagramClient sends from a port of its own.
type datagramClient struct {
	t *testing.T
	net.Conn
}

func dialDatagrams(t *testing.T, address string) datagramClient {
	t.Helper()
	client, err := net.Dial("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(10 * time.Second))
	return datagramClient{t, client}
}

func (c datagramClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// receive returns whom the server takes the client for, and what it answers.
func (c datagramClient) receive() (from netip.AddrPort, text string) {
	c.t.Helper()
	buffer := make([]byte, 100)
	n, err := c.Read(buffer)
	if err != nil {
		c.t.Fatal(err)
	}
	address, text, _ := strings.Cut(string(buffer[:n]), " ")
	return netip.MustParseAddrPort(address), text
}

func (c datagramClient) ask() netip.AddrPort {
	c.t.Helper()
	c.send("hello")
	from, _ := c.receive()
	return from
}

func TestDatagramsOfEachClientAreAnsweredToIt(t *testing.T) {
	server := startEcho(t)
	address, _ := openForward(t, ports.UDP, func() (string, error) { return server.LocalAddr().String(), nil })
	one, two := dialDatagrams(t, address), dialDatagrams(t, address)
	one.send("one")
	two.send("two")
	first, oneText := one.receive()
	second, twoText := two.receive()
	if oneText != "one" || twoText != "two" || first == second {
		t.Errorf("got %q from %v, %q from %v", oneText, first, twoText, second)
	}
	if again := one.ask(); again != first {
		t.Errorf("one came from %v, then from %v", first, again)
	}
}

func TestATargetThatIsHardToFindKeepsNoOtherClientWaiting(t *testing.T) {
	server := startEcho(t)
	found := make(chan struct{}, 1)
	found <- struct{}{}
	address, f := openForward(t, ports.UDP, func() (string, error) { <-found; return server.LocalAddr().String(), nil })
	known, young := dialDatagrams(t, address), dialDatagrams(t, address)
	known.ask()
	f.lock.Lock()
	f.until = time.Time{}
	f.lock.Unlock()
	young.send("first")
	young.send("second")
	// By then it is found that the young one's target is not known.
	known.ask()
	known.ask()
	close(found)
	for _, want := range []string{"first", "second"} {
		if _, text := young.receive(); text != want {
			t.Errorf("got %q, want %q", text, want)
		}
	}
}

func TestOneClientMoreThanThereMayBeTakesTheIdlestOnesPlace(t *testing.T) {
	server := startEcho(t)
	address, _ := openForward(t, ports.UDP, func() (string, error) { return server.LocalAddr().String(), nil })
	idle, busy := dialDatagrams(t, address), dialDatagrams(t, address)
	idleFrom, busyFrom := idle.ask(), busy.ask()
	for range mostSessions - 2 {
		dialDatagrams(t, address).ask()
	}
	busy.ask()
	dialDatagrams(t, address).ask()
	if again := busy.ask(); again != busyFrom {
		t.Errorf("the busy one's session ended")
	}
	if again := idle.ask(); again == idleFrom {
		t.Errorf("the idle one's session goes on")
	}
}

func TestWhatWaitsForATargetIsLimitedAndForgotten(t *testing.T) {
	held := make(chan struct{})
	d := &datagrams{
		dial:     func() (net.Conn, error) { <-held; return nil, errNoEndpoint },
		sessions: map[netip.AddrPort]*session{},
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for port := range uint16(100) {
		d.pass(netip.AddrPortFrom(loopback, port), make([]byte, longestDatagram))
	}
	count := func() (sessions, early int) {
		d.lock.Lock()
		defer d.lock.Unlock()
		return len(d.sessions), d.earlyBytes
	}
	if sessions, early := count(); sessions != 100 || early == 0 || early > mostEarly {
		t.Errorf("%d sessions keep %d bytes", sessions, early)
	}
	close(held)
	deadline := time.Now().Add(10 * time.Second)
	for {
		sessions, early := count()
		if sessions == 0 && early == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions still keep %d bytes", sessions, early)
		}
		time.Sleep(time.Millisecond)
	}
}

package ports

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"sandbar.dev/lib/ports"
)

const (
	dialTimeout = 3 * time.Second
	// A place that was found out lately is not asked for again with every connection; nor is one that was not found,
	// though who comes back to a pod that has just become ready should not notice.
	placeLife   = time.Second
	failureLife = 200 * time.Millisecond
	// After an Accept that failed, as for want of descriptors.
	acceptPause = 50 * time.Millisecond
)

// forward carries what comes to an open port to its target. Connections live on when the port is closed, which it is
// while the ports container is replaced; they end with stop.
type forward struct {
	protocol ports.Protocol
	resolve  func(ctx context.Context) (string, error)
	ctx      context.Context
	cancel   context.CancelFunc
	// The open port, or nil.
	socket io.Closer

	// Held while the target is looked for: what one connection finds out, those that wait need not.
	lock    sync.Mutex
	place   string
	failure error
	until   time.Time
}

func newForward(protocol ports.Protocol, resolve func(ctx context.Context) (string, error)) *forward {
	ctx, cancel := context.WithCancel(context.Background())
	return &forward{protocol: protocol, resolve: resolve, ctx: ctx, cancel: cancel}
}

// open takes the socket over, in place of the one before.
func (f *forward) open(descriptor int) error {
	f.close()
	// A copy of it becomes the listener.
	file := os.NewFile(uintptr(descriptor), "port")
	defer file.Close()
	switch f.protocol {
	case ports.TCP:
		listener, err := net.FileListener(file)
		if err != nil {
			return err
		}
		f.socket = listener
		go f.accept(listener)
	case ports.UDP:
		socket, err := net.FilePacketConn(file)
		if err != nil {
			return err
		}
		f.socket = socket
		go f.receive(socket.(*net.UDPConn))
	default:
		return fmt.Errorf("%s cannot be forwarded", f.protocol)
	}
	return nil
}

// close gives the port back: when it returns, somebody else may open it.
func (f *forward) close() {
	if f.socket != nil {
		f.socket.Close()
		f.socket = nil
	}
}

// stop closes the port and ends all connections through it.
func (f *forward) stop() {
	f.close()
	f.cancel()
}

// dial connects to where the target is now. What was known of it may have been replaced since.
func (f *forward) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	defer cancel()
	network := map[ports.Protocol]string{ports.TCP: "tcp4", ports.UDP: "udp4"}[f.protocol]
	dialer := net.Dialer{}
	place, isRemembered, err := f.find(ctx, "")
	if err != nil {
		return nil, err
	}
	connection, err := dialer.DialContext(ctx, network, place)
	if err == nil || !isRemembered {
		return connection, err
	}
	if place, _, err = f.find(ctx, place); err != nil {
		return nil, err
	}
	return dialer.DialContext(ctx, network, place)
}

// find says where the target is; what is remembered does not count where it is the place that was just tried in vain.
func (f *forward) find(ctx context.Context, tried string) (place string, isRemembered bool, err error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	if time.Now().Before(f.until) && (f.failure != nil || f.place != tried) {
		return f.place, true, f.failure
	}
	f.place, f.failure = f.resolve(ctx)
	life := placeLife
	if f.failure != nil {
		life = failureLife
	}
	f.until = time.Now().Add(life)
	return f.place, false, f.failure
}

func (f *forward) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		switch {
		case err == nil:
			go f.carry(client.(*net.TCPConn))
		case isClosed(err):
			return
		default:
			time.Sleep(acceptPause)
		}
	}
}

// carry copies both directions; each ends by itself, so that a client may end its request and still read the answer.
func (f *forward) carry(client *net.TCPConn) {
	defer client.Close()
	connection, err := f.dial()
	if err != nil {
		// To the client as if nobody listened, as near as can be after its connection was taken.
		client.SetLinger(0)
		return
	}
	server := connection.(*net.TCPConn)
	defer server.Close()
	closeBoth := func() { client.Close(); server.Close() }
	defer context.AfterFunc(f.ctx, closeBoth)()
	var directions sync.WaitGroup
	directions.Go(func() { copyStream(server, client, closeBoth) })
	directions.Go(func() { copyStream(client, server, closeBoth) })
	directions.Wait()
}

func copyStream(to, from *net.TCPConn, closeBoth func()) {
	if _, err := io.Copy(to, from); err != nil {
		closeBoth()
		return
	}
	to.CloseWrite()
}

package ports

import (
	"context"
	"errors"

	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"sandbar.dev/lib/ports"
)

const (
	dialTimeout = 3 * time.Second
	// A place that was found out lately is not asked for again with every connection.
	placeLife = time.Second
	// Between datagrams of one client, in either direction.
	sessionPatience = time.Minute
	// Each has a buffer for the longest datagram.
	mostSessions    = 1024
	longestDatagram = 65535
	// After an Accept that failed, as for want of descriptors.
	acceptPause = 50 * time.Millisecond
)

// forward carries what comes to an open port to its target, until it is stopped.
type forward struct {
	protocol string
	resolve  func(ctx context.Context) (string, error)
	stop     context.CancelFunc

	lock  sync.Mutex
	place string
	until time.Time
}

// startForward takes the socket over.
func startForward(protocol ports.Protocol, descriptor int, resolve func(ctx context.Context) (string, error)) (*forward, error) {
	// A copy of it becomes the listener.
	file := os.NewFile(uintptr(descriptor), "port")
	defer file.Close()
	ctx, stop := context.WithCancel(context.Background())
	f := &forward{resolve: resolve, stop: stop}
	switch protocol {
	case ports.TCP:
		listener, err := net.FileListener(file)
		if err != nil {
			stop()
			return nil, err
		}
		f.protocol = "tcp4"
		context.AfterFunc(ctx, func() { listener.Close() })
		go f.accept(ctx, listener)
	default:
		socket, err := net.FilePacketConn(file)
		if err != nil {
			stop()
			return nil, err
		}
		f.protocol = "udp4"
		context.AfterFunc(ctx, func() { socket.Close() })
		go f.receive(ctx, socket.(*net.UDPConn))
	}
	return f, nil
}

// dial connects to where the target is now. What was known of it may have been replaced since.
func (f *forward) dial(ctx context.Context) (net.Conn, error) {
	f.lock.Lock()
	place, isFresh := f.place, time.Now().Before(f.until)
	f.lock.Unlock()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := net.Dialer{}
	if isFresh {
		if connection, err := dialer.DialContext(ctx, f.protocol, place); err == nil {
			return connection, nil
		}
	}
	place, err := f.resolve(ctx)
	if err != nil {
		return nil, err
	}
	connection, err := dialer.DialContext(ctx, f.protocol, place)
	if err == nil {
		f.lock.Lock()
		f.place, f.until = place, time.Now().Add(placeLife)
		f.lock.Unlock()
	}
	return connection, err
}

func (f *forward) accept(ctx context.Context, listener net.Listener) {
	for {
		client, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				client.Close()
			}
			return
		}
		if err != nil {
			time.Sleep(acceptPause)
			continue
		}
		go f.carry(ctx, client.(*net.TCPConn))
	}
}

// carry copies both directions; each ends by itself, so that a client may end its request and still read the answer.
func (f *forward) carry(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	connection, err := f.dial(ctx)
	if err != nil {
		// To the client as if nobody listened, as near as can be after its connection was taken.
		client.SetLinger(0)
		return
	}
	server := connection.(*net.TCPConn)
	defer server.Close()
	closeBoth := func() { client.Close(); server.Close() }
	defer context.AfterFunc(ctx, closeBoth)()
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

// receive carries datagrams; every client has a socket of its own towards the target, by which answers find back.
func (f *forward) receive(ctx context.Context, socket *net.UDPConn) {
	sessions := sessions{byClient: map[netip.AddrPort]net.Conn{}}
	defer sessions.closeAll()
	buffer := make([]byte, longestDatagram)
	for {
		n, client, err := socket.ReadFromUDPAddrPort(buffer)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		server, isThere := sessions.find(client)
		if !isThere {
			if server, err = f.dial(ctx); err != nil {
				continue
			}
			if !sessions.add(client, server) {
				server.Close()
				continue
			}
			go func() {
				answer(socket, server, client)
				sessions.remove(client, server)
			}()
		}
		server.SetReadDeadline(time.Now().Add(sessionPatience))
		if _, err := server.Write(buffer[:n]); err != nil {
			// The next datagram finds out where the target is then.
			sessions.remove(client, server)
		}
	}
}

// answer carries back what the target says, until it has been silent for long or refuses.
func answer(socket *net.UDPConn, server net.Conn, client netip.AddrPort) {
	buffer := make([]byte, longestDatagram)
	for {
		n, err := server.Read(buffer)
		if err != nil {
			return
		}
		server.SetReadDeadline(time.Now().Add(sessionPatience))
		if _, err := socket.WriteToUDPAddrPort(buffer[:n], client); err != nil {
			return
		}
	}
}

type sessions struct {
	lock     sync.Mutex
	byClient map[netip.AddrPort]net.Conn
}

func (s *sessions) find(client netip.AddrPort) (net.Conn, bool) {
	s.lock.Lock()
	defer s.lock.Unlock()
	server, isThere := s.byClient[client]
	return server, isThere
}

// add refuses when there are too many, as from somebody who sends from every port there is.
func (s *sessions) add(client netip.AddrPort, server net.Conn) bool {
	s.lock.Lock()
	defer s.lock.Unlock()
	if len(s.byClient) >= mostSessions {
		return false
	}
	s.byClient[client] = server
	return true
}

func (s *sessions) remove(client netip.AddrPort, server net.Conn) {
	s.lock.Lock()
	defer s.lock.Unlock()
	server.Close()
	if s.byClient[client] == server {
		delete(s.byClient, client)
	}
}

func (s *sessions) closeAll() {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, server := range s.byClient {
		server.Close()
	}
}

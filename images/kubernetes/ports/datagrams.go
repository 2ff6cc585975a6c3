package ports

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Between datagrams of one client, in either direction.
	sessionPatience = time.Minute
	// One more, and the one that is idle for longest ends.
	mostSessions = 1024
	// How many bytes of all clients together are kept while it is found out where the target is; what comes beyond is
	// dropped, as datagrams may be.
	mostEarly       = 1 << 20
	longestDatagram = 65535
)

// buffers are lent for as long as a datagram is on its way: clients that are silent hold none.
var buffers = sync.Pool{New: func() any { return new([longestDatagram]byte) }}

// datagrams carries those of one open port. Every client has a socket of its own towards the target, by which answers
// find back.
type datagrams struct {
	socket *net.UDPConn
	dial   func() (net.Conn, error)

	lock     sync.Mutex
	sessions map[netip.AddrPort]*session
	// In all sessions.
	earlyBytes int
}

type session struct {
	client netip.AddrPort
	// Nil until it is connected.
	server *net.UDPConn
	// What came until then.
	early  [][]byte
	usedAt time.Time
}

func (f *forward) receive(socket *net.UDPConn) {
	d := &datagrams{socket: socket, dial: f.dial, sessions: map[netip.AddrPort]*session{}}
	defer d.end()
	buffer := make([]byte, longestDatagram)
	for {
		n, client, err := socket.ReadFromUDPAddrPort(buffer)
		if isClosed(err) {
			return
		}
		if err == nil {
			d.pass(client, buffer[:n])
		}
	}
}

func isClosed(err error) bool {
	return errors.Is(err, net.ErrClosed)
}

// pass sends a datagram on. It waits for nobody: a target that is hard to find must not keep other clients waiting.
func (d *datagrams) pass(client netip.AddrPort, datagram []byte) {
	d.lock.Lock()
	s := d.sessions[client]
	if s == nil {
		if len(d.sessions) >= mostSessions {
			d.forget(d.longestIdle())
		}
		s = &session{client: client}
		d.sessions[client] = s
		go d.serve(s)
	}
	s.usedAt = time.Now()
	server := s.server
	if server == nil && d.earlyBytes+len(datagram) <= mostEarly {
		s.early = append(s.early, bytes.Clone(datagram))
		d.earlyBytes += len(datagram)
	}
	d.lock.Unlock()
	if server == nil {
		return
	}
	server.SetReadDeadline(time.Now().Add(sessionPatience))
	if _, err := server.Write(datagram); err != nil {
		// The next datagram finds out where the target is then.
		d.remove(s)
	}
}

// serve carries back what the target says, until it has been silent for long or refuses.
func (d *datagrams) serve(s *session) {
	defer d.remove(s)
	connection, err := d.dial()
	if err != nil {
		return
	}
	server := connection.(*net.UDPConn)
	defer server.Close()
	if !d.connect(s, server) {
		return
	}
	for {
		server.SetReadDeadline(time.Now().Add(sessionPatience))
		if err := d.answer(s, server); err != nil {
			return
		}
	}
}

// connect sends on what came meanwhile; false where the session has ended.
func (d *datagrams) connect(s *session, server *net.UDPConn) bool {
	d.lock.Lock()
	defer d.lock.Unlock()
	if d.sessions[s.client] != s {
		return false
	}
	s.server = server
	for _, datagram := range s.early {
		// One that is lost is lost, as datagrams may be.
		_, _ = server.Write(datagram)
	}
	d.dropEarly(s)
	return true
}

// answer waits for a datagram of the target, and sends it to the client.
func (d *datagrams) answer(s *session, server *net.UDPConn) error {
	raw, err := server.SyscallConn()
	if err != nil {
		return err
	}
	var buffer *[longestDatagram]byte
	var length int
	var readErr error
	err = raw.Read(func(descriptor uintptr) bool {
		buffer = buffers.Get().(*[longestDatagram]byte)
		length, readErr = unix.Read(int(descriptor), buffer[:])
		if readErr == unix.EAGAIN {
			buffers.Put(buffer)
			return false
		}
		return true
	})
	if err != nil {
		return err
	}
	defer buffers.Put(buffer)
	if readErr != nil {
		return readErr
	}
	d.touch(s)
	_, err = d.socket.WriteToUDPAddrPort(buffer[:length], s.client)
	return err
}

func (d *datagrams) touch(s *session) {
	d.lock.Lock()
	defer d.lock.Unlock()
	s.usedAt = time.Now()
}

func (d *datagrams) longestIdle() *session {
	var found *session
	for _, s := range d.sessions {
		if found == nil || s.usedAt.Before(found.usedAt) {
			found = s
		}
	}
	return found
}

func (d *datagrams) remove(s *session) {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.forget(s)
}

// end ends all sessions: nothing comes any more, and there is no way back.
func (d *datagrams) end() {
	d.lock.Lock()
	defer d.lock.Unlock()
	for _, s := range d.sessions {
		d.forget(s)
	}
}

// forget is for those who hold the lock.
func (d *datagrams) forget(s *session) {
	if d.sessions[s.client] == s {
		delete(d.sessions, s.client)
	}
	d.dropEarly(s)
	if s.server != nil {
		s.server.Close()
	}
}

func (d *datagrams) dropEarly(s *session) {
	for _, datagram := range s.early {
		d.earlyBytes -= len(datagram)
	}
	s.early = nil
}

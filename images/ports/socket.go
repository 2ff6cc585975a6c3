package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/ports"
)

const (
	// The only address that anything listens on, whatever the agent says.
	loopback = "127.0.0.1"
	// How many ports in a row are tried for a free one.
	attempts = 200
)

// socket is an open port.
type socket interface {
	syscall.Conn
	io.Closer
}

var errNotForwarded = errors.New("cannot be forwarded")

// open opens the first port that will do. The error is unix.EADDRINUSE where all are taken, and errNotForwarded where
// no port will ever do.
func open(wanted ports.Wanted, reserved []uint16) (socket, uint16, error) {
	// Of a port that would be free.
	var refusal error
	for _, port := range candidates(wanted) {
		// Those of other containers: one that is stopped just now could not start any more.
		if wanted.Protocol == ports.TCP && slices.Contains(reserved, port) {
			continue
		}
		opened, err := listen(wanted.Protocol, port)
		if err == nil {
			return opened, port, nil
		}
		switch {
		case errors.Is(err, unix.EADDRINUSE):
		case errors.Is(err, unix.EACCES):
			// As an engine without privileges is refused low ports: a higher one may do.
			refusal = cmp.Or(refusal, err)
		default:
			return nil, 0, err
		}
	}
	return nil, 0, cmp.Or(refusal, error(unix.EADDRINUSE))
}

// candidates are the ports that will do, in their order: the former one, the wanted one, and where that need not be,
// those after it. The ports of the web are usually the ingress's, and have well-known stand-ins.
func candidates(wanted ports.Wanted) []uint16 {
	if wanted.IsFixed {
		return []uint16{wanted.Port}
	}
	var found []uint16
	if wanted.Former != 0 {
		found = append(found, wanted.Former)
	}
	found = append(found, wanted.Port)
	next := int(wanted.Port) + 1
	switch wanted.Port {
	case 80:
		next = 8080
	case 443:
		next = 8443
	}
	for port := next; port < next+attempts && port <= 65535; port++ {
		found = append(found, uint16(port))
	}
	return found
}

func listen(protocol ports.Protocol, port uint16) (socket, error) {
	address := net.JoinHostPort(loopback, strconv.Itoa(int(port)))
	settings := net.ListenConfig{}
	// Nothing on 127.0.0.1 has a second path.
	settings.SetMultipathTCP(false)
	switch protocol {
	case ports.TCP:
		listener, err := settings.Listen(context.Background(), "tcp4", address)
		if err != nil {
			return nil, err
		}
		return listener.(*net.TCPListener), nil
	case ports.UDP:
		connection, err := settings.ListenPacket(context.Background(), "udp4", address)
		if err != nil {
			return nil, err
		}
		return connection.(*net.UDPConn), nil
	default:
		return nil, fmt.Errorf("%s %w", protocol, errNotForwarded)
	}
}

// withDescriptor calls use with the socket's descriptor, which stays the socket's.
func withDescriptor(opened socket, use func(descriptor int) error) error {
	raw, err := opened.SyscallConn()
	if err != nil {
		return err
	}
	var useErr error
	if err := raw.Control(func(descriptor uintptr) { useErr = use(int(descriptor)) }); err != nil {
		return err
	}
	return useErr
}

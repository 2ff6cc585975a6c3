// Package packets is how containers that share a volume talk to each other: packets over a unix socket, each with a
// descriptor beside it where it has one.
package packets

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Network is the kind of socket: packets, in order, on a connection whose end is noticed.
const Network = "unixpacket"

// Listen makes a socket at path, in place of one that an earlier process left. Only root may connect.
func Listen(path string) (*net.UnixListener, error) {
	// Made under another name: who waits for the socket tries as soon as it appears, and must find it listening.
	made := path + ".new"
	if err := os.Remove(made); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix(Network, &net.UnixAddr{Name: made, Net: Network})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(made, 0o600); err != nil {
		listener.Close()
		return nil, err
	}
	if err := os.Rename(made, path); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

// Serve listens at path, in a folder that it makes, and calls serve with every connection until the listener is closed.
// A connection ends when serve returns.
func Serve(path string, serve func(connection *net.UnixConn)) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	listener, err := Listen(path)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			connection, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				serve(connection)
			}()
		}
	}()
	return listener, nil
}

// Dial connects to the socket at path.
func Dial(path string) (*net.UnixConn, error) {
	return net.DialUnix(Network, nil, &net.UnixAddr{Name: path, Net: Network})
}

// Await connects to the socket at path once somebody listens there. A new socket is an event in its folder: nothing is
// asked over and over.
func Await(path string) (*net.UnixConn, error) {
	events, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	defer unix.Close(events)
	if _, err := unix.InotifyAddWatch(events, filepath.Dir(path), unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		return nil, fmt.Errorf("watch %s: %w", filepath.Dir(path), err)
	}
	buffer := make([]byte, 4096)
	for {
		connection, err := Dial(path)
		if err == nil {
			return connection, nil
		}
		if _, err := unix.Read(events, buffer); err != nil && err != unix.EINTR {
			return nil, fmt.Errorf("inotify: %w", err)
		}
	}
}

// Send writes a packet, and a descriptor beside it unless it is -1.
func Send(connection *net.UnixConn, packet []byte, descriptor int) error {
	var rights []byte
	if descriptor >= 0 {
		rights = unix.UnixRights(descriptor)
	}
	_, _, err := connection.WriteMsgUnix(packet, rights, nil)
	return err
}

// Receive reads the next packet and its descriptor, or -1 where it has none. The receiver closes it.
func Receive(connection *net.UnixConn) (packet []byte, descriptor int, err error) {
	// Asked for its length first, so that a mount container at rest holds no large buffer.
	length, err := nextLength(connection)
	if err != nil {
		return nil, -1, err
	}
	packet = make([]byte, length)
	rights := make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := connection.ReadMsgUnix(packet, rights)
	if err != nil {
		return nil, -1, err
	}
	descriptor, err = oneOf(rights[:oobn])
	if err != nil {
		return nil, -1, err
	}
	if n == 0 {
		Close(descriptor)
		return nil, -1, io.EOF
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		Close(descriptor)
		return nil, -1, errors.New("a packet was cut off")
	}
	return packet[:n], descriptor, nil
}

func nextLength(connection *net.UnixConn) (int, error) {
	raw, err := connection.SyscallConn()
	if err != nil {
		return 0, err
	}
	var length int
	var peekErr error
	err = raw.Read(func(fd uintptr) bool {
		length, _, peekErr = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		return peekErr != unix.EAGAIN
	})
	if err != nil {
		return 0, err
	}
	return length, peekErr
}

// oneOf returns the descriptor of a message, or -1 where there is none.
func oneOf(rights []byte) (int, error) {
	descriptors, err := ParseRights(rights)
	if err != nil || len(descriptors) == 0 {
		return -1, err
	}
	for _, unexpected := range descriptors[1:] {
		unix.Close(unexpected)
	}
	return descriptors[0], nil
}

// ParseRights returns the descriptors of a control message.
func ParseRights(rights []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("unreadable control message: %w", err)
	}
	var all []int
	for _, message := range messages {
		descriptors, err := unix.ParseUnixRights(&message)
		if err != nil {
			return all, fmt.Errorf("unreadable descriptors: %w", err)
		}
		all = append(all, descriptors...)
	}
	for _, descriptor := range all {
		unix.CloseOnExec(descriptor)
	}
	return all, nil
}

// Close closes a descriptor, unless it is -1.
func Close(descriptor int) {
	if descriptor >= 0 {
		unix.Close(descriptor)
	}
}

// Package mounts is what the mount containers, the agent and its commands agree on: where they meet, and what they say
// to each other.
//
// A mount container says its name, is told which paths below its root are wanted, and hands each over as the file
// descriptor of a detached mount, again whenever another folder or file is found at the path. Every message is one
// packet of fields, with a zero byte after each; the descriptor travels beside its packet.
package mounts

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// MeetingDirectory is the volume that the mount containers share with the agent.
	MeetingDirectory = "/run/sandbar/mounts"
	// SocketName is the agent's socket in MeetingDirectory.
	SocketName = "agent.sock"
	// Network is the kind of that socket: packets, in order, on a connection whose end is noticed.
	Network = "unixpacket"

	// Below what the kernel takes in one packet by default (net.core.wmem_default), which is some 1,500 mounts.
	longestPacket = 160 << 10
)

// Wanted is a path below a mount container's root that a mount is made of.
type Wanted struct {
	ID string
	// Relative to the root; "." is the root itself.
	Path string
}

// State says what a mount container found at a wanted path.
type State string

const (
	// Present comes with a descriptor.
	Present State = "present"
	// Missing: there is nothing at the path now.
	Missing State = "missing"
	// Failed: what is there cannot be handed over; the detail says why.
	Failed State = "failed"
)

// Handover is what a mount container says of a wanted path.
type Handover struct {
	ID     string
	State  State
	Detail string
	// Descriptor of a detached mount, or -1. The receiver closes it.
	Descriptor int
}

// EncodeWanted is the agent's message: all that is wanted of this mount container, in place of what was wanted before.
func EncodeWanted(wanted []Wanted) ([]byte, error) {
	fields := make([]string, 0, 2*len(wanted))
	for _, w := range wanted {
		fields = append(fields, w.ID, w.Path)
	}
	return encode(fields...)
}

// DecodeWanted is the reverse of EncodeWanted.
func DecodeWanted(packet []byte) ([]Wanted, error) {
	fields := decode(packet)
	if len(fields)%2 != 0 {
		return nil, fmt.Errorf("%d fields are not pairs", len(fields))
	}
	wanted := make([]Wanted, 0, len(fields)/2)
	for i := 0; i < len(fields); i += 2 {
		wanted = append(wanted, Wanted{ID: fields[i], Path: fields[i+1]})
	}
	return wanted, nil
}

// Send writes one packet of fields.
func Send(connection *net.UnixConn, fields ...string) error {
	packet, err := encode(fields...)
	if err != nil {
		return err
	}
	_, err = connection.Write(packet)
	return err
}

// SendHandover writes a handover, with its descriptor where it has one.
func SendHandover(connection *net.UnixConn, handover Handover) error {
	packet, err := encode(handover.ID, string(handover.State), handover.Detail)
	if err != nil {
		return err
	}
	var rights []byte
	if handover.Descriptor >= 0 {
		rights = unix.UnixRights(handover.Descriptor)
	}
	_, _, err = connection.WriteMsgUnix(packet, rights, nil)
	return err
}

// ReceiveHandover reads the next handover.
func ReceiveHandover(connection *net.UnixConn) (Handover, error) {
	packet, descriptor, err := receive(connection)
	if err != nil {
		return Handover{}, err
	}
	fields := decode(packet)
	if len(fields) != 3 {
		closeDescriptor(descriptor)
		return Handover{}, fmt.Errorf("a handover has 3 fields, not %d", len(fields))
	}
	return Handover{ID: fields[0], State: State(fields[1]), Detail: fields[2], Descriptor: descriptor}, nil
}

// Receive reads the next packet, and its fields.
func Receive(connection *net.UnixConn) ([]string, error) {
	packet, descriptor, err := receive(connection)
	closeDescriptor(descriptor)
	return decode(packet), err
}

// ReceiveWanted reads the agent's next message.
func ReceiveWanted(connection *net.UnixConn) ([]Wanted, error) {
	packet, descriptor, err := receive(connection)
	closeDescriptor(descriptor)
	if err != nil {
		return nil, err
	}
	return DecodeWanted(packet)
}

func receive(connection *net.UnixConn) (packet []byte, descriptor int, err error) {
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
	descriptor, err = parseRights(rights[:oobn])
	if err != nil {
		return nil, -1, err
	}
	if n == 0 {
		closeDescriptor(descriptor)
		return nil, -1, io.EOF
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeDescriptor(descriptor)
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

// parseRights returns the descriptor of a message, or -1 where there is none.
func parseRights(rights []byte) (int, error) {
	descriptors, err := parseAllRights(rights)
	if err != nil || len(descriptors) == 0 {
		return -1, err
	}
	for _, unexpected := range descriptors[1:] {
		unix.Close(unexpected)
	}
	return descriptors[0], nil
}

func parseAllRights(rights []byte) ([]int, error) {
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

func closeDescriptor(descriptor int) {
	if descriptor >= 0 {
		unix.Close(descriptor)
	}
}

func encode(fields ...string) ([]byte, error) {
	var packet []byte
	for _, field := range fields {
		if strings.IndexByte(field, 0) >= 0 {
			return nil, fmt.Errorf("field %q has a zero byte", field)
		}
		packet = append(append(packet, field...), 0)
	}
	if len(packet) > longestPacket {
		return nil, fmt.Errorf("a packet of %d bytes is too long", len(packet))
	}
	// An empty packet would look like the connection's end.
	if len(packet) == 0 {
		packet = []byte{nothing}
	}
	return packet, nil
}

// nothing stands alone for a packet without fields.
const nothing = '-'

func decode(packet []byte) []string {
	if len(packet) == 0 || (len(packet) == 1 && packet[0] == nothing) {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(packet), "\x00"), "\x00")
}

// Package mounts is what the mount containers, the agent and its commands agree on: where they meet, and what they say
// to each other.
//
// A mount container says its name, is told which paths below its root are wanted, and hands each over as the file
// descriptor of a detached mount, again whenever another folder or file is found at the path. Every message is one
// packet of fields, with a zero byte after each; the descriptor travels beside its packet.
package mounts

import (
	"fmt"
	"net"
	"strings"

	"sandbar.dev/lib/packets"
)

const (
	// MeetingDirectory is the volume that the mount containers share with the agent.
	MeetingDirectory = "/run/sandbar/mounts"
	// SocketName is the agent's socket in MeetingDirectory.
	SocketName = "agent.sock"

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
	return packets.Send(connection, packet, handover.Descriptor)
}

// ReceiveHandover reads the next handover.
func ReceiveHandover(connection *net.UnixConn) (Handover, error) {
	packet, descriptor, err := packets.Receive(connection)
	if err != nil {
		return Handover{}, err
	}
	fields := decode(packet)
	if len(fields) != 3 {
		packets.Close(descriptor)
		return Handover{}, fmt.Errorf("a handover has 3 fields, not %d", len(fields))
	}
	return Handover{ID: fields[0], State: State(fields[1]), Detail: fields[2], Descriptor: descriptor}, nil
}

// Receive reads the next packet, and its fields.
func Receive(connection *net.UnixConn) ([]string, error) {
	packet, descriptor, err := packets.Receive(connection)
	packets.Close(descriptor)
	return decode(packet), err
}

// ReceiveWanted reads the agent's next message.
func ReceiveWanted(connection *net.UnixConn) ([]Wanted, error) {
	packet, descriptor, err := packets.Receive(connection)
	packets.Close(descriptor)
	if err != nil {
		return nil, err
	}
	return DecodeWanted(packet)
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

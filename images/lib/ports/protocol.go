// Package ports is what the ports container and the agent agree on: where they meet, and what they say to each other.
//
// The ports container is in the host's network. The agent tells it which ports of 127.0.0.1 are wanted; it opens them,
// and hands each over as the descriptor of a socket. So the agent accepts connections that were made to the host.
package ports

import (
	"encoding/json"
	"fmt"
	"net"

	"sandbar.dev/lib/packets"
)

// SocketPath is the agent's socket, on the volume that the ports container shares with it.
const SocketPath = "/run/sandbar/ports/agent.sock"

// Greeting is the first packet on a connection: what the ports container, or a command in it, wants.
type Greeting string

const (
	// Opening: it opens ports, for as long as the connection lasts.
	Opening Greeting = "open"
	// Asking: whether another one opens ports. The answer is one packet, empty or with the reason why not.
	Asking Greeting = "ask"
)

// Protocol of a port, as Kubernetes spells it.
type Protocol string

const (
	TCP Protocol = "TCP"
	UDP Protocol = "UDP"
)

// Wanted is a port that is to be open on 127.0.0.1.
type Wanted struct {
	ID       string   `json:"id"`
	Protocol Protocol `json:"protocol"`
	Port     uint16   `json:"port"`
	// The one that it had before, or 0: tried first.
	Former uint16 `json:"former,omitempty"`
	// Another port will not do.
	IsFixed bool `json:"isFixed,omitempty"`
}

// State says what became of a wanted port.
type State string

const (
	// Open comes with a descriptor.
	Open State = "open"
	// Taken: something else has the port; a fixed one is tried again from time to time.
	Taken State = "taken"
	// Failed: the port cannot be opened; the detail says why. It is tried again where that may help.
	Failed State = "failed"
)

// Opened is what the ports container says of a wanted port.
type Opened struct {
	ID     string `json:"id"`
	State  State  `json:"state"`
	Port   uint16 `json:"port,omitempty"`
	Detail string `json:"detail,omitempty"`
	// Of the socket, or -1. The receiver closes it.
	Descriptor int `json:"-"`
}

// mostInPacket keeps a packet, with the longest names that there are, well below what the kernel lets through.
const mostInPacket = 200

// wantedPart is a packet of the agent's message.
type wantedPart struct {
	Wanted []Wanted `json:"wanted"`
	// The message goes on in the next packet.
	HasMore bool `json:"hasMore,omitempty"`
}

// SendWanted tells the ports container all that is wanted, in place of what was wanted before. After an error the
// connection is of no use any more.
func SendWanted(connection *net.UnixConn, wanted []Wanted) error {
	for len(wanted) > mostInPacket {
		if err := send(connection, wantedPart{Wanted: wanted[:mostInPacket], HasMore: true}, -1); err != nil {
			return err
		}
		wanted = wanted[mostInPacket:]
	}
	return send(connection, wantedPart{Wanted: wanted}, -1)
}

// ReceiveWanted reads the agent's next message.
func ReceiveWanted(connection *net.UnixConn) ([]Wanted, error) {
	var wanted []Wanted
	for {
		var part wantedPart
		descriptor, err := receive(connection, &part)
		packets.Close(descriptor)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, part.Wanted...)
		if !part.HasMore {
			return wanted, nil
		}
	}
}

// SendOpened writes what became of a port, with its socket where it is open.
func SendOpened(connection *net.UnixConn, opened Opened) error {
	return send(connection, opened, opened.Descriptor)
}

// ReceiveOpened reads what became of a port.
func ReceiveOpened(connection *net.UnixConn) (Opened, error) {
	var opened Opened
	descriptor, err := receive(connection, &opened)
	opened.Descriptor = descriptor
	return opened, err
}

// Greet opens the conversation.
func Greet(connection *net.UnixConn, greeting Greeting) error {
	return send(connection, greeting, -1)
}

// ReceiveGreeting reads the first packet.
func ReceiveGreeting(connection *net.UnixConn) (Greeting, error) {
	var greeting Greeting
	descriptor, err := receive(connection, &greeting)
	packets.Close(descriptor)
	return greeting, err
}

// Answer tells who asks why no ports are opened; an empty text says that they are.
func Answer(connection *net.UnixConn, problem string) error {
	return send(connection, problem, -1)
}

// Ask returns why the agent has no ports opened; an empty text says that it has.
func Ask(connection *net.UnixConn) (string, error) {
	if err := Greet(connection, Asking); err != nil {
		return "", err
	}
	var problem string
	descriptor, err := receive(connection, &problem)
	packets.Close(descriptor)
	return problem, err
}

func send(connection *net.UnixConn, message any, descriptor int) error {
	packet, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return packets.Send(connection, packet, descriptor)
}

func receive(connection *net.UnixConn, message any) (int, error) {
	packet, descriptor, err := packets.Receive(connection)
	if err != nil {
		return -1, err
	}
	if err := json.Unmarshal(packet, message); err != nil {
		packets.Close(descriptor)
		return -1, fmt.Errorf("unreadable packet: %w", err)
	}
	return descriptor, nil
}

package main

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/packets"
	"sandbar.dev/lib/ports"
)

const (
	// The kernel does not say when a port becomes free, or descriptors do: what could not be opened is tried again.
	retryDelay = 2 * time.Second
	// Between two agents, so that one that cannot be talked to is not asked without end.
	meetPause = 200 * time.Millisecond
	// An agent that restarts finds its ports open, with the connections that came meanwhile. Nobody shall wait for one
	// that stays away.
	agentPatience = 20 * time.Second
)

// opener holds the ports that the agent wants.
type opener struct {
	reserved []uint16
	ports    map[string]*port
	// What the agent that is there knows, by id.
	told map[string]ports.Opened
}

type port struct {
	wanted ports.Wanted
	// Nil where it could not be opened.
	socket socket
	opened ports.Opened
	// It may be possible later.
	isRetried bool
}

func newOpener(reserved []uint16) *opener {
	return &opener{reserved: reserved, ports: map[string]*port{}}
}

// run serves every agent that listens at path, one after the other.
func (o *opener) run(path string) error {
	for {
		connection, err := o.meet(path)
		if err != nil {
			return err
		}
		o.serve(connection)
		connection.Close()
		time.Sleep(meetPause)
	}
}

func (o *opener) meet(path string) (*net.UnixConn, error) {
	var connection *net.UnixConn
	var err error
	met := make(chan struct{})
	go func() {
		defer close(met)
		connection, err = packets.Await(path)
	}()
	select {
	case <-met:
	case <-time.After(agentPatience):
		o.want(nil)
		<-met
	}
	return connection, err
}

// serve opens what the agent wants, until the connection ends.
func (o *opener) serve(connection *net.UnixConn) {
	if ports.Greet(connection, ports.Opening) != nil {
		return
	}
	o.told = map[string]ports.Opened{}
	// What is wanted last counts. Read on meanwhile: an agent that waits for this side takes nothing over.
	requests := make(chan []ports.Wanted, 1)
	go func() {
		defer close(requests)
		for {
			wanted, err := ports.ReceiveWanted(connection)
			if err != nil {
				return
			}
			select {
			case <-requests:
			default:
			}
			requests <- wanted
		}
	}()
	for {
		select {
		case wanted, isOpen := <-requests:
			if !isOpen {
				return
			}
			o.want(wanted)
		case <-o.nextTry():
			o.tryAgain()
		}
		if err := o.tell(connection); err != nil {
			// The next agent is told everything.
			connection.Close()
			for range requests {
			}
			return
		}
	}
}

// want closes what is not wanted any more, and opens what is wanted anew.
func (o *opener) want(wanted []ports.Wanted) {
	stays := map[string]bool{}
	for _, w := range wanted {
		if present := o.ports[w.ID]; present != nil && isSame(present.wanted, w) {
			stays[w.ID] = true
		}
	}
	for id, present := range o.ports {
		if !stays[id] {
			present.close()
			delete(o.ports, id)
			delete(o.told, id)
		}
	}
	for _, w := range wanted {
		if !stays[w.ID] {
			o.ports[w.ID] = o.open(w)
		}
	}
}

// isSame ignores which port was had before: that one is open already.
func isSame(a, b ports.Wanted) bool {
	a.Former, b.Former = 0, 0
	return a == b
}

func (o *opener) open(wanted ports.Wanted) *port {
	opened := ports.Opened{ID: wanted.ID, State: ports.Open, Descriptor: -1}
	socket, number, err := open(wanted, o.reserved)
	opened.Port = number
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		opened.State = ports.Taken
	case err != nil:
		opened.State, opened.Detail = ports.Failed, err.Error()
	}
	return &port{
		wanted: wanted, socket: socket, opened: opened,
		isRetried: err != nil && !errors.Is(err, errNotForwarded),
	}
}

func (p *port) close() {
	if p.socket != nil {
		p.socket.Close()
	}
}

// nextTry never comes while everything is open that can be.
func (o *opener) nextTry() <-chan time.Time {
	for _, p := range o.ports {
		if p.isRetried {
			return time.After(retryDelay)
		}
	}
	return nil
}

func (o *opener) tryAgain() {
	for id, p := range o.ports {
		if p.isRetried {
			o.ports[id] = o.open(p.wanted)
		}
	}
}

// tell hands over what the agent does not know yet.
func (o *opener) tell(connection *net.UnixConn) error {
	for id, p := range o.ports {
		if o.told[id] == p.opened {
			continue
		}
		if err := p.handOver(connection); err != nil {
			return err
		}
		o.told[id] = p.opened
	}
	return nil
}

func (p *port) handOver(connection *net.UnixConn) error {
	if p.socket == nil {
		return ports.SendOpened(connection, p.opened)
	}
	return withDescriptor(p.socket, func(descriptor int) error {
		opened := p.opened
		opened.Descriptor = descriptor
		return ports.SendOpened(connection, opened)
	})
}

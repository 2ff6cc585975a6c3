package mounts

import (
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"sandbar.dev/lib/mounts"
)

// giver is the connection to a mount container.
type giver struct {
	connection *net.UnixConn
}

// serveGiver speaks with a mount container.
func (s *Service) serveGiver(connection *net.UnixConn) {
	fields, err := mounts.Receive(connection)
	if err != nil || len(fields) != 1 {
		return
	}
	rootID := fields[0]
	g := &giver{connection}
	s.node.do(func() {
		if old := s.givers[rootID]; old != nil {
			// Its container was replaced, and its end has not been noticed yet.
			old.connection.Close()
		}
		s.givers[rootID] = g
		s.tellGiver(rootID)
		s.announce()
	})
	for {
		handover, err := mounts.ReceiveHandover(connection)
		if err != nil {
			break
		}
		s.node.do(func() { s.handOver(rootID, handover) })
	}
	s.node.do(func() {
		if s.givers[rootID] == g {
			delete(s.givers, rootID)
			s.giverLeft(rootID)
			s.announce()
		}
	})
}

// giverLeft forgets what a mount container reported of paths where nothing was: the next one looks again. Folders that
// were handed over stay.
func (s *Service) giverLeft(rootID string) {
	for id, r := range s.records {
		if r.rootID == rootID && s.found[id].state != mounts.Present && s.folders[id] == nil {
			delete(s.found, id)
		}
	}
}

// tellGiver sends a mount container all that is wanted of it.
func (s *Service) tellGiver(rootID string) {
	g := s.givers[rootID]
	if g == nil {
		return
	}
	var wanted []mounts.Wanted
	for _, r := range s.records {
		if r.rootID == rootID {
			wanted = append(wanted, mounts.Wanted{ID: r.id, Path: r.path})
		}
	}
	slices.SortFunc(wanted, func(a, b mounts.Wanted) int { return strings.Compare(a.ID, b.ID) })
	packet, err := mounts.EncodeWanted(wanted)
	if err == nil {
		// One that is paused reads nothing; nobody else shall wait for it.
		g.connection.SetWriteDeadline(time.Now().Add(giverPatience))
		_, err = g.connection.Write(packet)
	}
	if err != nil {
		// It connects again, and is told again.
		g.connection.Close()
		if !errors.Is(err, unix.EPIPE) {
			klog.ErrorS(err, "Live mount: tell the mount container", "root", rootID)
		}
	}
}

const giverPatience = 500 * time.Millisecond

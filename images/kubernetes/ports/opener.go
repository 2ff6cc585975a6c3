package ports

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"sandbar.dev/lib/packets"
	"sandbar.dev/lib/ports"
)

const (
	// A container that restarts is back by then: nobody is told of its absence.
	openerPatience = 3 * time.Second
	// One that is paused reads nothing; nobody else shall wait for it.
	writePatience = 500 * time.Millisecond
	// What it says of many ports is reported together.
	reportDelay = 10 * time.Millisecond
)

// serve speaks with a ports container, or with a command in it.
func (s *Service) serve(ctx context.Context, connection *net.UnixConn) {
	greeting, err := ports.ReceiveGreeting(connection)
	switch {
	case err != nil:
		return
	case greeting == ports.Asking:
		problem := make(chan string, 1)
		s.do(ctx, func() { problem <- s.openerProblem() })
		select {
		case text := <-problem:
			// Whoever asked may have gone.
			_ = ports.Answer(connection, text)
		case <-ctx.Done():
		}
		return
	}
	s.do(ctx, func() { s.setOpener(connection) })
	for {
		opened, err := ports.ReceiveOpened(connection)
		if err != nil {
			break
		}
		s.do(ctx, func() { s.take(connection, opened) })
	}
	s.do(ctx, func() {
		if s.opener == connection {
			s.setOpener(nil)
			s.missOpenerLater(ctx)
		}
	})
}

func (s *Service) openerProblem() string {
	if s.opener == nil {
		return "the ports container is not connected to the agent"
	}
	return ""
}

// setOpener gives back what an earlier container opened: its successor cannot open a port that is still open here.
// Connections through it stay.
func (s *Service) setOpener(connection *net.UnixConn) {
	if s.opener != nil {
		s.opener.Close()
	}
	for _, f := range s.forwards {
		f.close()
	}
	clear(s.said)
	s.opener, s.sent = connection, nil
	if connection != nil {
		s.isOpenerMissed = false
		s.reconcile()
	}
}

func (s *Service) missOpenerLater(ctx context.Context) {
	time.AfterFunc(openerPatience, func() {
		s.do(ctx, func() {
			if s.opener == nil {
				s.isOpenerMissed = true
				s.reconcile()
			}
		})
	})
}

// take serves a port that was opened.
func (s *Service) take(connection *net.UnixConn, opened ports.Opened) {
	w, isWanted := s.wishes[opened.ID]
	if s.opener != connection || !isWanted {
		packets.Close(opened.Descriptor)
		return
	}
	if opened.State == ports.Open {
		f := s.forwards[opened.ID]
		if f == nil {
			f = newForward(w.wanted.Protocol, func(ctx context.Context) (string, error) {
				return s.resolver.resolve(ctx, w.target)
			})
			s.forwards[opened.ID] = f
		}
		if err := f.open(opened.Descriptor); err != nil {
			opened.State, opened.Detail = ports.Failed, err.Error()
		}
	}
	s.said[opened.ID] = opened
	time.AfterFunc(reportDelay, s.change)
}

// want tells the ports container what is to be open from now on. What is not any more is closed here first: its port
// may be wanted for another target.
func (s *Service) want(wishes []wish) {
	s.wishes = map[string]wish{}
	wanted := wantedOf(wishes)
	for _, w := range wishes {
		if w.refusal == "" {
			s.wishes[w.wanted.ID] = w
		}
	}
	for id, f := range s.forwards {
		if _, isWanted := s.wishes[id]; !isWanted {
			f.stop()
			delete(s.forwards, id)
		}
	}
	for id := range s.said {
		if _, isWanted := s.wishes[id]; !isWanted {
			delete(s.said, id)
		}
	}
	if s.opener == nil || (s.sent != nil && slices.EqualFunc(s.sent, wanted, isSame)) {
		return
	}
	s.opener.SetWriteDeadline(time.Now().Add(writePatience))
	if err := ports.SendWanted(s.opener, wanted); err != nil {
		// It connects again, and is told again.
		s.opener.Close()
		if !errors.Is(err, unix.EPIPE) && !isClosed(err) {
			klog.ErrorS(err, "Ports: tell the ports container", "ports", len(wanted))
		}
	}
	s.sent = wanted
}

// isSame ignores which port was had before: that only matters to who opens it anew.
func isSame(a, b ports.Wanted) bool {
	a.Former, b.Former = 0, 0
	return a == b
}

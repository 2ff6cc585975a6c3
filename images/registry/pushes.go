package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// A client that has begun to push layers has this long to push the manifest that holds on to them.
	pushTime = time.Minute
	// How long pushes that are under way are waited for: one may stand still in the middle of a layer.
	holdTime = 2 * pushTime
)

var errPushing = errors.New("images are being pushed all the time: try again when that is over")

// pushes serves the registry, and knows of pushes that have begun: layers come first, then the manifests that only an
// index names. Until that comes, under a tag, they look like something that nobody needs.
type pushes struct {
	handler http.Handler
	// Held for reading by every request that changes something.
	changes sync.RWMutex

	mutex sync.Mutex
	begun map[string]time.Time
}

func newPushes(handler http.Handler) *pushes {
	return &pushes{handler: handler, begun: map[string]time.Time{}}
}

func (p *pushes) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		p.handler.ServeHTTP(response, request)
		return
	}
	p.changes.RLock()
	defer p.changes.RUnlock()
	// A client that asks for a layer with HEAD does not push one that is there.
	if repository, _, isLayer := strings.Cut(request.URL.Path, "/blobs/"); isLayer {
		p.note(repository, time.Now())
	}
	p.handler.ServeHTTP(response, request)
	if repository, reference, isManifest := strings.Cut(request.URL.Path, "/manifests/"); isManifest && request.Method == http.MethodPut {
		// A tag has no colon, a digest has.
		if strings.Contains(reference, ":") {
			p.note(repository, time.Now())
		} else {
			p.end(repository)
		}
	}
}

func (p *pushes) note(repository string, now time.Time) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.begun[repository] = now
}

func (p *pushes) end(repository string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.begun, repository)
}

// hold waits until no push is under way and keeps others from beginning, until it is released. While it waits nobody
// else does: a Lock that waits would hold up every request that comes after it.
func (p *pushes) hold(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, holdTime, errPushing)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if p.changes.TryLock() {
			if !p.isPushing(time.Now()) {
				return p.changes.Unlock, nil
			}
			p.changes.Unlock()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func (p *pushes) isPushing(now time.Time) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for repository, begun := range p.begun {
		if now.Sub(begun) > pushTime {
			delete(p.begun, repository)
		}
	}
	return len(p.begun) > 0
}

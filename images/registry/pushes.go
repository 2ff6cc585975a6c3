package main

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A client that has begun to push layers has this long to push the manifest that holds on to them.
const pushTime = time.Minute

// pushes serves the registry, and knows of pushes that have begun: layers come first, and until their manifest comes
// they look like something that nobody needs.
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
	if repository, _, isManifest := strings.Cut(request.URL.Path, "/manifests/"); isManifest && request.Method == http.MethodPut {
		p.end(repository)
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

// hold waits until no push is under way and keeps others from beginning, until it is released.
func (p *pushes) hold(ctx context.Context) (release func(), err error) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		p.changes.Lock()
		if !p.isPushing(time.Now()) {
			return p.changes.Unlock, nil
		}
		p.changes.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
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

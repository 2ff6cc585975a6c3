package main

import (
	"context"
	"net/http"
	"sync"

	"go.etcd.io/etcd/client/v3/kubernetes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// gate stands before every write to the datastore. It lies below the API server, so that no path leads around it:
// controllers, webhooks, status updates and garbage collection all pass it.
type gate struct {
	// Read-locked by each write while it is under way.
	writes    sync.RWMutex
	isRefused bool
	// One reset or one snapshot at a time.
	turns sync.Mutex
}

// errRefused carries no time after which to try again: clients would repeat by themselves, after the reset, what they
// decided upon before it.
var errRefused = &apierrors.StatusError{ErrStatus: metav1.Status{
	Status:  metav1.StatusFailure,
	Code:    http.StatusServiceUnavailable,
	Reason:  metav1.StatusReasonServiceUnavailable,
	Message: "the cluster is being reset: nothing can be written until that is done",
}}

// refuse answers every write with an error until open is called. It returns once the writes under way have ended.
func (g *gate) refuse() (open func()) {
	g.turns.Lock()
	g.set(true)
	return func() {
		g.set(false)
		g.turns.Unlock()
	}
}

func (g *gate) set(isRefused bool) {
	g.writes.Lock()
	defer g.writes.Unlock()
	g.isRefused = isRefused
}

// hold has every write wait until open is called. It returns once the writes under way have ended.
func (g *gate) hold() (open func()) {
	g.turns.Lock()
	g.writes.Lock()
	return func() {
		g.writes.Unlock()
		g.turns.Unlock()
	}
}

// pass lets a write through; done has to be called at its end.
func (g *gate) pass() (done func(), err error) {
	g.writes.RLock()
	if g.isRefused {
		g.writes.RUnlock()
		return nil, errRefused
	}
	return g.writes.RUnlock, nil
}

// gatedStore is what the API server writes through.
type gatedStore struct {
	kubernetes.Interface
	gate *gate
}

// OptimisticPut writes a key when the gate lets it.
func (s gatedStore) OptimisticPut(ctx context.Context, key string, value []byte, expectedRevision int64, options kubernetes.PutOptions) (kubernetes.PutResponse, error) {
	done, err := s.gate.pass()
	if err != nil {
		return kubernetes.PutResponse{}, err
	}
	defer done()
	return s.Interface.OptimisticPut(ctx, key, value, expectedRevision, options)
}

// OptimisticDelete deletes a key when the gate lets it.
func (s gatedStore) OptimisticDelete(ctx context.Context, key string, expectedRevision int64, options kubernetes.DeleteOptions) (kubernetes.DeleteResponse, error) {
	done, err := s.gate.pass()
	if err != nil {
		return kubernetes.DeleteResponse{}, err
	}
	defer done()
	return s.Interface.OptimisticDelete(ctx, key, expectedRevision, options)
}

package main

import (
	"context"
	"runtime/debug"
	"time"
)

// How much the heap may grow before garbage is collected, in percent of what lives. A start keeps most of what it
// allocates, so collecting would only take time from it. The controllers' start fills what the server's left free,
// and at rest a small heap costs a collection every few minutes.
const (
	startGCPercent       = 400
	controllersGCPercent = 100
	restGCPercent        = 50
	// By then the controllers have filled their caches and the node has registered.
	startDuration = 10 * time.Second
)

// returnStartMemory ends the generous memory use of the start, and gives what it left behind back to the host.
func returnStartMemory(ctx context.Context) {
	debug.SetGCPercent(controllersGCPercent)
	select {
	case <-ctx.Done():
	case <-time.After(startDuration):
		debug.SetGCPercent(restGCPercent)
		debug.FreeOSMemory()
	}
}

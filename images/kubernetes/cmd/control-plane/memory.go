package main

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	startGCPercent = 400
	restGCPercent  = 75
	// By then the controllers have filled their caches and the node has registered.
	startDuration = 10 * time.Second
)

// returnStartMemory ends the generous memory use of the start, and gives what it left behind back to the host.
func returnStartMemory(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(startDuration):
		debug.SetGCPercent(restGCPercent)
		debug.FreeOSMemory()
	}
}

//go:build kubernetes35

package main

import "k8s.io/client-go/tools/events"

// eventRecorder is what the scheduler of 1.35 records events with.
type eventRecorder = events.EventRecorder

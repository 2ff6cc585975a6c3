//go:build !kubernetes35

package main

import "k8s.io/client-go/tools/events"

// eventRecorder is what the scheduler records events with.
type eventRecorder = events.EventRecorderLogger

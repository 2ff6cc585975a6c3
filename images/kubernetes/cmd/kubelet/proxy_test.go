package main

import (
	"slices"
	"testing"

	"k8s.io/kubernetes/pkg/proxy"
)

type recordedProxier struct {
	proxy.Provider
	record func(string)
}

func (r recordedProxier) OnServiceSynced()        { r.record("services") }
func (r recordedProxier) OnEndpointSlicesSynced() { r.record("endpoints") }

func TestTheFirstRulesAreThereWhenTheProxierHasSeenServicesAndEndpoints(t *testing.T) {
	var got []string
	record := func(what string) { got = append(got, what) }
	first := newFirstSync(recordedProxier{record: record}, func() { record("done") })
	first.OnEndpointSlicesSynced()
	first.OnServiceSynced()
	if want := []string{"endpoints", "services", "done"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

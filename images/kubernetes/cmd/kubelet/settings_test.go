package main

import (
	"strings"
	"testing"
	"time"

	"sandbar.dev/lib/agent"
)

func testConfig() agent.Config {
	return agent.Config{NodeName: "node", Address: "172.30.0.3", ClusterDNS: "10.96.0.10", ClusterDomain: "cluster.local"}
}

func TestTheUsersConfigurationWinsAndTheirFlagsWinOverIt(t *testing.T) {
	config := testConfig()
	config.KubeletConfiguration = map[string]any{
		"maxPods": 50, "podsPerCore": 5, "crashLoopBackOff": map[string]any{"maxContainerRestartPeriod": "20s"},
	}
	config.KubeletArguments = map[string]string{"max-pods": "60", "--node-labels": "disk=ssd"}
	server, err := kubeletServer(config)
	if err != nil {
		t.Fatal(err)
	}
	if server.MaxPods != 60 || server.PodsPerCore != 5 || server.NodeLabels["disk"] != "ssd" {
		t.Errorf("got %d pods, %d per core, labels %v", server.MaxPods, server.PodsPerCore, server.NodeLabels)
	}
	if got := server.CrashLoopBackOff.MaxContainerRestartPeriod.Duration; got != 20*time.Second {
		t.Errorf("got a restart period of %v", got)
	}
	if server.ClusterDomain != "cluster.local" || server.NodeIP != "172.30.0.3" {
		t.Errorf("our own settings are lost: %q, %q", server.ClusterDomain, server.NodeIP)
	}
}

func TestAFeatureGateFlagAddsToThoseOfTheConfiguration(t *testing.T) {
	config := testConfig()
	config.FeatureGates = map[string]bool{"PodLevelResources": true}
	config.KubeletArguments = map[string]string{"feature-gates": "ImageVolume=true"}
	server, err := kubeletServer(config)
	if err != nil {
		t.Fatal(err)
	}
	if !server.FeatureGates["PodLevelResources"] || !server.FeatureGates["ImageVolume"] {
		t.Errorf("got %v", server.FeatureGates)
	}
}

func TestMistakesAreNamedInOneLine(t *testing.T) {
	for name, test := range map[string]struct {
		arguments     map[string]string
		configuration map[string]any
		want          string
	}{
		"unknown flag":    {arguments: map[string]string{"no-such": "1"}, want: "unknown flag --no-such"},
		"bad flag value":  {arguments: map[string]string{"max-pods": "many"}, want: "flag --max-pods"},
		"unknown key":     {configuration: map[string]any{"maxPodz": 1}, want: `unknown field "maxPodz"`},
		"bad type":        {configuration: map[string]any{"maxPods": "many"}, want: "maxPods"},
		"invalid setting": {configuration: map[string]any{"imageGCHighThresholdPercent": 400}, want: "imageGCHighThresholdPercent"},
		"unknown gate":    {arguments: map[string]string{"feature-gates": "NoSuchGate=true"}, want: "NoSuchGate"},
		"gate in configuration": {
			configuration: map[string]any{"featureGates": map[string]any{"NoSuchGate": true}}, want: "NoSuchGate",
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig()
			config.KubeletArguments, config.KubeletConfiguration = test.arguments, test.configuration
			_, err := kubeletServer(config)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, test.want)
			}
		})
	}
}

func TestNullRemovesAKeyAndObjectsMerge(t *testing.T) {
	got := mergeObjects(
		map[string]any{"keep": 1, "drop": 2, "object": map[string]any{"a": 1, "b": 2}},
		map[string]any{"drop": nil, "object": map[string]any{"b": 3}})
	object := got["object"].(map[string]any)
	if _, kept := got["drop"]; kept || got["keep"] != 1 || object["a"] != 1 || object["b"] != 3 {
		t.Errorf("got %v", got)
	}
}

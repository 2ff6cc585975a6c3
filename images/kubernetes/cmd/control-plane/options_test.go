package main

import (
	"strings"
	"testing"
)

func testConfig() Config {
	return Config{Address: "172.30.0.2", AdvertisePort: 6443, ServiceSubnet: "10.96.0.0/16", PodSubnet: "10.244.0.0/16"}
}

func TestParseOptionsNamesTheFlagThatIsWrong(t *testing.T) {
	tests := map[string]struct {
		change func(*Config)
		want   string
	}{
		"an unknown API server flag": {
			func(c *Config) { c.APIServerArguments = map[string]string{"no-such-flag": "1"} },
			"kube-apiserver: unknown flag --no-such-flag",
		},
		"a value that a scheduler flag does not take": {
			func(c *Config) { c.SchedulerArguments = map[string]string{"secure-port": "many"} },
			"kube-scheduler: flag --secure-port: ",
		},
		"a flag written with its dashes": {
			func(c *Config) { c.ControllerManagerArguments = map[string]string{"--v": "loud"} },
			"kube-controller-manager: flag --v: ",
		},
		"an unknown controller": {
			func(c *Config) { c.ControllerManagerArguments = map[string]string{"controllers": "*,no-such"} },
			`kube-controller-manager: "no-such" is not in the list of known controllers`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { expectProblem(t, test.change, test.want) })
	}
	// The process has one registry of gates, which remembers the unknown one: this has to come last.
	t.Run("an unknown feature gate", func(t *testing.T) {
		change := func(c *Config) { c.FeatureGates = map[string]bool{"NoSuchGate": true} }
		expectProblem(t, change, "flag --feature-gates: unrecognized feature gate: NoSuchGate")
	})
}

func expectProblem(t *testing.T, change func(*Config), want string) {
	t.Helper()
	config := testConfig()
	change(&config)
	_, err := parseOptions(config)
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("error is %v, want one line with %q", err, want)
	}
}

func TestMergeFlagsLetsTheUserWin(t *testing.T) {
	ours := map[string]string{"v": "2", "secure-port": "0"}
	flags, gates := mergeFlags(ours, map[string]string{"--v": "4", "feature-gates": "A=true"})
	if flags["v"] != "4" || flags["secure-port"] != "0" || len(flags) != 2 || gates != "A=true" {
		t.Fatalf("flags %v, feature gates %q", flags, gates)
	}
	if ours["v"] != "2" {
		t.Fatal("our own flags were changed")
	}
}

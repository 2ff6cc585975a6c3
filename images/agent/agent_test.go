package main

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sandbar.dev/lib/agent"
)

func TestEveryHierarchyIsFoundAndNothingElse(t *testing.T) {
	got := controlGroupMounts("tmpfs /sys/fs/cgroup tmpfs ro 0 0\n" +
		"cgroup /sys/fs/cgroup/memory cgroup ro,memory 0 0\n" +
		"cgroup /sys/fs/cgroup/cpu cgroup ro,cpu 0 0\n" +
		"proc /proc proc rw 0 0\n")
	want := []string{"/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTheNetworkConfigurationIsJSONWithThePodSubnet(t *testing.T) {
	var config struct {
		Plugins []struct {
			Type string
			MTU  int
			IPAM struct{ Ranges [][]struct{ Subnet string } }
		}
	}
	if err := json.Unmarshal([]byte(networkConfig("10.244.0.0/16", 1450)), &config); err != nil {
		t.Fatal(err)
	}
	first := config.Plugins[0]
	if first.Type != "ptp" || first.MTU != 1450 || first.IPAM.Ranges[0][0].Subnet != "10.244.0.0/16" {
		t.Errorf("got %+v", first)
	}
}

func TestServiceAddressesThatNobodyTranslatedAreRejected(t *testing.T) {
	rules := packetFilterRules(agent.Config{PodSubnet: "10.244.0.0/16", ServiceSubnet: "10.96.0.0/16"})
	for _, want := range []string{
		"-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 ",
		"-A FORWARD -d 10.96.0.0/16 ",
		"-A OUTPUT -d 10.96.0.0/16 ",
	} {
		if !strings.Contains(rules, want) {
			t.Errorf("%q is not in\n%s", want, rules)
		}
	}
}

func TestPoliciesAreAskedAboutAllButTheControlPlane(t *testing.T) {
	config := agent.Config{NetworkPolicy: &agent.NetworkPolicy{ControlPlane: "172.30.0.2"}}
	rules := packetFilterRules(config)
	jump := "-A FORWARD ! -s 172.30.0.2/32 -j KUBE-ROUTER-FORWARD\n"
	if !strings.Contains(rules, ":KUBE-ROUTER-FORWARD - [0:0]\n") || !strings.Contains(rules, jump) {
		t.Errorf("got\n%s", rules)
	}
	if rules := packetFilterRules(agent.Config{}); strings.Contains(rules, "KUBE-ROUTER") {
		t.Errorf("switched off, they are\n%s", rules)
	}
}

func TestOnlyProxiesThatAreSetReachContainerd(t *testing.T) {
	got := containerdEnvironment(agent.Proxy{HTTPS: "http://proxy:3128"})
	if want := []string{"SSL_CERT_FILE=" + trustedCAs, "HTTPS_PROXY=http://proxy:3128"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOOMScoresAreRestrictedWhereTheyCannotBeLowered(t *testing.T) {
	text := containerdSettings{snapshotter: "native"}.toml()
	for _, want := range []string{"restrict_oom_score_adj = true\n", "snapshotter = \"native\"\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestResolveTakesItsFlagOnBothSidesOfTheName(t *testing.T) {
	for _, arguments := range [][]string{{"a.b", "--timeout", "2s"}, {"--timeout", "2s", "a.b"}} {
		flags := flag.NewFlagSet("resolve", flag.ContinueOnError)
		timeout := flags.Duration("timeout", time.Minute, "")
		name, err := parseNameAndFlags(flags, arguments)
		if err != nil || name != "a.b." || *timeout != 2*time.Second {
			t.Errorf("%v: got %q, %v, %v", arguments, name, *timeout, err)
		}
	}
}

func TestAServiceThatEndsIsStartedAgainAndStops(t *testing.T) {
	started := make(chan struct{}, 10)
	s := &service{name: "test", stopping: make(chan struct{}), stopped: make(chan struct{})}
	go s.supervise(func() (process, error) {
		started <- struct{}{}
		ended := process{exit: make(chan syscall.WaitStatus, 1)}
		ended.exit <- 0
		return ended, nil
	})
	<-started
	<-started
	s.stop()
}

func TestProcessOneReapsOrphansAndReportsItsOwnChildren(t *testing.T) {
	children := newChildren()
	if err := children.run(command{name: "true"}); err != nil {
		t.Errorf("true: %v", err)
	}
	if err := children.run(command{name: "false"}); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("false: got %v", err)
	}
	// Not registered, as an orphan would be.
	orphan := exec.Command("true")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		if _, err := os.Stat("/proc/" + strconv.Itoa(orphan.Process.Pid)); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the orphan is still there")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestTheRuntimeAsksForThePodOfItsContainer(t *testing.T) {
	bundle := t.TempDir()
	write(t, filepath.Join(bundle, "config.json"), `{"annotations": {"io.kubernetes.cri.sandbox-id": "abc",
		"io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-name": "web", "io.kubernetes.cri.sandbox-uid": "1-2"}}`)
	want := agent.PolicyQuestion{SandboxID: "abc", Namespace: "shop", Pod: "web", UID: "1-2"}
	if question, err := podOf(bundle); question != want || err != nil {
		t.Errorf("asks %+v, %v", question, err)
	}
}

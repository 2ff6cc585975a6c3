package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// runningPod is a process in what looks like a pod's control group, and the bundle of its sandbox.
func runningPod(t *testing.T, sweep podSweep, namespace, uid string) *exec.Cmd {
	t.Helper()
	process := exec.Command("sleep", "100")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = process.Wait()
		close(ended)
		// As the kernel and the kubelet do.
		os.RemoveAll(filepath.Join(sweep.groups.pods, "burstable", "pod"+uid))
		os.RemoveAll(filepath.Join(sweep.bundles, uid))
	}()
	t.Cleanup(func() {
		_ = process.Process.Kill()
		<-ended
	})
	write(t, filepath.Join(sweep.groups.pods, "burstable", "pod"+uid, "container", "cgroup.procs"), fmt.Sprintln(process.Process.Pid))
	write(t, filepath.Join(sweep.bundles, uid, "config.json"), fmt.Sprintf(
		`{"annotations": {"io.kubernetes.cri.sandbox-namespace": %q, "io.kubernetes.cri.sandbox-uid": %q}}`, namespace, uid))
	return process
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// stateOf is R, S, T for stopped, Z for dead.
func stateOf(t *testing.T, process *exec.Cmd) string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process.Process.Pid))
	if err != nil {
		return "gone"
	}
	return strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))[0]
}

// isAlive tells of a process that sleeps, or has just been given a processor.
func isAlive(state string) bool { return state == "S" || state == "R" }

func waitForState(t *testing.T, process *exec.Cmd, state string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); stateOf(t, process) != state; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process is %s, not %s", stateOf(t, process), state)
		}
	}
}

func TestPodsAreStoppedUntilTheDatastoreIsBackAndThenKilled(t *testing.T) {
	sweep := newPodSweep(controlGroups{pods: t.TempDir()}, t.TempDir())
	web, kept := runningPod(t, sweep, "shop", "uid-web"), runningPod(t, sweep, "blog", "uid-kept")
	input, end := io.Pipe()
	stopped := make(chan struct{})
	hasReturned := make(chan struct{})
	go func() {
		sweep.stopUntilEnd(input, []string{"blog"}, func() { close(stopped) })
		close(hasReturned)
	}()
	<-stopped
	waitForState(t, web, "T")
	// One that starts meanwhile.
	late := runningPod(t, sweep, "shop", "uid-late")
	waitForState(t, late, "T")
	if state := stateOf(t, kept); state != "S" {
		t.Errorf("the process of a kept namespace is %s", state)
	}
	end.Close()
	<-hasReturned
	// One that is made after the reset.
	next := runningPod(t, sweep, "shop", "uid-next")
	if !sweep.killUntil(sweep.areDead) {
		t.Error("not killed")
	}
	waitForState(t, web, "gone")
	waitForState(t, late, "gone")
	for _, process := range []*exec.Cmd{kept, next} {
		if state := stateOf(t, process); !isAlive(state) {
			t.Errorf("a process that is to go on is %s", state)
		}
	}
	if !sweep.killUntil(sweep.areReleased) {
		t.Error("not released")
	}
	if uids := slices.Sorted(maps.Keys(sweep.found)); !slices.Equal(uids, []string{"uid-late", "uid-web"}) {
		t.Errorf("ended %v", uids)
	}
}

func TestWhatHoldsAPodsNamespacesIsLeftToContainerd(t *testing.T) {
	sweep := newPodSweep(controlGroups{pods: t.TempDir()}, t.TempDir())
	pause := runningPod(t, sweep, "shop", "uid-web")
	if err := os.Rename(filepath.Join(sweep.groups.pods, "burstable", "poduid-web", "container"), filepath.Join(sweep.groups.pods, "burstable", "poduid-web", "sandbox")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(sweep.bundles, "sandbox", "config.json"),
		`{"annotations": {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-uid": "uid-web"}}`)
	sweep.add([]string{"uid-web"})
	if !sweep.killUntil(sweep.areDead) {
		t.Error("a pod without containers is not taken for dead")
	}
	if state := stateOf(t, pause); !isAlive(state) {
		t.Errorf("it is %s", state)
	}
}

func TestAPodIsReleasedOnlyWhenItsSandboxIsGone(t *testing.T) {
	sweep := newPodSweep(controlGroups{pods: t.TempDir()}, t.TempDir())
	sweep.add([]string{"uid-web"})
	write(t, filepath.Join(sweep.bundles, "sandbox", "config.json"), `{"annotations": {"io.kubernetes.cri.sandbox-uid": "uid-web"}}`)
	if sweep.areReleased() || !sweep.areDead() {
		t.Error("a sandbox without a process is dead and not released")
	}
}

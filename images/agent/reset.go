package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"sandbar.dev/lib/agent"
	"sandbar.dev/lib/mounts"
)

const (
	bundlesDirectory = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
	keepAllVolumes   = "all"
	// Between two looks at which processes of pods there are.
	sweepInterval = 20 * time.Millisecond
	// By then a kubelet has let go of a hundred pods. What takes longer, such as a file system that does not answer, it
	// goes on with by itself.
	releaseTimeout = 30 * time.Second
	// In which the kubelet's process is back after it has ended.
	discardTimeout = 5 * time.Second
)

// resetNode ends all pods at once, however they would react to a signal, and empties what claims hold. It begins while
// nothing can be written to the API, and stops what runs: killed now, it would be started again. The end of stdin says
// that the API knows of none of these pods any more, with writes still refused; then they are killed.
func resetNode(arguments []string) error {
	flags := flag.NewFlagSet("reset", flag.ContinueOnError)
	namespaces := flags.String("keep-namespaces", "", "namespaces whose pods go on, separated by commas")
	volumes := flags.String("keep-volumes", "", `PersistentVolumes whose content stays, separated by commas, or "all"`)
	keepsWritten := flags.Bool("keep-mounts", false, "what pods wrote over paths that are excluded from mounts stays")
	rest := flags.String("rest", "", "UIDs of pods that are killed already: until the kubelet has let go of them")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	groups, _, err := findControlGroups()
	if err != nil {
		return err
	}
	pods := newPodSweep(groups, bundlesDirectory)
	if *rest != "" {
		pods.add(splitList(*rest))
		pods.killUntil(pods.areReleased)
		return nil
	}
	answer := json.NewEncoder(os.Stdout)
	pods.stopUntilEnd(os.Stdin, splitList(*namespaces), func() { _ = answer.Encode(map[string]string{"phase": "stopped"}) })
	// Nothing can be written yet: volumes that are made from now on are not among these.
	removed := volumesBut(*volumes)
	if !pods.killUntil(pods.areDead) {
		return fmt.Errorf("processes of pods cannot be killed")
	}
	if len(pods.found) > 0 {
		if err := runInBackground(os.Args[0], "reset", "--rest", strings.Join(slices.Collect(maps.Keys(pods.found)), ",")); err != nil {
			return err
		}
	}
	if err := removeVolumes(removed); err != nil {
		return err
	}
	if !*keepsWritten {
		if err := discardWritten(splitList(*namespaces)); err != nil {
			return err
		}
	}
	return answer.Encode(map[string]any{"phase": "done", "pods": len(pods.found), "volumes": len(removed)})
}

// podSweep ends what runs of pods, round after round.
type podSweep struct {
	groups controlGroups
	// Holds a folder for each container and sandbox.
	bundles string
	// UIDs of the pods that are to end; those made after the reset are not among them.
	found map[string]bool
	// Ids of these pods' sandboxes.
	sandboxes map[string]bool
}

func newPodSweep(groups controlGroups, bundles string) podSweep {
	return podSweep{groups: groups, bundles: bundles, found: map[string]bool{}, sandboxes: map[string]bool{}}
}

func (s podSweep) add(uids []string) {
	for _, uid := range uids {
		s.found[uid] = true
	}
}

// stopUntilEnd stops the processes of all pods but those of some namespaces until input ends.
func (s podSweep) stopUntilEnd(input io.Reader, keptNamespaces []string, onStopped func()) {
	hasEnded := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, input)
		close(hasEnded)
	}()
	for sayStopped := sync.OnceFunc(onStopped); ; sayStopped() {
		for owner := range ownersIn(s.bundles) {
			if !slices.Contains(keptNamespaces, owner.namespace) {
				s.add([]string{owner.uid})
			}
		}
		for _, pid := range s.processes() {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
		select {
		case <-hasEnded:
			return
		case <-time.After(sweepInterval):
		}
	}
}

// killUntil kills the processes of the pods that were found until isDone; false when that took too long.
func (s podSweep) killUntil(isDone func() bool) bool {
	for deadline := time.Now().Add(releaseTimeout); time.Now().Before(deadline); time.Sleep(sweepInterval) {
		for _, pid := range s.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if isDone() {
			return true
		}
	}
	return false
}

// processes returns those of the pods that were found, but for what holds a pod's namespaces: that is for containerd to
// end. When it dies before the pod's containers are gone, containerd leaves the process behind that looks after them.
func (s podSweep) processes() []int {
	for owner := range ownersIn(s.bundles) {
		if owner.isSandbox {
			s.sandboxes[owner.id] = true
		}
	}
	var pids []int
	for uid, group := range s.groups.podGroups() {
		if !s.found[uid] {
			continue
		}
		for _, container := range listNames(group) {
			if !s.sandboxes[container] {
				pids = append(pids, processesBelow(filepath.Join(group, container))...)
			}
		}
	}
	return pids
}

func (s podSweep) areDead() bool { return len(s.processes()) == 0 }

// areReleased tells whether the kubelet has let go of all of them: no container and no sandbox is left. Before that it
// may have been about to start a container, which would live until its grace period is over.
func (s podSweep) areReleased() bool {
	for owner := range ownersIn(s.bundles) {
		if s.found[owner.uid] {
			return false
		}
	}
	return s.areDead()
}

type bundleOwner struct {
	// Of the container or sandbox; its control group has the same name.
	id             string
	namespace, uid string
	isSandbox      bool
}

// ownersIn yields whose the containers and sandboxes are that there are now.
func ownersIn(directory string) iter.Seq[bundleOwner] {
	return func(yield func(bundleOwner) bool) {
		for _, bundle := range listNames(directory) {
			if owner, isKnown := ownerOf(filepath.Join(directory, bundle)); isKnown && !yield(owner) {
				return
			}
		}
	}
}

// ownerOf reads it from what containerd told the runtime.
func ownerOf(bundle string) (owner bundleOwner, isKnown bool) {
	content, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		// It is being made, or gone.
		return bundleOwner{}, false
	}
	var spec struct{ Annotations map[string]string }
	if json.Unmarshal(content, &spec) != nil {
		return bundleOwner{}, false
	}
	owner = bundleOwner{
		id:        filepath.Base(bundle),
		namespace: spec.Annotations["io.kubernetes.cri.sandbox-namespace"],
		uid:       spec.Annotations["io.kubernetes.cri.sandbox-uid"],
		isSandbox: spec.Annotations["io.kubernetes.cri.container-type"] == "sandbox",
	}
	return owner, owner.uid != ""
}

// volumesBut returns the directories of volumes that are there now, but for those kept.
func volumesBut(kept string) []string {
	if kept == keepAllVolumes {
		return nil
	}
	keptNames := splitList(kept)
	return slices.DeleteFunc(listNames(agent.VolumesDirectory), func(name string) bool {
		return slices.Contains(keptNames, name)
	})
}

// discardWritten asks the kubelet's process, which may just be starting again.
func discardWritten(keptNamespaces []string) error {
	for deadline := time.Now().Add(discardTimeout); ; time.Sleep(sweepInterval) {
		_, err := mounts.Ask(mounts.Request{Command: "discard", KeptNamespaces: keptNamespaces})
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("discard what was written over paths excluded from mounts: %w", err)
		}
	}
}

// removeVolumes takes the directories away at once; their content is deleted in the background, which may take long.
func removeVolumes(names []string) error {
	if len(names) == 0 {
		return nil
	}
	if err := os.MkdirAll(agent.RemovedDirectory, 0o700); err != nil {
		return err
	}
	target, err := os.MkdirTemp(agent.RemovedDirectory, "")
	if err != nil {
		return err
	}
	for _, name := range names {
		err := os.Rename(filepath.Join(agent.VolumesDirectory, name), filepath.Join(target, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return runInBackground("rm", "-rf", "--one-file-system", target)
}

// runInBackground starts a program that goes on after this one; process 1 waits for it.
func runInBackground(name string, arguments ...string) error {
	command := exec.Command(name, arguments...)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return err
	}
	return command.Process.Release()
}

func splitList(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

func listNames(directory string) []string {
	entries, _ := os.ReadDir(directory)
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names
}

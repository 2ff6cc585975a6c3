package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	controlGroupRoot = "/sys/fs/cgroup"
	// The kernel's fixed inode of the first cgroup namespace: seen here, it is the host's.
	hostCgroupNamespace = "cgroup:[4026531835]"
)

// controlGroups knows where the processes of pods are found.
type controlGroups struct {
	pods string
}

// prepareControlGroups makes the container's own subtree writable and ready for the kubelet, on both versions.
func prepareControlGroups() (controlGroups, error) {
	// In the host's namespace the following would move the host's own processes.
	if namespace, err := os.Readlink("/proc/self/ns/cgroup"); err != nil || namespace == hostCgroupNamespace {
		return controlGroups{}, fmt.Errorf("the container needs a cgroup namespace of its own (--cgroupns private)")
	}
	groups, isUnified, err := findControlGroups()
	if err != nil {
		return controlGroups{}, err
	}
	if isUnified {
		return groups, prepareUnifiedControlGroups()
	}
	return groups, prepareSplitControlGroups()
}

func findControlGroups() (groups controlGroups, isUnified bool, err error) {
	var root unix.Statfs_t
	if err := unix.Statfs(controlGroupRoot, &root); err != nil {
		return controlGroups{}, false, err
	}
	if root.Type == unix.CGROUP2_SUPER_MAGIC {
		return controlGroups{pods: filepath.Join(controlGroupRoot, "kubepods")}, true, nil
	}
	// Every process of a pod is in every hierarchy; the kubelet needs this one.
	return controlGroups{pods: filepath.Join(controlGroupRoot, "memory", "kubepods")}, false, nil
}

// On version 2 a group that hands controllers to its children may hold no process itself, so everything that runs
// here moves one level down first. `docker exec` follows process 1 there.
func prepareUnifiedControlGroups() error {
	if err := remountWritable(controlGroupRoot); err != nil {
		return err
	}
	own := filepath.Join(controlGroupRoot, "sandbar")
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := moveProcesses(controlGroupRoot, own); err != nil {
		return err
	}
	available, err := os.ReadFile(filepath.Join(controlGroupRoot, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(available)) {
		// One at a time: a controller that cannot be delegated (a realtime task blocks cpu) must not stop the others.
		file := filepath.Join(controlGroupRoot, "cgroup.subtree_control")
		if err := os.WriteFile(file, []byte("+"+controller), 0); err != nil && isNeeded(controller) {
			return fmt.Errorf("delegate controller %s: %w", controller, err)
		}
	}
	return nil
}

func isNeeded(controller string) bool {
	return controller == "cpu" || controller == "memory" || controller == "pids"
}

func moveProcesses(from, to string) error {
	// Repeated, because a process may fork while its group is being read.
	for range 10 {
		pids, err := processesIn(from)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
			if err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("move process %d to %s: %w", pid, to, err)
			}
		}
	}
	return nil
}

func prepareSplitControlGroups() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	targets := controlGroupMounts(string(mounts))
	for _, target := range targets {
		if err := remountWritable(target); err != nil {
			return err
		}
	}
	return nil
}

// controlGroupMounts returns where the hierarchies of version 1 are mounted, and the directory around them.
func controlGroupMounts(mounts string) []string {
	targets := []string{controlGroupRoot}
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[2] == "cgroup" {
			targets = append(targets, fields[1])
		}
	}
	return targets
}

// stopPods lets the processes of pods end by themselves for a moment, then kills what is left.
func (g controlGroups) stopPods(grace time.Duration) {
	deadline := time.Now().Add(grace)
	for _, pid := range g.podProcesses() {
		syscall.Kill(pid, syscall.SIGTERM)
	}
	for len(g.podProcesses()) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	// Read again after each round: processes fork, and the dead leave their group only once they are gone.
	deadline = time.Now().Add(grace)
	for time.Now().Before(deadline) {
		left := g.podProcesses()
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (g controlGroups) podProcesses() []int { return processesBelow(g.pods) }

// podGroups returns the control group of each pod by the pod's UID.
func (g controlGroups) podGroups() map[string]string {
	groups := map[string]string{}
	walkGroups(g.pods, func(path string) error {
		if uid, isPod := strings.CutPrefix(filepath.Base(path), "pod"); isPod {
			groups[uid] = path
			return filepath.SkipDir
		}
		return nil
	})
	return groups
}

func processesBelow(group string) []int {
	var pids []int
	walkGroups(group, func(path string) error {
		found, _ := processesIn(path)
		pids = append(pids, found...)
		return nil
	})
	return pids
}

// walkGroups visits a group and those below it. Groups vanish while they are walked; what cannot be read holds no
// process any more.
func walkGroups(group string, visit func(path string) error) {
	filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil
		}
		return visit(path)
	})
}

func processesIn(group string) ([]int, error) {
	content, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(content)) {
		// 0 stands for a process outside this pid namespace, which is nothing of ours.
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

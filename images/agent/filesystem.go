package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/agent"
)

// prepareFileSystem makes the container's mounts those of a node.
func prepareFileSystem() error {
	// Mounts inside pods propagate only from a shared tree.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	for _, path := range []string{"/sys", "/proc/sys"} {
		if err := remountWritable(path); err != nil {
			return err
		}
	}
	for _, path := range []string{"/run/sandbar", "/run/cni", agent.VolumesDirectory, agent.MountsDirectory} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	// Address leases and results of CNI plugins describe network namespaces, which do not outlive the container: on
	// the tmpfs they end together.
	if err := replaceByLink("/var/lib/cni", "/run/cni"); err != nil {
		return err
	}
	if err := makeDevices(); err != nil {
		return err
	}
	return makeMachineID()
}

// remountWritable makes a read-only mount writable. The flag MS_BIND limits the change to this mount; without it the
// kernel would change the file system itself, which is in use elsewhere.
func remountWritable(path string) error {
	var state unix.Statfs_t
	if err := unix.Statfs(path, &state); err != nil {
		return fmt.Errorf("remount %s: %w", path, err)
	}
	if state.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	// Not each ST_ flag equals its MS_ flag, but these do.
	kept := uintptr(state.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|kept, ""); err != nil {
		return fmt.Errorf("remount %s: %w", path, err)
	}
	return nil
}

func makeDevices() error {
	devices := []struct {
		path         string
		major, minor uint32
	}{
		{"/dev/kmsg", 1, 11}, // the kubelet reads out-of-memory kills from it
		{"/dev/fuse", 10, 229},
	}
	for _, device := range devices {
		err := unix.Mknod(device.path, unix.S_IFCHR|0o660, int(unix.Mkdev(device.major, device.minor)))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make %s: %w", device.path, err)
		}
	}
	return nil
}

// makeMachineID gives the node the identity that the kubelet reports; the container keeps it when it restarts.
func makeMachineID() error {
	const path = "/etc/machine-id"
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	var id [16]byte
	rand.Read(id[:])
	return writeFile(path, hex.EncodeToString(id[:])+"\n")
}

func replaceByLink(path, target string) error {
	if current, err := os.Readlink(path); err == nil && current == target {
		return nil
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

func writeFile(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const kubeletPath = "/usr/local/bin/sandbar-kubelet"

// Kernel settings of the whole machine that the kubelet would change, and the values it wants to read. A file with
// that value is put over each of them, so that a sandbox does not change how its host overcommits memory or panics.
var shieldedKernelSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// becomeKubelet runs in a mount namespace of its own, in which /proc alone is not shared. Pods see the real one: with
// anything mounted over its files, the kernel would not let user namespaces mount a /proc at all.
func becomeKubelet() error {
	if err := unix.Mount("", "/proc", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep /proc apart: %w", err)
	}
	if err := shieldKernelSettings(); err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", kubeletPath, syscall.Exec(kubeletPath, []string{kubeletPath}, os.Environ()))
}

func shieldKernelSettings() error {
	for name, value := range shieldedKernelSettings {
		target := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		source := filepath.Join("/run/sandbar/sysctl", strings.ReplaceAll(name, "/", "."))
		if err := writeFile(source, value+"\n"); err != nil {
			return err
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("shield %s: %w", target, err)
		}
	}
	return nil
}

package container

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capability names one Linux capability by its number.
type Capability uint

// NetBindService lets a process listen on ports below 1024.
const NetBindService Capability = unix.CAP_NET_BIND_SERVICE

// KeepCapabilities gives up every capability but the named ones, on all threads and for good: no_new_privs keeps a
// child process from getting them back, although the process still runs as user 0. It works in programs built
// with CGO_ENABLED=0 only, since the Go runtime does not know the threads that C code starts.
func KeepCapabilities(kept ...Capability) error {
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	sets := capabilitySets(kept)
	err := onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0)
	if err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

func capabilitySets(kept []Capability) *[2]unix.CapUserData {
	var sets [2]unix.CapUserData
	for _, capability := range kept {
		bit := uint32(1) << (capability % 32)
		sets[capability/32].Effective |= bit
		sets[capability/32].Permitted |= bit
	}
	return &sets
}

//go:uintptrescapes
func onAllThreads(trap, a1, a2, a3 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

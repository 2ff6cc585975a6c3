package mounts

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// nodeThread runs functions, one after the other, in the mount namespace of the node. The kubelet's process has one of
// its own, whose mounts a container's runtime cannot bind.
type nodeThread struct {
	work chan func()
}

// startNodeThread joins the mount namespace at a path such as /proc/1/ns/mnt.
func startNodeThread(namespace string) (*nodeThread, error) {
	t := &nodeThread{work: make(chan func())}
	joined := make(chan error)
	go func() {
		// Never unlocked: no other goroutine may run on a thread that sees other mounts.
		runtime.LockOSThread()
		if err := joinMountNamespace(namespace); err != nil {
			joined <- fmt.Errorf("join %s: %w", namespace, err)
			return
		}
		joined <- nil
		for work := range t.work {
			work()
		}
	}()
	return t, <-joined
}

func joinMountNamespace(path string) error {
	namespace, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(namespace)
	// Root and working directory are shared between threads, which the kernel does not allow across namespaces.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(namespace, unix.CLONE_NEWNS)
}

// do returns when the function has run. It must not be called from such a function.
func (t *nodeThread) do(work func()) {
	done := make(chan struct{})
	t.work <- func() {
		defer close(done)
		work()
	}
	<-done
}

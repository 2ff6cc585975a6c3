package mounts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/mounts"
)

// mapping exchanges two owners in the view of a mount: what belongs to the folder's owner on the host belongs to the
// container's user there, and the other way round, so that every file has an owner on both sides.
type mapping struct {
	host      owner
	container owner
	namespace *os.File
}

// errNoMapping says that the kernel or the file system has no id-mapped mounts.
var errNoMapping = errors.New("no id-mapped mounts")

// newMapping makes the user namespace that carries the mapping; it lives as long as the descriptor.
func newMapping(host, container owner) (*mapping, error) {
	// It only has to be there until its namespace is open. Without a standard input that ends, it would not wait.
	holder := exec.Command("/bin/cat")
	stdin, err := holder.StdinPipe()
	if err != nil {
		return nil, err
	}
	holder.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER,
		UidMappings:                exchange(host.uid, container.uid),
		GidMappings:                exchange(host.gid, container.gid),
		GidMappingsEnableSetgroups: true,
	}
	if err := holder.Start(); err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
	stdin.Close()
	// Its end says nothing: in that namespace it may not even find its libraries readable.
	_ = holder.Wait()
	if err != nil {
		return nil, err
	}
	return &mapping{host: host, container: container, namespace: namespace}, nil
}

// apply gives a detached mount this view.
func (m *mapping) apply(descriptor int) error {
	attributes := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(m.namespace.Fd())}
	err := unix.MountSetattr(descriptor, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attributes)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoMapping, err)
	}
	return nil
}

const lastID = 1<<32 - 2

// exchange maps two ids to each other and every other one to itself. The inner id is the one on disk.
func exchange(first, second uint32) []syscall.SysProcIDMap {
	if first == second {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: lastID + 1}}
	}
	low, high := int(min(first, second)), int(max(first, second))
	ranges := []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: 0, Size: low},
		{ContainerID: low, HostID: high, Size: 1},
		{ContainerID: low + 1, HostID: low + 1, Size: high - low - 1},
		{ContainerID: high, HostID: low, Size: 1},
		{ContainerID: high + 1, HostID: high + 1, Size: lastID - high},
	}
	return slices.DeleteFunc(ranges, func(r syscall.SysProcIDMap) bool { return r.Size == 0 })
}

func (o owner) status() mounts.User {
	return mounts.User{UID: o.uid, GID: o.gid}
}

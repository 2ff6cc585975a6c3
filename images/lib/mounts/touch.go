package mounts

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Touch raises file events for a file or folder below a root without changing it: IN_ATTRIB, by setting its mode to what
// it is, and for a file IN_CLOSE_WRITE too, by opening it for writing. It is for changes that the kernel here was not
// told of. No symbolic link is followed out of the root.
func Touch(root, path string) error {
	folder, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	descriptor := folder
	if path != "" && path != "." {
		if descriptor, err = unix.Openat2(folder, path, &how); err != nil {
			return err
		}
		defer unix.Close(descriptor)
	}
	var stat unix.Stat_t
	if err := unix.Fstatat(descriptor, "", &stat, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	// Times that are set to what they were could undo those of a write that happens just now; a mode cannot.
	self := fmt.Sprintf("/proc/self/fd/%d", descriptor)
	if stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	if err := unix.Chmod(self, stat.Mode&0o7777); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	opened, err := unix.Open(self, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(opened)
}

package mounts

import "golang.org/x/sys/unix"

// Touch raises file events for a file or folder without changing it: IN_ATTRIB, by setting its times to what they are,
// and for a file IN_CLOSE_WRITE too, by opening it for writing. It is for changes that the kernel here was not told of.
func Touch(path string) error {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{stat.Atim, stat.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	descriptor, err := unix.Open(path, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(descriptor)
}

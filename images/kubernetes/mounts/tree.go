package mounts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// folder is a folder or file of the host as it was handed over, attached where only the node itself sees it. Everything
// that pods see is a clone of it.
type folder struct {
	// Its root, by which what is to be mounted inside finds its points: writable, with the host's owners.
	root   int
	path   string
	device uint64
	inode  uint64
	owner  owner
	// As it is called in messages.
	fileSystem string
	// Left by an earlier process, without what was mounted inside of it: the next handover takes its place.
	isTakenOver bool
}

type owner struct{ uid, gid uint32 }

// stage attaches a detached mount at a path of its own below a private mount.
func stage(descriptor int, path string) (*folder, error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(descriptor, "", &stat, unix.AT_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	if err := makeMountPoint(path, stat.Mode&unix.S_IFMT != unix.S_IFDIR); err != nil {
		return nil, err
	}
	if err := unix.MoveMount(descriptor, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("attach %s: %w", path, err)
	}
	root, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &folder{
		root: root, path: path, device: stat.Dev, inode: stat.Ino, owner: owner{stat.Uid, stat.Gid},
		fileSystem: fileSystemOf(path),
	}, nil
}

func (f *folder) release() error {
	unix.Close(f.root)
	if err := unmountAll(f.path); err != nil {
		return err
	}
	return os.Remove(f.path)
}

// clone returns a detached mount of the folder, as a container's user is to see it.
func (f *folder) clone(mapping *mapping, isReadOnly bool) (int, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_EMPTY_PATH
	descriptor, err := unix.OpenTree(f.root, "", flags)
	if err != nil {
		return -1, fmt.Errorf("clone %s: %w", f.path, err)
	}
	attributes := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if isReadOnly {
		attributes.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(descriptor, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attributes); err != nil {
		unix.Close(descriptor)
		return -1, fmt.Errorf("set attributes of %s: %w", f.path, err)
	}
	if mapping != nil {
		if err := mapping.apply(descriptor); err != nil {
			unix.Close(descriptor)
			return -1, err
		}
	}
	return descriptor, nil
}

// place is a point at which a folder appears. Containers get a clone of the point itself, with what is mounted there, and
// not of what is mounted there alone: so what is mounted later reaches all of them. Points inside of other mounts are in
// folders that pods and the user rearrange at will: everything is done by descriptors, and nothing by path.
type place struct {
	// The bare directory or file, below everything that is mounted there.
	point int
	// The root of what is mounted there, or -1.
	top int
	// Which folder that is, seen how.
	folder  *folder
	mapping *mapping
	// What is kept of the container's image: excluded path → root of the mount there.
	kept map[string]int
}

// openPlace makes a place at a path of the node's own, which nothing may be mounted on yet.
func openPlace(path string, isFile bool) (*place, error) {
	if err := makeMountPoint(path, isFile); err != nil {
		return nil, err
	}
	point, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &place{point: point, top: -1}, nil
}

// shows tells whether the place shows this folder this way.
func (p *place) shows(folder *folder, mapping *mapping) bool {
	return p.top >= 0 && p.folder == folder && p.mapping == mapping
}

// show mounts a folder at the place, in exchange for what is there. `inside` mounts what belongs inside, when the folder
// is attached and what was there still covers it, on kernels that can do so (6.5); elsewhere the place is bare for a
// moment.
func (p *place) show(folder *folder, mapping *mapping, isReadOnly bool, inside func(top int) error) error {
	descriptor, err := folder.clone(mapping, isReadOnly)
	if err != nil {
		return err
	}
	const exactly = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	isExchanged := p.top >= 0 && unix.MoveMount(descriptor, "", p.top, "", exactly|moveMountBeneath) == nil
	if !isExchanged {
		if err := p.clear(); err != nil {
			unix.Close(descriptor)
			return err
		}
		if err := unix.MoveMount(descriptor, "", p.point, "", exactly); err != nil {
			unix.Close(descriptor)
			return fmt.Errorf("mount: %w", err)
		}
	}
	insideErr := inside(descriptor)
	if isExchanged {
		if err := p.clear(); err != nil {
			unix.Close(descriptor)
			return err
		}
	}
	p.top, p.folder, p.mapping = descriptor, folder, mapping
	return insideErr
}

// cloneForContainer returns a detached mount of the point, with what is mounted there.
func (p *place) cloneForContainer() (int, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_EMPTY_PATH
	descriptor, err := unix.OpenTree(p.point, "", flags)
	if err != nil {
		return -1, err
	}
	// What is mounted at the place later reaches the container, and never the other way round.
	attributes := unix.MountAttr{Propagation: unix.MS_SLAVE}
	if err := unix.MountSetattr(descriptor, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attributes); err != nil {
		unix.Close(descriptor)
		return -1, err
	}
	return descriptor, nil
}

// clear unmounts what is at the place, with what is mounted inside of that.
func (p *place) clear() error {
	if p.top < 0 {
		return nil
	}
	err := unmountDescriptor(p.top)
	unix.Close(p.top)
	p.top, p.folder = -1, nil
	return err
}

// close unmounts what is at the place and forgets it.
func (p *place) close() error {
	err := p.clear()
	unix.Close(p.point)
	p.point = -1
	return err
}

// forget lets go of a place whose mount goes with another one.
func (p *place) forget() {
	if p.top >= 0 {
		unix.Close(p.top)
	}
	unix.Close(p.point)
	p.top, p.point = -1, -1
}

// isAt tells whether a mount, given by its root, is what is found below another one.
func isAt(top int, below string, descriptor int) bool {
	if descriptor <= 0 {
		return false
	}
	found, err := openBelow(top, below)
	if err != nil {
		return false
	}
	defer unix.Close(found)
	foundID, err := mountIDOf(found)
	if err != nil {
		return false
	}
	id, err := mountIDOf(descriptor)
	return err == nil && id == foundID
}

// attachBelow attaches a detached mount below another one.
func attachBelow(top int, below string, descriptor int) error {
	point, err := openBelow(top, below)
	if err != nil {
		return err
	}
	defer unix.Close(point)
	return unix.MoveMount(descriptor, "", point, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// moveMountBeneath mounts below what is on top of the target (Linux 6.5; not in golang.org/x/sys yet).
const moveMountBeneath = 0x200

func makeMountPoint(path string, isFile bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if !isFile {
		if err := os.Mkdir(path, 0o755); err == nil || errors.Is(err, fs.ErrExist) && isDirectory(path) {
			return nil
		}
		// The mount was of a file before.
		os.Remove(path)
		return os.Mkdir(path, 0o755)
	}
	if isDirectory(path) {
		os.Remove(path)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

func isDirectory(path string) bool {
	entry, err := os.Lstat(path)
	return err == nil && entry.IsDir()
}

// unmountAll takes away everything that is mounted at a path of the node's own.
func unmountAll(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			// Nothing is mounted there (any more).
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// unmountDescriptor takes away the mount that a descriptor is the root of, wherever it is by now.
func unmountDescriptor(descriptor int) error {
	err := unix.Unmount(pathOfDescriptor(descriptor), unix.MNT_DETACH)
	// The kernel has done so already, if the folder that it was mounted on was removed.
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount: %w", err)
	}
	return nil
}

func pathOfDescriptor(descriptor int) string {
	return fmt.Sprintf("/proc/self/fd/%d", descriptor)
}

// isMountPoint tells whether something is mounted at a path.
func isMountPoint(path string) bool {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &stat)
	return err == nil && stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// mountIDOf names the mount that a descriptor belongs to.
func mountIDOf(descriptor int) (uint64, error) {
	var stat unix.Statx_t
	err := unix.Statx(descriptor, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stat)
	return stat.Mnt_id, err
}

// madePoint is a folder or empty file that was made in a folder of the host to mount something on.
type madePoint struct {
	around int
	name   string
	isFile bool
}

// remove removes the point unless the user has put something there.
func (m madePoint) remove() {
	defer unix.Close(m.around)
	if !m.isFile {
		// Only an empty folder goes.
		unix.Unlinkat(m.around, m.name, unix.AT_REMOVEDIR)
		return
	}
	var stat unix.Stat_t
	if unix.Fstatat(m.around, m.name, &stat, unix.AT_SYMLINK_NOFOLLOW) == nil && stat.Size == 0 {
		unix.Unlinkat(m.around, m.name, 0)
	}
}

// makePointBelow makes what is missing of a path below a folder, as the folder's owner would, and returns the last part
// if it made that. No symbolic link may lead out of the folder.
func makePointBelow(root int, below string, isFile bool) (*madePoint, error) {
	around, err := unix.Openat(root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	names := strings.Split(filepath.Clean(below), "/")
	for i, name := range names {
		isLast := i == len(names)-1
		next, err := openBelow(around, name)
		isMade := errors.Is(err, unix.ENOENT)
		if isMade {
			if err = makeOwned(around, name, isFile && isLast); err == nil {
				next, err = openBelow(around, name)
			}
		}
		if err == nil && isLast {
			err = requireType(next, isFile)
			unix.Close(next)
			if err == nil && isMade {
				return &madePoint{around, name, isFile}, nil
			}
		}
		unix.Close(around)
		if err != nil || isLast {
			return nil, err
		}
		around = next
	}
	return nil, nil
}

func requireType(descriptor int, isFile bool) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(descriptor, "", &stat, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	switch isDirectory := stat.Mode&unix.S_IFMT == unix.S_IFDIR; {
	case isFile && isDirectory:
		return errors.New("it is a folder, and a file cannot be mounted there")
	case !isFile && !isDirectory:
		return errors.New("it is a file, and only a folder can be there")
	}
	return nil
}

// openBelow opens a path below a folder, as far as nothing leads out of it.
func openBelow(folder int, path string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	descriptor, err := unix.Openat2(folder, path, &how)
	for errors.Is(err, unix.EAGAIN) {
		// A rename ran beside the look-up.
		descriptor, err = unix.Openat2(folder, path, &how)
	}
	return descriptor, err
}

// makeOwned makes a folder or an empty file that belongs to whom the folder around it belongs to.
func makeOwned(folder int, name string, isFile bool) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(folder, "", &stat, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if isFile {
		file, err := unix.Openat(folder, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		unix.Close(file)
	} else if err := unix.Mkdirat(folder, name, 0o755); err != nil {
		return err
	}
	return unix.Fchownat(folder, name, int(stat.Uid), int(stat.Gid), unix.AT_SYMLINK_NOFOLLOW)
}

func fileSystemOf(path string) string {
	var stat unix.Statfs_t
	if unix.Statfs(path, &stat) != nil {
		return ""
	}
	if name, isKnown := fileSystems[int64(stat.Type)]; isKnown {
		return name
	}
	return fmt.Sprintf("0x%x", uint32(stat.Type))
}

var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.XFS_SUPER_MAGIC:       "xfs",
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.NFS_SUPER_MAGIC:       "nfs",
	unix.V9FS_MAGIC:            "9p",
	unix.FUSE_SUPER_MAGIC:      "fuse",
	unix.F2FS_SUPER_MAGIC:      "f2fs",
	0x2fc12fc1:                 "zfs",
	0x6a656a63:                 "virtiofs",
}

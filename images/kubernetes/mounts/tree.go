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

// folder is a folder or file of the host as it was handed over, attached where only this process sees it. Everything
// that pods see is a clone of it.
type folder struct {
	path   string
	device uint64
	inode  uint64
	owner  owner
	// Left by an earlier process, without what was mounted inside of it: the next handover takes its place.
	isTakenOver bool
}

type owner struct{ uid, gid uint32 }

// stage attaches a detached mount below directory, which must be private, and takes the place of what is there.
func stage(descriptor int, path string) (*folder, error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(descriptor, "", &stat, unix.AT_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	if err := unstage(path); err != nil {
		return nil, err
	}
	if err := makeMountPoint(path, stat.Mode&unix.S_IFMT != unix.S_IFDIR); err != nil {
		return nil, err
	}
	if err := unix.MoveMount(descriptor, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("attach %s: %w", path, err)
	}
	return &folder{path: path, device: stat.Dev, inode: stat.Ino, owner: owner{stat.Uid, stat.Gid}}, nil
}

func unstage(path string) error {
	if err := unmountAll(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// clone returns a detached mount of the folder, as the container's user is to see it.
func (f *folder) clone(mapping *mapping, isReadOnly bool) (int, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE
	descriptor, err := unix.OpenTree(unix.AT_FDCWD, f.path, flags)
	if err != nil {
		return -1, fmt.Errorf("clone %s: %w", f.path, err)
	}
	attributes := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if isReadOnly {
		attributes.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	// Kernels before 5.12 know no such call; there the folder keeps the attributes that it came with.
	err = unix.MountSetattr(descriptor, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attributes)
	if err != nil && (isReadOnly || !errors.Is(err, unix.ENOSYS)) {
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

// place is a point of the shared tree at which a folder appears. Containers get a clone of the point itself, with what is
// mounted there, and not of what is mounted there alone: so what is mounted later reaches all of them.
type place struct {
	path string
	// The bare directory or file, below everything that is mounted there.
	point int
	// The root of what is mounted there, or -1.
	top int
	// Which folder that is, seen how.
	folder  *folder
	mapping *mapping
	// Whether the point was made for the place, and is not a folder of the user's.
	isMade bool
}

// openPlace makes a place at path, which nothing may be mounted on yet.
func openPlace(path string, isFile bool) (*place, error) {
	if err := makeMountPoint(path, isFile); err != nil {
		return nil, err
	}
	point, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return placeAt(path, point, true), nil
}

// shows tells whether the place shows this folder this way.
func (p *place) shows(folder *folder, mapping *mapping) bool {
	return p.top >= 0 && p.folder == folder && p.mapping == mapping
}

// show mounts a folder at the place, in exchange for what is there. `before` runs when it is attached and what was there
// still covers it, on kernels that can do so (6.5); elsewhere the place is bare for a moment.
func (p *place) show(folder *folder, mapping *mapping, isReadOnly bool, before func(top int)) error {
	descriptor, err := folder.clone(mapping, isReadOnly)
	if err != nil {
		return err
	}
	isExchanged := false
	if p.top >= 0 {
		const beneath = unix.MOVE_MOUNT_F_EMPTY_PATH | moveMountBeneath
		isExchanged = unix.MoveMount(descriptor, "", unix.AT_FDCWD, p.path, beneath) == nil
		if !isExchanged {
			if err := unmountAll(p.path); err != nil {
				unix.Close(descriptor)
				return err
			}
		}
	}
	if !isExchanged {
		const exactly = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
		if err := unix.MoveMount(descriptor, "", p.point, "", exactly); err != nil {
			unix.Close(descriptor)
			return fmt.Errorf("mount at %s: %w", p.path, err)
		}
	}
	before(descriptor)
	if isExchanged {
		if err := unix.Unmount(p.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", p.path, err)
		}
	}
	p.forgetTop()
	p.top, p.folder, p.mapping = descriptor, folder, mapping
	return nil
}

// close unmounts what is at the place.
func (p *place) close() error {
	p.forgetTop()
	unix.Close(p.point)
	return unmountAll(p.path)
}

func (p *place) forgetTop() {
	if p.top >= 0 {
		unix.Close(p.top)
		p.top = -1
	}
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

// unmountAll takes away everything that is mounted at a path.
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

func placeAt(path string, point int, isMade bool) *place {
	return &place{path: path, point: point, top: -1, isMade: isMade}
}

// makePointBelow opens a point below a folder, making what is missing of it as the folder's owner would, and tells
// whether it made the last part. No symbolic link may lead out of the folder.
func makePointBelow(root int, below string, isFile bool) (point int, isMade bool, err error) {
	names := strings.Split(filepath.Clean(below), "/")
	folder, err := unix.Openat(root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false, err
	}
	for i, name := range names {
		isMade = false
		next, err := openBelow(folder, name)
		if errors.Is(err, unix.ENOENT) {
			isMade = true
			if err = makeOwned(folder, name, isFile && i == len(names)-1); err == nil {
				next, err = openBelow(folder, name)
			}
		}
		unix.Close(folder)
		if err != nil {
			return -1, false, err
		}
		folder = next
	}
	return folder, isMade, nil
}

func openBelow(folder int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	return unix.Openat2(folder, name, &how)
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

// isMountPoint tells whether something is mounted at a path.
func isMountPoint(path string) bool {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &stat)
	return err == nil && stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

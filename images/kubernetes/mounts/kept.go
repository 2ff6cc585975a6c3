package mounts

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// keeper holds what is excluded from mounts: the image's own content at that path, under an overlay that takes what
// containers write. It outlives containers and restarts; another image gets another one.
type keeper struct {
	// On a volume: MOUNT/IMAGE/PATH/{upper,work}, IMAGE and PATH as hashes.
	directory string
	// On a tmpfs, with the same names: where it is mounted. MOUNT/IMAGE/image is the image itself.
	mounts string
}

// keptContainer is the container that gets it.
type keptContainer struct {
	rootfs string
	user   owner
	// Name of its image, for node file systems without overlays.
	image string
}

// keptImages is for how many images without a container written content is kept; rolling back finds it again.
const keptImages = 3

// snapshots is where containerd's overlay snapshotter keeps layers; long lists of them are relative to it.
const snapshots = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"

// imageHash names a container's image by its layers; by its name where the node's file system has none.
func (c keptContainer) imageHash(layers []string) string {
	if len(layers) == 0 {
		return shortHash(c.image)
	}
	return shortHash(strings.Join(layers, ":"))
}

// mountOf is where on the node an image's content at an excluded path is mounted, writable.
func (k keeper) mountOf(id, image, excluded string) string {
	return filepath.Join(k.mounts, id, layersPart(image), shortHash(excluded))
}

// viewerImage names what containers of an image see instead of excluded paths.
func viewerImage(layersHash string, family []record) string {
	var paths []string
	for _, r := range family {
		for _, excluded := range r.excluded {
			paths = append(paths, filepath.Join(r.target, excluded))
		}
	}
	slices.Sort(paths)
	return layersHash + "." + shortHash(strings.Join(paths, "\x00"))
}

// layersPart is the part of it that only names the image.
func layersPart(image string) string {
	layers, _, _ := strings.Cut(image, ".")
	return layers
}

// open mounts the image's content at the excluded paths of a mount, where it is not mounted yet.
func (k keeper) open(r record, image string, layers []string, container keptContainer) error {
	for _, excluded := range r.excluded {
		merged := k.mountOf(r.id, image, excluded)
		if isMountPoint(merged) {
			continue
		}
		target := filepath.Join(r.target, excluded)
		stored := filepath.Join(k.directory, r.id, layersPart(image), shortHash(excluded))
		if err := k.mount(target, stored, merged, layers, container); err != nil {
			return fmt.Errorf("keep the image's %s: %w", target, err)
		}
	}
	now := time.Now()
	return os.Chtimes(filepath.Join(k.directory, r.id, layersPart(image)), now, now)
}

func (k keeper) mount(target, stored, merged string, layers []string, container keptContainer) error {
	view := container.rootfs
	if len(layers) > 0 {
		var err error
		if view, err = viewImage(filepath.Join(filepath.Dir(merged), "image"), layers); err != nil {
			return err
		}
	}
	content, err := openContent(view, target)
	if err != nil {
		return err
	}
	if content != nil {
		defer content.Close()
	}
	if err := os.MkdirAll(merged, 0o755); err != nil {
		return err
	}
	if len(layers) > 0 && content != nil {
		return mountOver(content, stored, merged)
	}
	return mountCopy(content, stored, merged, container.user)
}

// mountOver puts an overlay over the content, which takes what is written.
func mountOver(content *os.File, stored, merged string) error {
	upper, work := filepath.Join(stored, "upper"), filepath.Join(stored, "work")
	var stat unix.Stat_t
	if err := unix.Fstatat(int(content.Fd()), "", &stat, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	// The mode and the owner of this folder are what containers see at the path.
	if err := makeFolder(upper, owner{stat.Uid, stat.Gid}, stat.Mode&0o7777, func(string) error { return nil }); err != nil {
		return err
	}
	if err := os.MkdirAll(work, 0o700); err != nil {
		return err
	}
	// Through its descriptor, since a path of the user's may hold what separates options.
	options := fmt.Sprintf("lowerdir=/proc/self/fd/%d,upperdir=%s,workdir=%s", content.Fd(), upper, work)
	return unix.Mount("overlay", merged, "overlay", 0, options)
}

// mountCopy mounts a copy of the content; an empty folder of the container's user where there is none.
func mountCopy(content *os.File, stored, merged string, user owner) error {
	copied := filepath.Join(stored, "upper")
	err := makeFolder(copied, user, 0o755, func(made string) error {
		if content == nil {
			return nil
		}
		command := exec.Command("cp", "--archive", "/proc/self/fd/3/.", made)
		command.ExtraFiles = []*os.File{content}
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("copy: %w: %s", err, output)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return unix.Mount(copied, merged, "", unix.MS_BIND, "")
}

// makeFolder makes a folder that is there only once it is complete.
func makeFolder(path string, owner owner, mode uint32, fill func(path string) error) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	made := path + ".new"
	if err := os.RemoveAll(made); err != nil {
		return err
	}
	if err := os.MkdirAll(made, 0o755); err != nil {
		return err
	}
	if err := os.Chown(made, int(owner.uid), int(owner.gid)); err != nil {
		return err
	}
	if err := unix.Chmod(made, mode); err != nil {
		return err
	}
	if err := fill(made); err != nil {
		return err
	}
	return os.Rename(made, path)
}

// viewImage mounts an image's layers, read-only.
func viewImage(path string, layers []string) (string, error) {
	if isMountPoint(path) {
		return path, nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	if len(layers) == 1 {
		// An overlay has at least two.
		return path, unix.Mount(layers[0], path, "", unix.MS_BIND|unix.MS_RDONLY, "")
	}
	return path, mountLayers(layers, path)
}

// mountLayers names the layers one by one, so that their number is not limited by the length of one text.
func mountLayers(layers []string, path string) error {
	context, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	defer unix.Close(context)
	for _, layer := range layers {
		if err := unix.FsconfigSetString(context, "lowerdir+", layer); err != nil {
			// Before Linux 6.5 there is only the whole text.
			return unix.Mount("overlay", path, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(layers, ":"))
		}
	}
	if err := unix.FsconfigCreate(context); err != nil {
		return fmt.Errorf("overlay of %d layers: %w", len(layers), err)
	}
	descriptor, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return fmt.Errorf("overlay of %d layers: %w", len(layers), err)
	}
	defer unix.Close(descriptor)
	return unix.MoveMount(descriptor, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// openContent opens a path of the image as a container would find it; nil where the image has no folder there.
func openContent(view, target string) (*os.File, error) {
	root, err := unix.Open(view, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	descriptor, err := unix.Openat2(root, target, &how)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(descriptor), target), nil
}

// forgetOldImages removes what was written over images that no container has and that have not been used for long.
func (k keeper) forgetOldImages(mountID string, isUsed func(layersHash string) bool) {
	directory := filepath.Join(k.directory, mountID)
	images := slices.DeleteFunc(namesIn(directory), isUsed)
	slices.SortFunc(images, func(a, b string) int {
		return modified(filepath.Join(directory, b)).Compare(modified(filepath.Join(directory, a)))
	})
	for _, image := range images[min(keptImages, len(images)):] {
		k.removeImage(filepath.Join(mountID, image))
	}
}

func (k keeper) remove(mountID string) {
	for _, image := range append(namesIn(filepath.Join(k.directory, mountID)), namesIn(filepath.Join(k.mounts, mountID))...) {
		k.removeImage(filepath.Join(mountID, image))
	}
	os.Remove(filepath.Join(k.directory, mountID))
	os.Remove(filepath.Join(k.mounts, mountID))
}

func (k keeper) removeImage(name string) {
	mounted := filepath.Join(k.mounts, name)
	for _, path := range namesIn(mounted) {
		logError(unmountAll(filepath.Join(mounted, path)), "unmount what was kept", name)
		os.Remove(filepath.Join(mounted, path))
	}
	os.Remove(mounted)
	logError(os.RemoveAll(filepath.Join(k.directory, name)), "remove what was kept", name)
}

// retain removes what belongs to mounts that are gone.
func (k keeper) retain(isKnown func(mountID string) bool) {
	for _, id := range namesIn(k.directory) {
		if !isKnown(id) {
			k.remove(id)
		}
	}
}

// layersOf reads from the mount table which layers a container's root file system lies on, the highest first; none
// where it is no overlay.
func layersOf(rootfs string) ([]string, error) {
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseLayers(string(table), rootfs), nil
}

func parseLayers(table, rootfs string) []string {
	var layers []string
	for line := range strings.Lines(table) {
		before, after, _ := strings.Cut(line, " - ")
		fields, details := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(details) < 3 || fields[4] != rootfs || details[0] != "overlay" {
			continue
		}
		// The last one in the table is on top.
		layers = nil
		for option := range strings.SplitSeq(details[2], ",") {
			name, value, _ := strings.Cut(option, "=")
			if name == "lowerdir" || name == "lowerdir+" {
				for layer := range strings.SplitSeq(value, ":") {
					if !filepath.IsAbs(layer) {
						layer = filepath.Join(snapshots, layer)
					}
					layers = append(layers, layer)
				}
			}
		}
	}
	return layers
}

func modified(path string) time.Time {
	entry, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return entry.ModTime()
}

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/mounts"
)

// These tests mount for real, in mount namespaces of their own; that takes root.

func TestAReplacedFolderReachesPodsThatRun(t *testing.T) {
	n := newNode(t)
	n.record(record{id: "a", path: "src"})
	n.write("src/file", "first")
	n.give("a", "src")
	pod := n.startPod("a", owner{})
	pod.expect(t, "file", "first")
	later := func() {
		n.rename("src", "old")
		n.write("src/file", "second")
		n.give("a", "src")
	}
	later()
	pod.expect(t, "file", "second")
	younger := n.startPod("a", owner{})
	n.rename("src", "older")
	n.write("src/file", "third")
	n.give("a", "src")
	pod.expect(t, "file", "third")
	younger.expect(t, "file", "third")
	if got := n.mountsAt(filepath.Join(n.service.directory, "a")); got != 1 {
		t.Errorf("%d mounts are stacked at the place, want 1", got)
	}
}

func TestAPodThatStartsFirstSeesTheFolderOnceItComes(t *testing.T) {
	n := newNode(t)
	n.record(record{id: "a", path: "src"})
	var place *place
	n.service.node.do(func() { place = n.service.places[placeKey{id: "a"}] })
	pod := n.startPodAt(place)
	n.write("src/file", "here")
	n.give("a", "src")
	pod.expect(t, "file", "here")
}

func TestASingleFileThatAnEditorReplacesIsTheNewOne(t *testing.T) {
	n := newNode(t)
	n.record(record{id: "a", path: "file", isFile: true})
	n.write("file", "first")
	n.give("a", "file")
	pod := n.startPod("a", owner{})
	for i := range 20 {
		n.write("file.new", fmt.Sprint(i))
		n.rename("file.new", "file")
		n.give("a", "file")
		pod.expect(t, "", fmt.Sprint(i))
	}
}

func TestAMountInsideOfAnotherAppearsInPodsThatRun(t *testing.T) {
	n := newNode(t)
	n.record(record{id: "app", path: "app", target: "/app"})
	n.write("app/file", "app")
	n.give("app", "app")
	pod := n.startPod("app", owner{})
	n.write("lib/file", "lib")
	n.record(record{id: "lib", path: "lib", target: "/app/vendor/lib", parent: "app"})
	n.give("lib", "lib")
	pod.expect(t, "vendor/lib/file", "lib")

	// The outer folder is replaced: the inner one has to follow.
	n.rename("app", "old")
	n.write("app/file", "new app")
	n.give("app", "app")
	pod.expect(t, "file", "new app")
	pod.expect(t, "vendor/lib/file", "lib")

	n.service.node.do(func() { n.service.removeRecord("lib") })
	if _, err := os.Stat(filepath.Join(n.source, "app/vendor/lib")); err == nil {
		t.Error("the folder that was made to mount on is left on the host")
	}
}

func TestFilesBelongToTheOwnerOnTheHost(t *testing.T) {
	n := newNode(t)
	n.record(record{id: "a", path: "src"})
	n.write("src/file", "x")
	chown(t, filepath.Join(n.source, "src"), 1234, 1235)
	n.give("a", "src")
	pod := n.startPod("a", owner{500, 501})
	pod.do(func(root string) {
		if got := ownerOf(t, root); got != (owner{500, 501}) {
			t.Errorf("the pod's user sees the folder as %v's", got)
		}
		if err := os.WriteFile(filepath.Join(root, "made"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(root, "made"), 500, 501); err != nil {
			t.Fatal(err)
		}
	})
	if got := ownerOf(t, filepath.Join(n.source, "src/made")); got != (owner{1234, 1235}) {
		t.Errorf("on the host the new file is %v's", got)
	}
	status := n.service.List()[0]
	if status.Ownership != "mapped" || !slices.Equal(status.Users, []mounts.User{{UID: 500, GID: 501}}) {
		t.Errorf("got %+v", status)
	}
}

func TestWhatIsExcludedHoldsTheImagesContentAndWhatWasWritten(t *testing.T) {
	n := newNode(t)
	rootfs := n.startImage("first", map[string]string{"app/modules/a": "of the image"})
	n.record(record{id: "a", path: "src", target: "/app", excluded: []string{"modules"}})
	n.write("src/file", "x")
	n.give("a", "src")
	pod := n.startPrepared(rootfs, "a", "/app")
	pod.expect(t, "modules/a", "of the image")
	pod.do(func(root string) {
		if err := os.WriteFile(filepath.Join(root, "modules/b"), []byte("written"), 0o644); err != nil {
			t.Error(err)
		}
	})
	n.startPrepared(rootfs, "a", "/app").expect(t, "modules/b", "written")
	other := n.startPrepared(n.startImage("second", map[string]string{"app/modules/a": "of another"}), "a", "/app")
	other.do(func(root string) {
		if names := namesIn(filepath.Join(root, "modules")); !slices.Equal(names, []string{"a"}) {
			t.Errorf("with another image: got %v", names)
		}
	})
	other.expect(t, "modules/a", "of another")
	if names := namesIn(filepath.Join(n.source, "src/modules")); len(names) > 0 {
		t.Errorf("on the host: %v", names)
	}

	n.rename("src", "old")
	n.write("src/file", "new")
	n.give("a", "src")
	pod.expect(t, "file", "new")
	pod.expect(t, "modules/b", "written")
	n.restart()
	n.record(record{id: "a", path: "src", target: "/app", excluded: []string{"modules"}})
	n.rename("src", "older")
	n.write("src/file", "newer")
	n.give("a", "src")
	pod.expect(t, "file", "newer")
	pod.expect(t, "modules/b", "written")
}

func TestWhatWasWrittenOverExcludedPathsCanBeDiscarded(t *testing.T) {
	n := newNode(t)
	rootfs := n.startImage("first", map[string]string{"app/modules/a": "of the image"})
	for _, id := range []string{"a", "kept"} {
		n.record(record{id: id, path: "src", target: "/app", namespace: id, excluded: []string{"modules"}})
	}
	n.write("src/file", "x")
	write := func(id string) *pod {
		n.give(id, "src")
		pod := n.startPrepared(rootfs, id, "/app")
		pod.do(func(root string) {
			if err := os.WriteFile(filepath.Join(root, "modules/b"), []byte("written"), 0o644); err != nil {
				t.Error(err)
			}
		})
		return pod
	}
	write("a").stop()
	running := write("kept")
	n.service.node.do(func() { n.service.discardWritten([]string{"kept"}) })
	n.startPrepared(rootfs, "a", "/app").do(func(root string) {
		if names := namesIn(filepath.Join(root, "modules")); !slices.Equal(names, []string{"a"}) {
			t.Errorf("got %v", names)
		}
	})
	running.expect(t, "modules/b", "written")
	n.startPrepared(rootfs, "kept", "/app").expect(t, "modules/b", "written")
}

func TestNothingOutsideOfAFolderIsTouchedWhenAMountInsideGoes(t *testing.T) {
	n := newNode(t)
	victim := t.TempDir()
	if err := os.WriteFile(filepath.Join(victim, "lib"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.record(record{id: "app", path: "app", target: "/app"})
	n.write("app/file", "app")
	n.give("app", "app")
	n.write("conf", "lib")
	n.record(record{id: "lib", path: "conf", target: "/app/vendor/lib", parent: "app", isFile: true})
	n.give("lib", "conf")
	pod := n.startPod("app", owner{})
	pod.expect(t, "vendor/lib", "lib")
	n.rename("app/vendor", "app/moved")
	if err := os.Symlink(victim, filepath.Join(n.source, "app/vendor")); err != nil {
		t.Fatal(err)
	}
	n.service.node.do(func() { n.service.removeRecord("lib") })
	if _, err := os.Stat(filepath.Join(victim, "lib")); err != nil {
		t.Error(err)
	}
	pod.expect(t, "moved/lib", "open "+filepath.Join(pod.root, "moved/lib")+": no such file or directory")
}

func TestWhatTheUserPutIntoAMadeFileStays(t *testing.T) {
	n := newNode(t)
	n.record(record{id: "app", path: "app", target: "/app"})
	n.write("app/file", "app")
	n.give("app", "app")
	n.write("conf", "mounted")
	n.record(record{id: "conf", path: "conf", target: "/app/conf", parent: "app", isFile: true})
	n.give("conf", "conf")
	n.write("app/conf", "of the user")
	n.service.node.do(func() { n.service.removeRecord("conf") })
	if got := read(filepath.Join(n.source, "app/conf")); got != "of the user" {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsMountedInsideComesBackWhenItsFolderWasRemoved(t *testing.T) {
	n := newNode(t)
	rootfs := n.startImage("first", map[string]string{"app/modules/a": "of the image"})
	n.record(record{id: "a", path: "src", target: "/app", excluded: []string{"modules"}})
	n.write("src/file", "x")
	n.write("src/modules/a", "of the host")
	n.give("a", "src")
	n.write("lib/file", "lib")
	n.record(record{id: "lib", path: "lib", target: "/app/lib", parent: "a"})
	n.give("lib", "lib")
	pod := n.startPrepared(rootfs, "a", "/app")
	pod.expect(t, "modules/a", "of the image")
	for _, removed := range []string{"src/modules", "src/lib"} {
		if err := os.RemoveAll(filepath.Join(n.source, removed)); err != nil {
			t.Fatal(err)
		}
	}
	n.write("src/modules/a", "of the host again")
	n.service.node.do(n.service.heal)
	pod.expect(t, "modules/a", "of the image")
	pod.expect(t, "lib/file", "lib")
	n.startPrepared(rootfs, "a", "/app").expect(t, "modules/a", "of the image")
}

func TestAReadOnlyMountCanHaveOthersInside(t *testing.T) {
	n := newNode(t)
	rootfs := n.startImage("first", map[string]string{"app/modules/a": "of the image"})
	n.record(record{id: "a", path: "src", target: "/app", isReadOnly: true, excluded: []string{"modules"}})
	n.write("src/file", "x")
	n.give("a", "src")
	pod := n.startPreparedWith(rootfs, "a", "/app", "ro")
	pod.expect(t, "modules/a", "of the image")
	n.write("lib/file", "lib")
	n.record(record{id: "lib", path: "lib", target: "/app/lib", parent: "a"})
	n.give("lib", "lib")
	pod.expect(t, "lib/file", "lib")
	n.rename("src", "old")
	n.write("src/file", "y")
	n.give("a", "src")
	pod.do(func(root string) {
		if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing: %v", err)
		}
		if err := os.WriteFile(filepath.Join(root, "lib/file"), []byte("written"), 0o644); err != nil {
			t.Error(err)
		}
	})
}

func TestAnExcludedFileKeepsTheContainerFromStarting(t *testing.T) {
	n := newNode(t)
	rootfs := n.startImage("first", nil)
	n.record(record{id: "a", path: "src", target: "/app", excluded: []string{".env", "modules"}})
	n.write("src/.env", "secret")
	n.give("a", "src")
	if _, err := n.prepare(rootfs, "a", "/app", "rw"); err == nil || !strings.Contains(err.Error(), ".env: it is a file") {
		t.Errorf("got %v", err)
	}
}

func TestOtherExclusionsAreForContainersToCome(t *testing.T) {
	n := newNode(t)
	rootfs := n.startImage("first", map[string]string{"app/a/f": "a of the image", "app/b/f": "b of the image"})
	n.record(record{id: "a", path: "src", target: "/app", excluded: []string{"a"}})
	n.write("src/a/f", "a of the host")
	n.write("src/b/f", "b of the host")
	n.give("a", "src")
	older := n.startPrepared(rootfs, "a", "/app")
	older.expect(t, "b/f", "b of the host")
	n.record(record{id: "a", path: "src", target: "/app", excluded: []string{"a", "b"}})
	n.startPrepared(rootfs, "a", "/app").expect(t, "b/f", "b of the image")
	older.expect(t, "a/f", "a of the image")
}

func TestPlacesGoWithTheirContainers(t *testing.T) {
	n := newNode(t)
	n.record(record{id: "a", path: "src", target: "/app", excluded: []string{"modules"}})
	n.write("src/file", "x")
	n.give("a", "src")
	var pods []*pod
	for i := range 6 {
		rootfs := n.startImage(fmt.Sprint(i), map[string]string{"app/modules/a": fmt.Sprint(i)})
		directory, err := n.prepare(rootfs, "a", "/app", "rw")
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, n.startPodOf(directory))
		if i > 0 {
			// All but the first end.
			os.RemoveAll(directory)
		}
	}
	// The node's own, the first pod's, and the last one's, which is not swept yet.
	n.service.node.do(func() {
		if got := len(n.service.places); got != 3 {
			t.Errorf("%d places, want 3", got)
		}
	})
	pods[0].expect(t, "modules/a", "0")
	pods[0].do(func(root string) {
		if err := os.WriteFile(filepath.Join(root, "modules/b"), nil, 0o644); err != nil {
			t.Error(err)
		}
	})
}

func TestAnotherSourceIsAwaited(t *testing.T) {
	n := newNode(t)
	n.record(record{id: "a", path: "src"})
	n.write("src/file", "first")
	n.give("a", "src")
	if _, err := n.service.Wait([]string{"a=/src"}, 0); err != nil {
		t.Error(err)
	}
	if _, err := n.service.Wait([]string{"a=/other"}, 0); err == nil {
		t.Error("the wrong source counts as attached")
	}
	n.record(record{id: "a", path: "other"})
	if _, err := n.service.Wait([]string{"a"}, 0); err == nil || !strings.Contains(err.Error(), "another source") {
		t.Errorf("got %v", err)
	}
	n.write("other/file", "second")
	n.give("a", "other")
	if _, err := n.service.Wait([]string{"a=/other"}, 0); err != nil {
		t.Error(err)
	}
}

func TestAProcessTakesOverWhatAnEarlierOneLeft(t *testing.T) {
	n := newNode(t)
	n.record(record{id: "a", path: "src"})
	n.write("src/file", "first")
	n.give("a", "src")
	n.restart()
	n.record(record{id: "a", path: "src"})
	if status := n.service.List()[0]; status.State != attached {
		t.Errorf("got %+v", status)
	}
	n.give("a", "src")
	n.startPod("a", owner{}).expect(t, "file", "first")
}

func TestNothingIsLeftWhenAMountIsRemoved(t *testing.T) {
	n := newNode(t)
	n.write("src/file", "x")
	before := n.mountTable()
	for range 5 {
		n.record(record{id: "a", path: "src"})
		n.give("a", "src")
		n.startPod("a", owner{7, 7}).stop()
		n.service.node.do(func() { n.service.removeRecord("a") })
	}
	if after := n.mountTable(); after != before {
		t.Errorf("left behind: before\n%s\nafter\n%s", before, after)
	}
	var names []string
	n.service.node.do(func() { names = namesIn(n.service.directory) })
	if len(names) > 1 || (len(names) == 1 && names[0] != usersDirectory) {
		t.Errorf("left behind: %v", names)
	}
}

func TestAStateSaysWhatIsMissing(t *testing.T) {
	n := newNode(t)
	if _, err := n.service.Wait([]string{"a"}, 0); err == nil || !strings.Contains(err.Error(), "have not been read") {
		t.Errorf("got %v", err)
	}
	n.service.node.do(n.service.synced)
	n.record(record{id: "a", path: "src", source: "/home/u/src"})
	if _, err := n.service.Wait([]string{"a"}, 0); err == nil || !strings.Contains(err.Error(), "mount container for /home/u/src") {
		t.Errorf("got %v", err)
	}
	n.write("src/file", "x")
	n.give("a", "src")
	n.service.node.do(func() {
		n.service.handOver("", mounts.Handover{ID: "a", State: mounts.Missing, Detail: "it is not there any more", Descriptor: -1})
	})
	if status := n.service.List()[0]; status.State != "stale" || !strings.Contains(status.Detail, "/home/u/src") {
		t.Errorf("got %+v", status)
	}
}

func TestOwnersAreExchangedAndEveryOtherStays(t *testing.T) {
	for _, pair := range [][2]uint32{{0, 1000}, {1000, 0}, {1000, 1001}, {5, 5}, {0, lastID}} {
		inner := map[int]int{}
		size := 0
		for _, r := range exchange(pair[0], pair[1]) {
			inner[r.ContainerID] = r.HostID
			size += r.Size
		}
		if size != lastID+1 {
			t.Errorf("%v: %d ids are mapped", pair, size)
		}
		if pair[0] != pair[1] && (inner[int(pair[0])] != int(pair[1]) || inner[int(pair[1])] != int(pair[0])) {
			t.Errorf("%v: got %v", pair, inner)
		}
	}
}

func TestLayersAreReadFromTheMountTable(t *testing.T) {
	table := "1 2 0:1 / /b/rootfs rw - overlay overlay rw,lowerdir=7/fs:/x/6/fs,upperdir=/u,workdir=/w\n" +
		"3 2 0:1 / /c/rootfs rw - overlay overlay rw,lowerdir+=/1/fs,lowerdir+=/2/fs,upperdir=/u\n"
	if got, want := parseLayers(table, "/b/rootfs"), []string{snapshots + "/7/fs", "/x/6/fs"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := parseLayers(table, "/c/rootfs"), []string{"/1/fs", "/2/fs"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPollingFindsWhatChanged(t *testing.T) {
	now, later := time.Unix(1, 0), time.Unix(2, 0)
	known := map[string]stamp{".": {now, 0}, "a": {now, 1}, "b": {now, 1}}
	if got := changedPaths(nil, known); len(got) > 0 {
		t.Errorf("the first look: %v", got)
	}
	found := map[string]stamp{".": {now, 0}, "a": {later, 1}, "c": {now, 1}}
	got := changedPaths(known, found)
	slices.Sort(got)
	if want := []string{".", "a", "c"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// node is a mount namespace with a Service in it, and a folder of the host beside it.
type node struct {
	t         *testing.T
	service   *Service
	source    string
	directory string
	namespace string
}

func newNode(t *testing.T) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	n := &node{t: t, directory: t.TempDir()}
	ready := make(chan error)
	end := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		n.namespace = fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid())
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", n.directory, "tmpfs", 0, "")
		}
		if err == nil {
			err = unix.Mount("", n.directory, "", unix.MS_SHARED, "")
		}
		ready <- err
		<-end
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(end) })
	// Outside of that namespace: what is given comes from another one.
	n.source = t.TempDir()
	n.restart()
	return n
}

func (n *node) restart() {
	n.t.Helper()
	var err error
	n.service, err = New(Directories{
		Namespace: n.namespace,
		Places:    filepath.Join(n.directory, "places"), Kept: filepath.Join(n.directory, "kept"),
		Staging: filepath.Join(n.directory, "staging"), KeptMounts: filepath.Join(n.directory, "kept-mounts"),
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) record(r record) {
	n.service.node.do(func() { n.service.setRecord(r) })
}

func (n *node) give(id, path string) {
	n.t.Helper()
	descriptor, err := unix.OpenTree(unix.AT_FDCWD, filepath.Join(n.source, path), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		n.t.Fatal(err)
	}
	n.service.node.do(func() {
		n.service.handOver("", mounts.Handover{ID: id, State: mounts.Present, Descriptor: descriptor})
	})
	for _, status := range n.service.List() {
		if status.ID == id && status.State != attached {
			n.t.Fatalf("%+v", status)
		}
	}
}

func (n *node) write(path, content string) {
	n.t.Helper()
	file := filepath.Join(n.source, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) rename(from, to string) {
	n.t.Helper()
	if err := os.Rename(filepath.Join(n.source, from), filepath.Join(n.source, to)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) mountTable() string {
	var table []byte
	n.service.node.do(func() { table, _ = os.ReadFile("/proc/thread-self/mounts") })
	return string(table)
}

func (n *node) mountsAt(path string) int {
	return strings.Count(n.mountTable(), " "+path+" ")
}

// startImage mounts a root file system as containerd does, over one layer with these files, and one below.
func (n *node) startImage(name string, files map[string]string) string {
	n.t.Helper()
	directory := filepath.Join(n.directory, "images", name)
	rootfs := filepath.Join(directory, "bundle", "rootfs")
	n.service.node.do(func() {
		for _, sub := range []string{"layer", "below", "upper", "work"} {
			if err := os.MkdirAll(filepath.Join(directory, sub), 0o755); err != nil {
				n.t.Error(err)
			}
		}
		for path, content := range files {
			file := filepath.Join(directory, "layer", path)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				n.t.Error(err)
			}
			if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
				n.t.Error(err)
			}
		}
		if err := os.MkdirAll(rootfs, 0o755); err != nil {
			n.t.Error(err)
		}
		options := strings.ReplaceAll("lowerdir=D/layer:D/below,upperdir=D/upper,workdir=D/work", "D", directory)
		if err := unix.Mount("overlay", rootfs, "overlay", 0, options); err != nil {
			n.t.Error(err)
		}
	})
	return rootfs
}

// startPrepared has a bundle with one live mount prepared, and starts a pod with what it gets.
func (n *node) startPrepared(rootfs, id, destination string) *pod {
	n.t.Helper()
	return n.startPreparedWith(rootfs, id, destination, "rw")
}

func (n *node) startPreparedWith(rootfs, id, destination, mode string) *pod {
	n.t.Helper()
	directory, err := n.prepare(rootfs, id, destination, mode)
	if err != nil {
		n.t.Fatal(err)
	}
	changed := read(filepath.Join(directory, "config.json"))
	for _, want := range []string{"9223372036854775807", `"hooks":{"createContainer":[{"args":["sandbar-agent","mounts","attach"`} {
		if !strings.Contains(changed, want) {
			n.t.Errorf("%s is not in %s", want, changed)
		}
	}
	return n.startPodOf(directory)
}

// prepare has a bundle with one live mount prepared, which lies where the test's own process sees it.
func (n *node) prepare(rootfs, id, destination, mode string) (directory string, err error) {
	n.t.Helper()
	content := fmt.Sprintf(`{"ociVersion":"1.2.1","process":{"user":{"uid":0,"gid":0},"args":["x"]},"annotations":{},`+
		`"mounts":[{"destination":%q,"source":%q,"type":"bind","options":["rbind",%q]},{"destination":"/proc","source":"proc"}],`+
		`"linux":{"resources":{"memory":{"limit":9223372036854775807}}}}`, destination, filepath.Join(n.service.directory, id), mode)
	directory = n.t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "config.json"), []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return directory, n.service.prepare(directory, rootfs)
}

func (n *node) startPodOf(bundle string) *pod {
	n.t.Helper()
	var place *place
	n.service.node.do(func() {
		if all := n.service.prepared[bundle]; len(all) == 1 {
			place = n.service.places[all[0].key]
		}
	})
	if place == nil {
		n.t.Fatalf("%s was not prepared", bundle)
	}
	return n.startPodAt(place)
}

// pod is a mount namespace below the node's, as a container's: what is mounted on the node reaches it, not the reverse.
type pod struct {
	thread *nodeThread
	root   string
}

func (n *node) startPod(id string, user owner) *pod {
	n.t.Helper()
	var place *place
	var err error
	n.service.node.do(func() { place, err = n.service.placeFor(placeKey{id, viewer{isContainer: true, owner: user}}) })
	if err != nil {
		n.t.Fatal(err)
	}
	return n.startPodAt(place)
}

func (n *node) startPodAt(place *place) *pod {
	n.t.Helper()
	var descriptor int
	var err error
	var isFile bool
	n.service.node.do(func() {
		descriptor, err = place.cloneForContainer()
		var stat unix.Stat_t
		isFile = unix.Fstat(place.point, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFREG
	})
	if err != nil {
		n.t.Fatal(err)
	}
	defer unix.Close(descriptor)
	thread, err := startNodeThread(n.namespace)
	if err != nil {
		n.t.Fatal(err)
	}
	p := &pod{thread: thread, root: filepath.Join(n.t.TempDir(), "root")}
	thread.do(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return
		}
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return
		}
		if err = makeMountPoint(p.root, isFile); err != nil {
			return
		}
		err = unix.MoveMount(descriptor, "", unix.AT_FDCWD, p.root, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(p.stop)
	return p
}

func (p *pod) do(work func(root string)) {
	p.thread.do(func() { work(p.root) })
}

func (p *pod) expect(t *testing.T, path, content string) {
	t.Helper()
	p.do(func(root string) {
		if got := read(filepath.Join(root, path)); got != content {
			t.Errorf("in the pod %s is %q, want %q", path, got, content)
		}
	})
}

func (p *pod) stop() {
	if p.thread != nil {
		p.thread.do(func() { unix.Unmount(p.root, unix.MNT_DETACH) })
		p.thread = nil
	}
}

func read(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

func ownerOf(t *testing.T, path string) owner {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return owner{stat.Uid, stat.Gid}
}

func chown(t *testing.T, directory string, uid, gid int) {
	t.Helper()
	err := filepath.WalkDir(directory, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

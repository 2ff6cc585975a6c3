package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/mounts"
)

const (
	entryEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE
	ownEvents   = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
)

// watcher says when a look at the wanted paths, or at the agent's socket, is worth it.
type watcher struct {
	file    *os.File
	changed chan struct{}

	lock sync.Mutex
	// Watch → the names in that folder that matter.
	names map[int32]map[string]bool
	// Folder → its watch.
	watches map[string]int32
	meeting int32
	// The root has another name on the host, and what has its name is another folder.
	isRootMoved bool
}

func (w *watcher) isRootGone() bool {
	w.lock.Lock()
	defer w.lock.Unlock()
	return w.isRootMoved
}

func newWatcher() (*watcher, error) {
	descriptor, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &watcher{
		file:    os.NewFile(uintptr(descriptor), "inotify"),
		changed: make(chan struct{}, 1),
		names:   map[int32]map[string]bool{},
		watches: map[string]int32{},
		meeting: -1,
	}
	go w.read()
	return w, nil
}

func (w *watcher) watchMeetingDirectory() error {
	w.lock.Lock()
	defer w.lock.Unlock()
	if w.meeting >= 0 {
		return nil
	}
	watch, err := w.add(mounts.MeetingDirectory, unix.IN_CREATE|unix.IN_MOVED_TO)
	if err != nil {
		return err
	}
	w.meeting = watch
	w.names[watch] = map[string]bool{mounts.SocketName: true}
	return nil
}

// watch follows exactly these paths from now on. A folder on the way that is missing is found by its parent's watch,
// which is set first: so none that is made meanwhile is missed.
func (w *watcher) watch(wanted []mounts.Wanted) {
	w.lock.Lock()
	defer w.lock.Unlock()
	needed := map[string]map[string]bool{rootPath: {}}
	for _, wantedPath := range wanted {
		for folder, name := range chainOf(wantedPath.Path) {
			if needed[folder] == nil {
				needed[folder] = map[string]bool{}
			}
			needed[folder][name] = true
		}
	}
	watches := map[string]int32{}
	names := map[int32]map[string]bool{w.meeting: w.names[w.meeting]}
	// By name, every folder comes after those that it lies in.
	for _, folder := range slices.Sorted(maps.Keys(needed)) {
		// Set again each time: a folder of the same name may be another one by now.
		watch, err := w.add(folder, entryEvents|ownEvents)
		if err != nil {
			continue
		}
		watches[folder] = watch
		if names[watch] == nil {
			names[watch] = map[string]bool{}
		}
		// Two paths may lead to one folder.
		maps.Copy(names[watch], needed[folder])
	}
	for _, old := range w.watches {
		if names[old] == nil {
			unix.InotifyRmWatch(int(w.file.Fd()), uint32(old))
		}
	}
	w.watches, w.names = watches, names
}

func (w *watcher) add(folder string, events uint32) (int32, error) {
	watch, err := unix.InotifyAddWatch(int(w.file.Fd()), folder, events)
	if err != nil {
		return -1, fmt.Errorf("watch %s: %w", folder, err)
	}
	return int32(watch), nil
}

func (w *watcher) read() {
	buffer := make([]byte, 4096)
	for {
		n, err := w.file.Read(buffer)
		if err != nil {
			return
		}
		if w.matters(buffer[:n]) {
			select {
			case w.changed <- struct{}{}:
			default:
				// A look is due already.
			}
		}
	}
}

func (w *watcher) matters(events []byte) bool {
	w.lock.Lock()
	defer w.lock.Unlock()
	matters := false
	for len(events) >= unix.SizeofInotifyEvent {
		event := (*unix.InotifyEvent)(unsafe.Pointer(&events[0]))
		end := unix.SizeofInotifyEvent + int(event.Len)
		name := bytes.TrimRight(events[unix.SizeofInotifyEvent:end], "\x00")
		events = events[end:]
		if event.Mask&unix.IN_MOVE_SELF != 0 && event.Wd == w.watches[rootPath] {
			w.isRootMoved = true
		}
		if event.Mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_Q_OVERFLOW) != 0 || w.names[event.Wd][string(name)] {
			matters = true
		}
	}
	return matters
}

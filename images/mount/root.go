package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/mounts"
)

// root is the folder that the container binds, and what was handed over from below it on this connection.
type root struct {
	descriptor int
	wanted     []mounts.Wanted
	sent       map[string]finding
}

// finding tells whether a path leads to what it led to before.
type finding struct {
	path   string
	state  mounts.State
	device uint64
	inode  uint64
}

func openRoot() (*root, error) {
	descriptor, err := unix.Open(rootPath, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", rootPath, err)
	}
	return &root{descriptor: descriptor, sent: map[string]finding{}}, nil
}

func (r *root) close() {
	unix.Close(r.descriptor)
}

func (r *root) want(wanted []mounts.Wanted) {
	r.wanted = wanted
	kept := map[string]finding{}
	for _, w := range wanted {
		if sent, isKnown := r.sent[w.ID]; isKnown && sent.path == w.Path {
			kept[w.ID] = sent
		}
	}
	r.sent = kept
}

// isGone tells whether the root itself was removed on the host: nothing below it will ever come back here.
func (r *root) isGone() bool {
	var stat unix.Stat_t
	return unix.Fstat(r.descriptor, &stat) != nil || stat.Nlink == 0
}

// handOver sends what has changed since the last time. Watches are set before a path is looked at, so that no change
// falls between.
func (r *root) handOver(connection *net.UnixConn, watcher *watcher) error {
	watcher.watch(r.wanted)
	for _, wanted := range r.wanted {
		descriptor, found, detail := r.open(wanted.Path)
		if found == r.sent[wanted.ID] {
			closeAll(descriptor)
			continue
		}
		handover := mounts.Handover{ID: wanted.ID, State: found.state, Detail: detail, Descriptor: -1}
		if found.state == mounts.Present {
			var err error
			if handover.Descriptor, err = cloneMount(descriptor); err != nil {
				found.state, handover.State, handover.Detail = mounts.Failed, mounts.Failed, fmt.Sprintf("open_tree: %v", err)
			}
		}
		err := mounts.SendHandover(connection, handover)
		closeAll(descriptor, handover.Descriptor)
		if err != nil {
			return err
		}
		r.sent[wanted.ID] = found
	}
	return nil
}

// open looks a path up below the root. The command line has resolved symbolic links; one that is there now was put there
// since, perhaps by a pod, and would lead to something that nobody asked for.
func (r *root) open(path string) (descriptor int, found finding, detail string) {
	found = finding{path: path, state: mounts.Present}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	descriptor, err := unix.Openat2(r.descriptor, path, &how)
	for errors.Is(err, unix.EAGAIN) {
		// A rename ran beside the look-up.
		descriptor, err = unix.Openat2(r.descriptor, path, &how)
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		found.state = mounts.Missing
		return -1, found, "it is not there any more"
	case errors.Is(err, unix.ELOOP):
		found.state = mounts.Failed
		return -1, found, "a symbolic link has taken its place, or that of a folder around it: mount what it leads to"
	case err != nil:
		found.state = mounts.Failed
		return -1, found, err.Error()
	}
	var stat unix.Stat_t
	if err := unix.Fstat(descriptor, &stat); err != nil {
		found.state = mounts.Failed
		return descriptor, found, err.Error()
	}
	found.device, found.inode = stat.Dev, stat.Ino
	return descriptor, found, ""
}

// cloneMount makes a detached mount of what a descriptor stands for, with everything that is mounted below.
func cloneMount(descriptor int) (int, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_EMPTY_PATH
	return unix.OpenTree(descriptor, "", flags)
}

func closeAll(descriptors ...int) {
	for _, descriptor := range descriptors {
		if descriptor >= 0 {
			unix.Close(descriptor)
		}
	}
}

// chainOf lists the folders in which a change can mean that another file is found at a path: the root and those on the
// way, each with the name that is looked up in it.
func chainOf(path string) map[string]string {
	chain := map[string]string{}
	if path == "." {
		return chain
	}
	folder := rootPath
	for name := range strings.SplitSeq(filepath.Clean(path), "/") {
		chain[folder] = name
		folder = filepath.Join(folder, name)
	}
	return chain
}

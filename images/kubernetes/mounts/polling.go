package mounts

import (
	"io/fs"
	"path/filepath"
	"time"

	"sandbar.dev/lib/mounts"
)

// Where no file events come from the host, files are looked at over and over: at most one part in pollShare of the time,
// and no more often than once in shortestPoll.
const (
	shortestPoll = time.Second
	pollShare    = 20
)

// stamp tells whether a file has changed.
type stamp struct {
	modified time.Time
	size     int64
}

// poll starts to look at a mount, or stops it, as its record says.
func (s *Service) poll(r record) {
	isWanted := r.events == "polling"
	if _, isPolled := s.polls[r.id]; isPolled == isWanted {
		return
	}
	if !isWanted {
		s.stopPolling(r.id)
		return
	}
	stop := make(chan struct{})
	s.polls[r.id] = stop
	go s.pollFiles(r.id, stop)
}

func (s *Service) stopPolling(id string) {
	if stop, isPolled := s.polls[id]; isPolled {
		close(stop)
		delete(s.polls, id)
	}
}

func (s *Service) pollFiles(id string, stop <-chan struct{}) {
	var known map[string]stamp
	var lastRoot string
	for {
		started := time.Now()
		var root string
		var excluded []string
		s.node.do(func() {
			r := s.records[id]
			root, excluded = s.pathOf(r), r.excluded
		})
		if root != lastRoot {
			known, lastRoot = nil, root
		}
		found := stampsBelow(root, excluded)
		for _, path := range changedPaths(known, found) {
			// Gone again, or not ours to write: there is nobody to tell.
			_ = mounts.Touch(root, path)
		}
		known = found
		select {
		case <-stop:
			return
		case <-time.After(max(shortestPoll, pollShare*time.Since(started))):
		}
	}
}

// stampsBelow looks at every file, by its path below the root.
func stampsBelow(root string, excluded []string) map[string]stamp {
	skipped := map[string]bool{".git": true}
	for _, path := range excluded {
		skipped[filepath.Clean(path)] = true
	}
	found := map[string]stamp{}
	// What vanishes meanwhile is found missing by the next look.
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		below, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if skipped[below] {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if info, err := entry.Info(); err == nil {
			found[below] = stamp{info.ModTime(), info.Size()}
		}
		return nil
	})
	return found
}

// changedPaths lists what is new or different, and for what is gone the folder that it was in. The first look finds
// everything, and nothing changed.
func changedPaths(known, found map[string]stamp) []string {
	if known == nil {
		return nil
	}
	var changed []string
	for path, now := range found {
		if before, isKnown := known[path]; !isKnown || before != now {
			changed = append(changed, path)
		}
	}
	for path := range known {
		if _, isFound := found[path]; !isFound {
			if folder := filepath.Dir(path); found[folder] == known[folder] {
				changed = append(changed, folder)
			}
		}
	}
	return changed
}

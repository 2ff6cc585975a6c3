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
	go pollFiles(s.pathOf(r), r.excluded, stop)
}

func (s *Service) stopPolling(id string) {
	if stop, isPolled := s.polls[id]; isPolled {
		close(stop)
		delete(s.polls, id)
	}
}

func pollFiles(root string, excluded []string, stop <-chan struct{}) {
	var known map[string]stamp
	for {
		started := time.Now()
		found := stampsBelow(root, excluded)
		for _, path := range changedPaths(known, found) {
			// Gone again, or not ours to write: there is nobody to tell.
			_ = mounts.Touch(path)
		}
		known = found
		select {
		case <-stop:
			return
		case <-time.After(max(shortestPoll, pollShare*time.Since(started))):
		}
	}
}

func stampsBelow(root string, excluded []string) map[string]stamp {
	skipped := map[string]bool{filepath.Join(root, ".git"): true}
	for _, path := range excluded {
		skipped[filepath.Join(root, path)] = true
	}
	found := map[string]stamp{}
	// What vanishes meanwhile is found missing by the next look.
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if skipped[path] {
			return fs.SkipDir
		}
		if info, err := entry.Info(); err == nil {
			found[path] = stamp{info.ModTime(), info.Size()}
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

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
)

// Files beside etcd's own directory, on the same volume.
const (
	dataDirectory = "data"
	// What resets go back to, in the format of etcd's snapshots.
	goldenFile = "golden.db"
	// Objects that became complete only after that.
	settledFile = "settled.json"
	// There from before the first start until the golden copy is written.
	firstStartFile = "first-start"
	// There from before etcd opens its files until it has.
	unprovenFile = "unproven"
	// Put there by the command line: the next start is to begin from the golden copy.
	startOverFile = "start-over"
	// A snapshot of the user's that is to be restored, put there by the command line.
	restoreFile = "restore.db"
	// The datastore as it was when its writes were held, for the command line to fetch.
	snapshotFile = "snapshot.db"

	// Added to what was the last revision: more than what can have been written since it was read from the disk.
	revisionGap = 1_000_000
)

// damagedError says that the datastore's files cannot be used.
type damagedError struct{ cause error }

// Error names the ways out.
func (e damagedError) Error() string {
	return fmt.Sprintf("the datastore is damaged: %v", e.cause)
}

// prepare brings the files into the state in which etcd is to open them.
func (d *datastore) prepare() error {
	d.removeLeftovers()
	if isThere(d.path(startOverFile)) {
		if err := d.startOver(); err != nil {
			return fmt.Errorf("start over: %w", err)
		}
	}
	data := d.path(dataDirectory)
	if !isThere(data) {
		if err := os.WriteFile(d.path(firstStartFile), nil, 0o600); err != nil {
			return err
		}
	}
	d.isFirstStart = isThere(d.path(firstStartFile))
	// The last start did not get as far as this one now has to.
	if isThere(d.path(unprovenFile)) {
		err := check(data)
		switch {
		case err != nil && d.isFirstStart:
			// Nobody has written anything yet: it was killed while it made its files.
			if err := os.RemoveAll(data); err != nil {
				return err
			}
		case err != nil:
			return damagedError{err}
		}
	}
	return os.WriteFile(d.path(unprovenFile), nil, 0o600)
}

// removeLeftovers removes what killed processes were writing.
func (d *datastore) removeLeftovers() {
	for _, pattern := range []string{goldenFile + ".*", snapshotFile + "*", settledFile + ".*", dataDirectory + ".new"} {
		found, _ := filepath.Glob(d.path(pattern))
		for _, path := range found {
			_ = os.RemoveAll(path)
		}
	}
}

// startOver puts the golden copy in the datastore's place. Killed anywhere, the next start does it again, until
// finishStartOver has done the rest.
func (d *datastore) startOver() error {
	data, made, old := d.path(dataDirectory), d.path(dataDirectory+".new"), d.path(dataDirectory+".old")
	golden := d.path(goldenFile)
	if withDatabase(golden, readThrough) != nil {
		// Damaged too, or never made, as by an older version: everything is made anew, as on a first start.
		golden = databaseIn(filepath.Join(made, "empty"))
		if err := makeEmpty(filepath.Join(made, "empty")); err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile(d.path(firstStartFile), nil, 0o600), os.RemoveAll(d.path(settledFile))); err != nil {
			return err
		}
	}
	// Clients remember revisions, which therefore must not go back. Where the old ones cannot be read any more, the
	// clock is ahead of all that a cluster can have written since it was made.
	last := max(lastRevision(databaseIn(data)), lastRevision(databaseIn(old))) + revisionGap
	restored := filepath.Join(made, dataDirectory)
	if err := restoreCopy(golden, restored, max(last, time.Now().UnixMilli())); err != nil {
		return err
	}
	if isThere(data) && check(data) != nil {
		if err := os.Rename(data, d.path(fmt.Sprintf("damaged-%d", time.Now().Unix()))); err != nil {
			return err
		}
	}
	if isThere(data) {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
		if err := os.Rename(data, old); err != nil {
			return err
		}
	}
	if err := os.Rename(restored, data); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(old), os.RemoveAll(made))
}

// finishStartOver adds what the golden copy lacks. Most of it the cluster would make again, but not the Node: the
// kubelet, which has gone on meanwhile, makes one only when it starts.
func (d *datastore) finishStartOver(ctx context.Context) error {
	if !isThere(d.path(startOverFile)) {
		return nil
	}
	settled := d.settled()
	if err := forAll(ctx, slices.Collect(maps.Keys(settled)), func(ctx context.Context, key string) error {
		_, err := d.client.Put(ctx, key, string(settled[key]))
		return err
	}); err != nil {
		return fmt.Errorf("start over: %w", err)
	}
	return os.Remove(d.path(startOverFile))
}

func databaseIn(directory string) string { return filepath.Join(directory, "member", "snap", "db") }

func makeEmpty(directory string) error {
	etcd, err := startEtcd(directory)
	if err != nil {
		return err
	}
	etcd.Server.Backend().ForceCommit()
	etcd.Close()
	return nil
}

// check reads all of etcd's files.
func check(directory string) error {
	if err := withDatabase(databaseIn(directory), readThrough); err != nil {
		return fmt.Errorf("member/snap/db: %w", err)
	}
	// A log begins with such an entry. An end that is torn off is no damage: nothing in it was acknowledged.
	entries, err := wal.ValidSnapshotEntries(zap.NewNop(), filepath.Join(directory, "member", "wal"))
	if err == nil && len(entries) == 0 {
		err = errors.New("has no beginning")
	}
	if err != nil {
		return fmt.Errorf("member/wal: %w", err)
	}
	return nil
}

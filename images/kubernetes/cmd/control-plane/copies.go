package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.uber.org/zap"
)

// registryPrefix is where the API server keeps objects.
const registryPrefix = "/registry/"

// keyValues are the objects of a datastore, encoded as the API server stores them.
type keyValues map[string][]byte

// writeCopy writes all of the datastore to a file, in the format of etcd's snapshots.
func writeCopy(etcd *embed.Etcd, path string) error {
	backend := etcd.Server.Backend()
	backend.ForceCommit()
	copied := backend.Snapshot()
	defer copied.Close()
	return writeWhole(path, func(file io.Writer) error {
		_, err := copied.WriteTo(file)
		return err
	})
}

// writeWhole writes a file that is there whole, and on the disk, or not at all.
func writeWhole(path string, write func(io.Writer) error) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := write(file); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// readCopy returns the objects in a file that writeCopy wrote. Keys that expire, such as events, are left out: the
// time that they had is over.
func readCopy(path string) (keyValues, error) {
	found := keyValues{}
	err := withDatabase(path, func(transaction *bolt.Tx) error {
		keys := transaction.Bucket([]byte("key"))
		if keys == nil {
			return fmt.Errorf("holds no keys")
		}
		// In the order of revisions, so that the last word on a key is the newest.
		return keys.ForEach(func(revision, content []byte) error {
			var entry mvccpb.KeyValue
			if err := entry.Unmarshal(content); err != nil {
				return err
			}
			key := string(entry.Key)
			if !strings.HasPrefix(key, registryPrefix) {
				return nil
			}
			if mvcc.IsTombstone(revision) || entry.Lease != 0 {
				delete(found, key)
			} else {
				found[key] = entry.Value
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return found, nil
}

// lastRevision returns the newest revision in a database file, or 0 when it cannot be read.
func lastRevision(path string) (revision int64) {
	_ = withDatabase(path, func(transaction *bolt.Tx) error {
		if last, _ := transaction.Bucket([]byte("key")).Cursor().Last(); last != nil {
			revision = mvcc.BytesToRev(last).Main
		}
		return nil
	})
	return revision
}

// withDatabase reads a database file. A damaged one makes the library panic, or read beyond the end of the file.
func withDatabase(path string, read func(*bolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if failure := recover(); failure != nil {
			err = fmt.Errorf("unreadable: %v", failure)
		}
	}()
	entry, err := os.Stat(path)
	if err != nil {
		return err
	}
	database, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer database.Close()
	return database.View(func(transaction *bolt.Tx) error {
		if entry.Size() < transaction.Size() {
			return fmt.Errorf("%d bytes of %d are there", entry.Size(), transaction.Size())
		}
		return read(transaction)
	})
}

// readThrough reads every page that is in use. The library's own check does so in a goroutine of its own, whose panic
// would end the process.
func readThrough(transaction *bolt.Tx) error {
	return transaction.ForEach(func(_ []byte, bucket *bolt.Bucket) error {
		return bucket.ForEach(func([]byte, []byte) error { return nil })
	})
}

// restoreCopy makes a datastore's directory from a copy, with revisions that begin after lastRevision.
func restoreCopy(path, directory string, lastRevision int64) error {
	const peer = "http://localhost:2380"
	return snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath:        path,
		Name:                memberName,
		OutputDataDir:       directory,
		PeerURLs:            []string{peer},
		InitialCluster:      memberName + "=" + peer,
		InitialClusterToken: embed.NewConfig().InitialClusterToken,
		// A copy of the file has no hash of its own.
		SkipHashCheck: true,
		RevisionBump:  uint64(lastRevision),
		// What watchers know of is gone: they have to list again.
		MarkCompacted: true,
	})
}

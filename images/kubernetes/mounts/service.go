// Package mounts puts folders of the host into pods while the cluster runs. The command line records every mount in a
// ConfigMap; a mount container hands the folder over; this package makes it appear at its place, and at the places of
// all containers that have it, for as long as the record is there.
package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"sandbar.dev/lib/mounts"
)

// Service holds all mounts of the node.
type Service struct {
	// Below it every mount has its place, named by its id.
	directory string
	// Only this process sees what is mounted here.
	staging string
	kept    keeper

	// Everything below is touched, and every mount made, on this thread only.
	node     *nodeThread
	isSynced bool
	records  map[string]record
	givers   map[string]*giver
	found    map[string]finding
	folders  map[string]*folder
	places   map[placeKey]*place
	mappings map[[2]owner]*mapping
	// The file systems that have no id-mapped mounts, by mount.
	unmapped map[string]bool
	polls    map[string]chan struct{}
	// By bundle, between a container's preparation and its creation.
	prepared map[string][]prepared
	// Closed and made anew whenever something has changed.
	changed chan struct{}
}

// placeKey names a place: a mount as some containers see it.
type placeKey struct {
	id   string
	user viewer
}

// viewer is whom a place is for: containers of one user, or, with the zero value, whoever looks at the node itself,
// where files have the owners that they have on the host.
type viewer struct {
	isContainer bool
	owner
	isReadOnly bool
	// Hash of their image, where paths are excluded and hold the image's content.
	image string
}

// String is the name of the folder with the places of such containers.
func (v viewer) String() string {
	name := fmt.Sprintf("%d-%d", v.uid, v.gid)
	if v.isReadOnly {
		name += "-ro"
	}
	if v.image != "" {
		name += "@" + v.image
	}
	return name
}

func parseViewer(name string) (viewer, bool) {
	v := viewer{isContainer: true}
	name, v.image, _ = strings.Cut(name, "@")
	numbers, isReadOnly := strings.CutSuffix(name, "-ro")
	v.isReadOnly = isReadOnly
	n, err := fmt.Sscanf(numbers, "%d-%d", &v.uid, &v.gid)
	return v, err == nil && n == 2
}

// finding is what a mount container said last.
type finding struct {
	state  mounts.State
	detail string
}

// usersDirectory holds the places of containers.
const usersDirectory = ".users"

// Directories are where a Service works, and the mount namespace that they are in.
type Directories struct {
	Namespace string
	// Places of mounts, and what is kept of images: on a volume.
	Places, Kept string
	// On a tmpfs.
	Staging, KeptMounts string
}

// New prepares the folders that mounts are placed in. What an earlier process placed there is taken over.
func New(directories Directories) (*Service, error) {
	s := &Service{
		directory: directories.Places,
		staging:   directories.Staging,
		kept:      keeper{directory: directories.Kept, mounts: directories.KeptMounts},
		records:   map[string]record{},
		givers:    map[string]*giver{},
		found:     map[string]finding{},
		folders:   map[string]*folder{},
		places:    map[placeKey]*place{},
		mappings:  map[[2]owner]*mapping{},
		unmapped:  map[string]bool{},
		polls:     map[string]chan struct{}{},
		prepared:  map[string][]prepared{},
		changed:   make(chan struct{}),
	}
	var err error
	if s.node, err = startNodeThread(directories.Namespace); err != nil {
		return nil, err
	}
	s.node.do(func() {
		if err = s.prepareStaging(); err == nil {
			err = s.takeOver()
		}
	})
	return s, err
}

// prepareStaging makes a private mount: a clone of a shared one would share what is mounted on it later.
func (s *Service) prepareStaging() error {
	if err := os.MkdirAll(s.directory, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(s.staging, 0o700); err != nil {
		return err
	}
	// With all that an earlier process had there.
	if err := unmountAll(s.staging); err != nil {
		return err
	}
	if err := unix.Mount(s.staging, s.staging, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", s.staging, err)
	}
	if err := unix.Mount("", s.staging, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep %s private: %w", s.staging, err)
	}
	return nil
}

// takeOver makes places of what an earlier process left mounted. A place is known by a descriptor of the bare point,
// which can only be had while nothing is mounted there; so for a moment nothing is.
func (s *Service) takeOver() error {
	for _, id := range namesIn(s.directory) {
		if id == usersDirectory {
			continue
		}
		path := filepath.Join(s.directory, id)
		if !isMountPoint(path) {
			continue
		}
		// Without what is mounted inside: mounts of ours have places of their own.
		descriptor, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("take over %s: %w", path, err)
		}
		folder, err := stage(descriptor, filepath.Join(s.staging, id))
		unix.Close(descriptor)
		if err != nil {
			return fmt.Errorf("take over %s: %w", path, err)
		}
		folder.isTakenOver = true
		s.folders[id] = folder
		if err := unmountAll(path); err != nil {
			return err
		}
	}
	for _, user := range namesIn(filepath.Join(s.directory, usersDirectory)) {
		for _, id := range namesIn(filepath.Join(s.directory, usersDirectory, user)) {
			if err := unmountAll(filepath.Join(s.directory, usersDirectory, user, id)); err != nil {
				return err
			}
		}
	}
	return nil
}

// setRecord adds or changes a mount.
func (s *Service) setRecord(r record) {
	old, isKnown := s.records[r.id]
	if isKnown && (old.rootID != r.rootID || old.path != r.path) {
		// Another source: what was handed over stays until the new one is.
		delete(s.found, r.id)
	}
	if isKnown && (old.parent != r.parent || old.isFile != r.isFile || old.isReadOnly != r.isReadOnly) {
		s.closePlaces(r.id)
	}
	s.records[r.id] = r
	if r.parent == "" {
		s.openPlaces(r)
	}
	logError(s.showEverywhere(r.id), "show", r.id)
	if isKnown && old.rootID != r.rootID {
		s.tellGiver(old.rootID)
	}
	s.tellGiver(r.rootID)
	s.poll(r)
	s.announce()
}

// removeRecord takes a mount away from the node and from every container that has it.
func (s *Service) removeRecord(id string) {
	r, isKnown := s.records[id]
	if !isKnown {
		return
	}
	delete(s.records, id)
	s.tellGiver(r.rootID)
	s.forget(id)
	s.announce()
}

// synced says that every record there is has been set: what else lies on the node is left over.
func (s *Service) synced() {
	for _, id := range namesIn(s.directory) {
		if _, isKnown := s.records[id]; !isKnown && id != usersDirectory {
			s.forget(id)
			if err := unmountAll(filepath.Join(s.directory, id)); err == nil {
				os.Remove(filepath.Join(s.directory, id))
			}
		}
	}
	s.kept.retain(func(id string) bool { _, isKnown := s.records[id]; return isKnown })
	s.isSynced = true
	s.announce()
}

// forget takes away all that a mount left on the node.
func (s *Service) forget(id string) {
	s.stopPolling(id)
	delete(s.found, id)
	delete(s.unmapped, id)
	for _, child := range s.childrenOf(id) {
		s.closePlaces(child.id)
	}
	s.closePlaces(id)
	if folder := s.folders[id]; folder != nil {
		logError(unstage(folder.path), "release the folder", id)
		delete(s.folders, id)
	}
	s.kept.remove(id)
}

func (s *Service) closePlaces(id string) {
	var made []string
	for key, place := range s.places {
		if key.id != id {
			continue
		}
		logError(place.close(), "unmount", id)
		delete(s.places, key)
		if place.isMade {
			made = append(made, place.path)
		}
	}
	// Several places may lie on one folder of the host's, which goes when nothing is mounted there any more. One with
	// something in it stays: the user put that there.
	for _, path := range made {
		os.Remove(path)
	}
}

// handOver takes what a mount container found at a wanted path.
func (s *Service) handOver(handover mounts.Handover) {
	if handover.Descriptor >= 0 {
		defer unix.Close(handover.Descriptor)
	}
	if _, isKnown := s.records[handover.ID]; !isKnown {
		return
	}
	s.found[handover.ID] = finding{state: handover.State, detail: handover.Detail}
	if handover.State == mounts.Present {
		if err := s.replaceFolder(handover.ID, handover.Descriptor); err != nil {
			s.found[handover.ID] = finding{state: mounts.Failed, detail: err.Error()}
		}
	}
	s.announce()
}

func (s *Service) replaceFolder(id string, descriptor int) error {
	old := s.folders[id]
	var stat unix.Stat_t
	if err := unix.Fstatat(descriptor, "", &stat, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	// After a restart of the mount container: nobody shall notice.
	if old != nil && !old.isTakenOver && old.device == stat.Dev && old.inode == stat.Ino {
		return s.showEverywhere(id)
	}
	folder, err := stage(descriptor, filepath.Join(s.staging, id))
	if err != nil {
		return err
	}
	s.folders[id] = folder
	delete(s.unmapped, id)
	return s.showEverywhere(id)
}

// openPlaces makes the places of a mount that is not inside of another one.
func (s *Service) openPlaces(r record) {
	s.openPlace(placeKey{id: r.id}, filepath.Join(s.directory, r.id), r.isFile)
	for _, name := range namesIn(filepath.Join(s.directory, usersDirectory)) {
		path := filepath.Join(s.directory, usersDirectory, name, r.id)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		user, isViewer := parseViewer(name)
		if isViewer && s.isKept(r, user.image) {
			s.openPlace(placeKey{r.id, user}, path, r.isFile)
		} else {
			// Of before a restart of the node: no container of it is left.
			os.Remove(path)
		}
	}
}

// isKept tells whether all that containers of an image see instead of excluded paths is mounted.
func (s *Service) isKept(r record, image string) bool {
	for _, r := range s.withExclusions(r.id) {
		for _, excluded := range r.excluded {
			if !isMountPoint(s.kept.mountOf(r, image, excluded)) {
				return false
			}
		}
	}
	return true
}

func (s *Service) openPlace(key placeKey, path string, isFile bool) *place {
	if place := s.places[key]; place != nil {
		return place
	}
	place, err := openPlace(path, isFile)
	if err != nil {
		logError(err, "make a place", key.id)
		return nil
	}
	s.places[key] = place
	return place
}

// showEverywhere makes every place of a mount show what it should; with the mounts inside of it.
func (s *Service) showEverywhere(id string) error {
	r := s.records[id]
	if r.parent != "" {
		return s.showInParent(r)
	}
	var failures []error
	for key, place := range s.places {
		if key.id == id {
			failures = append(failures, s.showAt(r, key, place))
		}
	}
	return errors.Join(failures...)
}

func (s *Service) showAt(r record, key placeKey, place *place) error {
	folder := s.folders[r.id]
	if folder == nil {
		return nil
	}
	view, err := s.mappingFor(r.id, folder, key.user)
	if err != nil {
		return err
	}
	if place.shows(folder, view) {
		s.showChildren(r, key.user, place.top)
		return nil
	}
	isReadOnly := key.user.isReadOnly
	if r.parent != "" {
		// As volumes inside of volumes: each for itself.
		isReadOnly = r.isReadOnly
	}
	showInside := func(top int) {
		logError(s.kept.show(r, key.user.image, top), "show what is kept of the image", r.id)
		s.closeChildPlaces(r.id, key.user)
		s.showChildren(r, key.user, top)
	}
	err = place.show(folder, view, isReadOnly, showInside)
	if errors.Is(err, errNoMapping) {
		s.unmapped[r.id] = true
		err = place.show(folder, nil, isReadOnly, showInside)
	}
	return err
}

// showInParent places a mount inside of every place of its parent.
func (s *Service) showInParent(r record) error {
	var failures []error
	for key, place := range s.places {
		if key.id == r.parent && place.top >= 0 {
			failures = append(failures, s.showChild(r, key.user, place.top))
		}
	}
	return errors.Join(failures...)
}

func (s *Service) showChildren(parent record, user viewer, top int) {
	for _, child := range s.childrenOf(parent.id) {
		logError(s.showChild(child, user, top), "show inside of its parent", child.id)
	}
}

// showChild makes a mount appear below a parent's root. The mount point has to be there, as for any mount.
func (s *Service) showChild(child record, user viewer, parentTop int) error {
	if s.folders[child.id] == nil {
		return nil
	}
	key := placeKey{child.id, user}
	place := s.places[key]
	if place == nil {
		below := child.below(s.records[child.parent])
		point, isMade, err := makePointBelow(parentTop, below, child.isFile)
		if err != nil {
			return fmt.Errorf("make %s for the mount: %w", below, err)
		}
		path := filepath.Join(s.places[placeKey{child.parent, user}].path, below)
		place = placeAt(path, point, isMade)
		s.places[key] = place
	}
	return s.showAt(child, key, place)
}

// closeChildPlaces forgets the places inside of a folder that another one is about to replace.
func (s *Service) closeChildPlaces(id string, user viewer) {
	for _, child := range s.childrenOf(id) {
		s.closeChildPlaces(child.id, user)
		key := placeKey{child.id, user}
		if place := s.places[key]; place != nil {
			place.forgetTop()
			unix.Close(place.point)
			delete(s.places, key)
		}
	}
}

func (s *Service) childrenOf(id string) []record {
	var children []record
	for _, r := range s.records {
		if r.parent == id && r.id != id {
			children = append(children, r)
		}
	}
	slices.SortFunc(children, func(a, b record) int { return strings.Compare(a.target, b.target) })
	return children
}

func (s *Service) mappingFor(id string, folder *folder, user viewer) (*mapping, error) {
	if !user.isContainer || user.owner == folder.owner || s.unmapped[id] {
		return nil, nil
	}
	key := [2]owner{folder.owner, user.owner}
	if known := s.mappings[key]; known != nil {
		return known, nil
	}
	made, err := newMapping(folder.owner, user.owner)
	if err != nil {
		return nil, err
	}
	s.mappings[key] = made
	return made, nil
}

// Wait returns the state of mounts once all are attached, or says why one is not when the time is over.
func (s *Service) Wait(ids []string, timeout time.Duration) ([]mounts.Status, error) {
	deadline := time.After(timeout)
	for {
		var changed <-chan struct{}
		var missing *mounts.Status
		statuses := make([]mounts.Status, 0, len(ids))
		s.node.do(func() {
			changed = s.changed
			for _, id := range ids {
				status := s.status(id)
				if status.State != attached {
					missing = &status
				}
				statuses = append(statuses, status)
			}
		})
		if missing == nil {
			return statuses, nil
		}
		select {
		case <-changed:
		case <-deadline:
			return statuses, fmt.Errorf("%s is %s: %s", missing.ID, missing.State, missing.Detail)
		}
	}
}

// List returns the state of every mount.
func (s *Service) List() []mounts.Status {
	var statuses []mounts.Status
	s.node.do(func() {
		statuses = make([]mounts.Status, 0, len(s.records))
		for id := range s.records {
			statuses = append(statuses, s.status(id))
		}
	})
	slices.SortFunc(statuses, func(a, b mounts.Status) int { return strings.Compare(a.ID, b.ID) })
	return statuses
}

const attached = "attached"

func (s *Service) status(id string) mounts.Status {
	status := mounts.Status{ID: id, State: "waiting", Users: []mounts.User{}}
	r, isKnown := s.records[id]
	if !isKnown {
		status.Detail = "no mount of this name is recorded"
		if !s.isSynced {
			status.Detail = "the records of mounts have not been read yet"
		}
		return status
	}
	status.Path = s.pathOf(r)
	folder, found := s.folders[id], s.found[id]
	switch {
	case found.state == mounts.Failed:
		status.State, status.Detail = "failed", found.detail
	case folder != nil && found.state == mounts.Missing:
		status.State, status.Detail = "stale", fmt.Sprintf("%s: %s", r.source, found.detail)
	case folder != nil && s.isShown(id):
		status.State = attached
	case folder != nil:
		status.Detail = "the mount that it lies in is not attached"
	case found.state == mounts.Missing:
		status.Detail = fmt.Sprintf("%s: %s", r.source, found.detail)
	case s.givers[r.rootID] == nil:
		status.Detail = fmt.Sprintf("the mount container for %s is not there", r.source)
	default:
		status.Detail = fmt.Sprintf("%s is about to be handed over", r.source)
	}
	if folder != nil {
		status.FileSystem = fileSystemOf(folder.path)
		owner := folder.owner.status()
		status.Owner = &owner
		status.Ownership, status.Users = s.ownership(id, folder)
	}
	return status
}

func (s *Service) isShown(id string) bool {
	place := s.places[placeKey{id: id}]
	return place != nil && place.top >= 0
}

func (s *Service) ownership(id string, folder *folder) (string, []mounts.User) {
	users := []mounts.User{}
	ownership := ""
	for key := range s.places {
		if key.id != id || !key.user.isContainer {
			continue
		}
		if user := key.user.owner.status(); !slices.Contains(users, user) {
			users = append(users, user)
		}
		switch {
		case key.user.owner == folder.owner:
			if ownership == "" {
				ownership = "same"
			}
		case s.unmapped[id]:
			ownership = "unsupported"
		case ownership != "unsupported":
			ownership = "mapped"
		}
	}
	slices.SortFunc(users, func(a, b mounts.User) int { return int(a.UID) - int(b.UID) })
	return ownership, users
}

// pathOf is where the host's own view of a mount lies on the node.
func (s *Service) pathOf(r record) string {
	if parent, isKnown := s.records[r.parent]; isKnown {
		return filepath.Join(s.pathOf(parent), r.below(parent))
	}
	return filepath.Join(s.directory, r.id)
}

func (s *Service) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func namesIn(directory string) []string {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func logError(err error, what, id string) {
	if err != nil {
		klog.ErrorS(err, "Live mount: "+what, "mount", id)
	}
}

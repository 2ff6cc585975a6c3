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
	// Private: what is mounted here is seen by nothing else.
	staging string
	// Where the runtime keeps a folder for every container.
	bundles string
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
	// What was made in folders of the host to mount on, by mount.
	made map[string][]*madePoint
	// By bundle: what a container was prepared for, and, for as long as it is there, which places it has.
	prepared map[string][]prepared
	used     map[string][]placeKey
	// So that every folder is staged at a path of its own.
	handovers int
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
	// Where paths are excluded and hold the image's content: a hash of the image, and one of these paths.
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
	// On a tmpfs, which ends with the node.
	Staging, KeptMounts, Bundles string
}

// New prepares the folders that mounts are placed in. What an earlier process placed there is taken over.
func New(directories Directories) (*Service, error) {
	s := &Service{
		directory: directories.Places,
		staging:   directories.Staging,
		bundles:   directories.Bundles,
		kept:      keeper{directory: directories.Kept, mounts: directories.KeptMounts},
		records:   map[string]record{},
		givers:    map[string]*giver{},
		found:     map[string]finding{},
		folders:   map[string]*folder{},
		places:    map[placeKey]*place{},
		mappings:  map[[2]owner]*mapping{},
		unmapped:  map[string]bool{},
		polls:     map[string]chan struct{}{},
		made:      map[string][]*madePoint{},
		prepared:  map[string][]prepared{},
		used:      map[string][]placeKey{},
		changed:   make(chan struct{}),
	}
	var err error
	if s.node, err = startNodeThread(directories.Namespace); err != nil {
		return nil, err
	}
	s.node.do(func() {
		isNew := !isDirectory(s.staging)
		if err = s.prepareStaging(); err != nil {
			return
		}
		if isNew {
			s.removeOldPlaces()
		} else {
			s.takeOver()
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

// removeOldPlaces removes the places of containers that ended with the node's last life.
func (s *Service) removeOldPlaces() {
	s.eachUserPlace(func(_ string, path string) {
		if !isMountPoint(path) {
			os.Remove(path)
		}
	})
}

// takeOver makes places of what an earlier process left mounted. A place is known by a descriptor of the bare point,
// which can only be had while nothing is mounted there; so for a moment nothing is.
func (s *Service) takeOver() {
	for _, id := range namesIn(s.directory) {
		path := filepath.Join(s.directory, id)
		if id == usersDirectory || !isMountPoint(path) {
			continue
		}
		folder, err := s.takeOverFolder(id, path)
		if err != nil {
			// As of a network file system that has gone: the next handover brings the folder.
			logError(err, "take over", id)
		} else {
			s.folders[id] = folder
		}
		logError(unmountAll(path), "take over", id)
	}
	s.eachUserPlace(func(id, path string) { logError(unmountAll(path), "take over", id) })
	for _, bundle := range namesIn(s.bundles) {
		directory := filepath.Join(s.bundles, bundle)
		if keys := readUsed(directory); len(keys) > 0 {
			s.used[directory] = keys
		}
	}
}

func (s *Service) takeOverFolder(id, path string) (*folder, error) {
	// Without what is mounted inside: mounts of ours have places of their own.
	descriptor, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(descriptor)
	folder, err := stage(descriptor, s.stagingPath(id))
	if err == nil {
		folder.isTakenOver = true
	}
	return folder, err
}

func (s *Service) stagingPath(id string) string {
	s.handovers++
	return filepath.Join(s.staging, fmt.Sprintf("%s.%d", id, s.handovers))
}

func (s *Service) eachUserPlace(visit func(id, path string)) {
	users := filepath.Join(s.directory, usersDirectory)
	for _, user := range namesIn(users) {
		for _, id := range namesIn(filepath.Join(users, user)) {
			visit(id, filepath.Join(users, user, id))
		}
	}
}

// setRecord adds or changes a mount.
func (s *Service) setRecord(r record) {
	old, isKnown := s.records[r.id]
	if isKnown && (old.rootID != r.rootID || old.path != r.path) {
		// Another source: what was handed over stays until the new one is.
		delete(s.found, r.id)
	}
	isMoved := isKnown && (old.parent != r.parent || old.target != r.target || old.isFile != r.isFile)
	if isMoved || (isKnown && r.parent != "" && old.isReadOnly != r.isReadOnly) {
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
		logError(folder.release(), "release the folder", id)
		delete(s.folders, id)
	}
	s.kept.remove(id)
}

// discardWritten removes what containers wrote over excluded paths, as if none had run yet. Those of the workloads
// concerned do not run any more; mounts of the namespaces that are kept stay as they are.
func (s *Service) discardWritten(keptNamespaces []string) {
	for id, r := range s.records {
		if len(r.excluded) == 0 || slices.Contains(keptNamespaces, r.namespace) {
			continue
		}
		family := append(s.childrenOf(id), r)
		for key := range s.places {
			if key.user.isContainer && slices.ContainsFunc(family, func(member record) bool { return member.id == key.id }) {
				s.closePlace(key)
			}
		}
		s.kept.remove(id)
	}
}

// closePlaces takes a mount away from wherever it is, and what was made to mount it, and what is inside of it, on.
func (s *Service) closePlaces(id string) {
	for key := range s.places {
		if key.id == id {
			s.closePlace(key)
		}
	}
	for _, point := range s.made[id] {
		point.remove()
	}
	delete(s.made, id)
}

func (s *Service) closePlace(key placeKey) {
	place := s.places[key]
	delete(s.places, key)
	s.forgetInside(key.id, key.user, place)
	logError(place.close(), "unmount", key.id)
	if s.records[key.id].parent == "" {
		path := s.placePath(key)
		os.Remove(path)
		if key.user.isContainer {
			// The folder of such containers, once it is empty.
			os.Remove(filepath.Dir(path))
		}
	}
}

// placePath is where a place lies that is not inside of another mount.
func (s *Service) placePath(key placeKey) string {
	if key.user.isContainer {
		return filepath.Join(s.directory, usersDirectory, key.user.String(), key.id)
	}
	return filepath.Join(s.directory, key.id)
}

// handOver takes what a mount container found at a wanted path.
func (s *Service) handOver(rootID string, handover mounts.Handover) {
	if handover.Descriptor >= 0 {
		defer unix.Close(handover.Descriptor)
	}
	if r, isKnown := s.records[handover.ID]; !isKnown || r.rootID != rootID {
		// Meanwhile another source is wanted, or none.
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
	folder, err := stage(descriptor, s.stagingPath(id))
	if err != nil {
		return err
	}
	s.folders[id] = folder
	delete(s.unmapped, id)
	err = s.showEverywhere(id)
	if old != nil {
		logError(old.release(), "release the old folder", id)
	}
	return err
}

// openPlaces makes the places of a mount that is not inside of another one.
func (s *Service) openPlaces(r record) {
	if _, err := s.openPlace(placeKey{id: r.id}, r.isFile); err != nil {
		logError(err, "make a place", r.id)
	}
	s.eachUserPlace(func(id, path string) {
		user, isViewer := parseViewer(filepath.Base(filepath.Dir(path)))
		if id != r.id || !isViewer {
			return
		}
		if _, err := s.openPlace(placeKey{id, user}, r.isFile); err != nil {
			logError(err, "make a place", id)
		}
	})
}

func (s *Service) openPlace(key placeKey, isFile bool) (*place, error) {
	if place := s.places[key]; place != nil {
		return place, nil
	}
	place, err := openPlace(s.placePath(key), isFile)
	if err != nil {
		return nil, err
	}
	s.places[key] = place
	return place, nil
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
	view := s.mappingFor(r.id, folder, key.user)
	if place.shows(folder, view) {
		return s.furnish(r, key.user, place, place.top)
	}
	isReadOnly := key.user.isReadOnly
	if r.parent != "" {
		// As volumes inside of volumes: each for itself.
		isReadOnly = r.isReadOnly
	}
	furnish := func(top int) error {
		s.forgetInside(r.id, key.user, place)
		return s.furnish(r, key.user, place, top)
	}
	err := place.show(folder, view, isReadOnly, furnish)
	if errors.Is(err, errNoMapping) {
		s.unmapped[r.id] = true
		err = place.show(folder, nil, isReadOnly, furnish)
	}
	return err
}

// furnish mounts what belongs inside of a place, as far as it is not there: what is kept of the image, and other mounts.
// It may have been there before: with the folder that something is mounted on, the kernel removes the mount.
func (s *Service) furnish(r record, user viewer, place *place, top int) error {
	for _, excluded := range r.excluded {
		if err := s.furnishKept(r, user, place, top, excluded); err != nil {
			return fmt.Errorf("keep the image's %s: %w", excluded, err)
		}
	}
	for _, child := range s.childrenOf(r.id) {
		if err := s.furnishChild(r, child, user, top); err != nil {
			s.found[child.id] = finding{state: mounts.Failed, detail: err.Error()}
			logError(err, "show inside of its parent", child.id)
		}
	}
	return nil
}

func (s *Service) furnishKept(r record, user viewer, place *place, top int, excluded string) error {
	mount := s.kept.mountOf(r.id, user.image, excluded)
	if user.image == "" || !isMountPoint(mount) || isAt(top, excluded, place.kept[excluded]) {
		return nil
	}
	if err := s.makePoint(r.id, s.folders[r.id], excluded, false); err != nil {
		return err
	}
	descriptor, err := unix.OpenTree(unix.AT_FDCWD, mount, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	if err := attachBelow(top, excluded, descriptor); err != nil {
		unix.Close(descriptor)
		return err
	}
	if old, isKnown := place.kept[excluded]; isKnown {
		unix.Close(old)
	}
	if place.kept == nil {
		place.kept = map[string]int{}
	}
	place.kept[excluded] = descriptor
	return nil
}

func (s *Service) furnishChild(parent, child record, user viewer, parentTop int) error {
	if s.folders[child.id] == nil {
		return nil
	}
	key, below := placeKey{child.id, user}, child.below(parent)
	if place := s.places[key]; place != nil && !isAt(parentTop, below, place.top) {
		s.closePlace(key)
	}
	if s.places[key] == nil {
		if err := s.makePoint(child.id, s.folders[parent.id], below, child.isFile); err != nil {
			return fmt.Errorf("%s in %s: %w", below, parent.source, err)
		}
		point, err := openBelow(parentTop, below)
		if err != nil {
			return fmt.Errorf("%s in %s: %w", below, parent.source, err)
		}
		s.places[key] = &place{point: point, top: -1}
	}
	return s.showAt(child, key, s.places[key])
}

// makePoint makes sure that something can be mounted below a folder. It does so in the folder as it was handed over, since
// what containers see may be read-only.
func (s *Service) makePoint(id string, folder *folder, below string, isFile bool) error {
	made, err := makePointBelow(folder.root, below, isFile)
	if made != nil {
		s.made[id] = append(s.made[id], made)
	}
	return err
}

// forgetInside forgets what was inside of a folder that another one replaces: it goes with that folder.
func (s *Service) forgetInside(id string, user viewer, place *place) {
	for _, descriptor := range place.kept {
		unix.Close(descriptor)
	}
	place.kept = nil
	for _, child := range s.childrenOf(id) {
		key := placeKey{child.id, user}
		if inner := s.places[key]; inner != nil {
			s.forgetInside(child.id, user, inner)
			inner.forget()
			delete(s.places, key)
		}
	}
}

// heal mounts again what the kernel has removed with a folder that it was mounted on.
func (s *Service) heal() {
	for key, place := range s.places {
		r := s.records[key.id]
		if r.parent == "" && place.top >= 0 && place.folder == s.folders[key.id] {
			logError(s.furnish(r, key.user, place, place.top), "mount again", r.id)
		}
	}
}

// showInParent places a mount inside of every place of its parent.
func (s *Service) showInParent(r record) error {
	var failures []error
	for key, place := range s.places {
		if key.id == r.parent && place.top >= 0 {
			failures = append(failures, s.furnishChild(s.records[r.parent], r, key.user, place.top))
		}
	}
	return errors.Join(failures...)
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

// mappingFor returns how a container's user is to see a folder; nil for its owners as they are.
func (s *Service) mappingFor(id string, folder *folder, user viewer) *mapping {
	if !user.isContainer || user.owner == folder.owner || s.unmapped[id] {
		return nil
	}
	key := [2]owner{folder.owner, user.owner}
	if known := s.mappings[key]; known != nil {
		return known
	}
	made, err := newMapping(folder.owner, user.owner)
	if err != nil {
		// As where user namespaces are turned off.
		logError(err, "map owners", id)
		s.unmapped[id] = true
		return nil
	}
	s.mappings[key] = made
	return made
}

// Wait returns the state of mounts once all are attached, or says why one is not when the time is over. A mount may be
// asked for as "ID=ROOT-ID/PATH": then it is attached when that is its source, and not the one before.
func (s *Service) Wait(wanted []string, timeout time.Duration) ([]mounts.Status, error) {
	deadline := time.After(timeout)
	for {
		var changed <-chan struct{}
		var missing *mounts.Status
		statuses := make([]mounts.Status, 0, len(wanted))
		s.node.do(func() {
			changed = s.changed
			for _, mount := range wanted {
				id, source, hasSource := strings.Cut(mount, "=")
				status := s.status(id)
				if r := s.records[id]; status.State == attached && hasSource && source != r.rootID+"/"+r.path {
					status.State, status.Detail = waiting, "another source is mounted"
				}
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

const (
	attached = "attached"
	waiting  = "waiting"
)

func (s *Service) status(id string) mounts.Status {
	status := mounts.Status{ID: id, State: waiting, Users: []mounts.User{}}
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
	case folder != nil && found.state == "" && !folder.isTakenOver:
		status.Detail = fmt.Sprintf("%s is about to take the place of another source", r.source)
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
		status.FileSystem = folder.fileSystem
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

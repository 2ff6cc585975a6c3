package mounts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/mounts"
)

// A pod that starts while its folder is on its way, as after a restart of everything, waits this long for it. After
// that its start fails with the reason, and the kubelet tries again by and by.
const attachPatience = 10 * time.Second

// bundle is a container's configuration as its runtime reads it; what is not named here stays as it is.
type bundle struct {
	path   string
	fields map[string]json.RawMessage
	user   owner
	image  string
	mounts []map[string]any
}

// prepared is what a container gets once its root file system stands, in the order in which it is mounted.
type prepared struct {
	destination string
	// A live mount, with all that is mounted there now and later. None stands for what the runtime itself has mounted at
	// the destination: a volume inside of a live mount, which is put on top of it again.
	key placeKey
}

// Prepare changes a container that is about to be created. A runtime can only bind what lies at a path at that moment;
// live mounts are therefore put into the container by a hook, which calls Attach.
func (s *Service) Prepare(directory string) error {
	return s.prepare(directory, filepath.Join(directory, "rootfs"))
}

func (s *Service) prepare(directory, rootfs string) error {
	b, err := readBundle(filepath.Join(directory, "config.json"))
	if err != nil {
		return err
	}
	var live []prepared
	for i, mount := range b.mounts {
		source, destination := textIn(mount, "source"), textIn(mount, "destination")
		relative, isBelow := strings.CutPrefix(source, s.directory+"/")
		if !isBelow {
			continue
		}
		id, rest, _ := strings.Cut(relative, "/")
		if _, err := s.Wait([]string{id}, attachPatience); err != nil {
			return fmt.Errorf("live mount %w", err)
		}
		var key placeKey
		s.node.do(func() {
			container := keptContainer{rootfs: rootfs, user: b.user, image: b.image}
			key, err = s.placeForContainer(directory, id, container, isReadOnly(mount))
		})
		if err != nil {
			return fmt.Errorf("live mount %s: %w", id, err)
		}
		if rest != "" {
			// A folder inside of a mount, in a volume of the user's own: it is bound as it is now.
			mount["source"] = filepath.Join(s.placePath(key), rest)
			continue
		}
		placeholder := filepath.Join(directory, fmt.Sprintf("sandbar-placeholder-%d", i))
		if err := makeMountPoint(placeholder, !isDirectory(source)); err != nil {
			return err
		}
		mount["source"] = placeholder
		live = append(live, prepared{destination, key})
	}
	if len(live) == 0 {
		return b.write()
	}
	all, err := s.withVolumesInside(b, live)
	if err != nil {
		return err
	}
	s.node.do(func() {
		s.prepared[directory] = all
		err = writeUsed(directory, s.used[directory])
	})
	if err != nil {
		return err
	}
	if err := b.addHook("createContainer", hookProgram, "mounts", "attach", directory); err != nil {
		return err
	}
	return b.write()
}

// hookProgram takes what was prepared into the container.
const hookProgram = "/usr/local/bin/sandbar-agent"

// Attach returns what a container was prepared for, each thing as the descriptor of a detached mount, which the caller
// closes; -1 stands for what the runtime itself mounted.
func (s *Service) Attach(directory string) (attachments []mounts.Attachment, err error) {
	s.node.do(func() {
		all, isKnown := s.prepared[directory]
		delete(s.prepared, directory)
		if !isKnown {
			err = fmt.Errorf("%s was not prepared", directory)
			return
		}
		for _, p := range all {
			var descriptor int
			if descriptor, err = s.open(p); err != nil {
				return
			}
			attachments = append(attachments, mounts.Attachment{Destination: p.destination, Descriptor: descriptor})
		}
	})
	if err != nil {
		for _, attachment := range attachments {
			if attachment.Descriptor >= 0 {
				unix.Close(attachment.Descriptor)
			}
		}
		return nil, err
	}
	return attachments, nil
}

func (s *Service) open(p prepared) (int, error) {
	if p.key.id == "" {
		return -1, nil
	}
	place := s.places[p.key]
	if place == nil || place.top < 0 {
		return -1, fmt.Errorf("live mount %s was removed", p.key.id)
	}
	descriptor, err := place.cloneForContainer()
	if err != nil {
		return -1, fmt.Errorf("clone live mount %s: %w", p.key.id, err)
	}
	return descriptor, nil
}

// withVolumesInside adds what else is mounted below live mounts, in the order in which it is all mounted, and makes sure
// that it can be mounted there.
func (s *Service) withVolumesInside(b *bundle, live []prepared) ([]prepared, error) {
	all := slices.Clone(live)
	for _, mount := range b.mounts {
		target := textIn(mount, "destination")
		isInside := false
		for _, outer := range live {
			below, isBelow := strings.CutPrefix(target, strings.TrimSuffix(outer.destination, "/")+"/")
			if !isBelow {
				continue
			}
			isInside = true
			entry, err := os.Stat(textIn(mount, "source"))
			isFile := err == nil && !entry.IsDir()
			s.node.do(func() { err = s.makePoint(outer.key.id, s.folders[outer.key.id], below, isFile) })
			if err != nil {
				return nil, fmt.Errorf("make a place for %s: %w", target, err)
			}
		}
		isLive := slices.ContainsFunc(live, func(p prepared) bool { return p.destination == target })
		if isInside && !isLive {
			all = append(all, prepared{destination: target})
		}
	}
	slices.SortStableFunc(all, func(first, second prepared) int {
		return strings.Count(first.destination, "/") - strings.Count(second.destination, "/")
	})
	return all, nil
}

// placeForContainer makes the place of an attached mount for a container, with what is kept of its image.
func (s *Service) placeForContainer(directory, id string, container keptContainer, isReadOnly bool) (placeKey, error) {
	user := viewer{isContainer: true, owner: container.user, isReadOnly: isReadOnly}
	family := s.withExclusions(id)
	if len(family) > 0 {
		layers, err := layersOf(container.rootfs)
		if err != nil {
			return placeKey{}, err
		}
		user.image = viewerImage(container.imageHash(layers), family)
		for _, r := range family {
			if err := s.kept.open(r, user.image, layers, container); err != nil {
				return placeKey{}, err
			}
		}
	}
	key := placeKey{id, user}
	s.used[directory] = append(s.used[directory], key)
	s.sweep()
	_, err := s.placeFor(key)
	return key, err
}

// placeFor returns the place of an attached mount for containers of a kind.
func (s *Service) placeFor(key placeKey) (*place, error) {
	r, isKnown := s.records[key.id]
	if !isKnown {
		return nil, errors.New("it was removed")
	}
	if r.parent != "" {
		return nil, fmt.Errorf("it lies inside of %s", r.parent)
	}
	place, err := s.openPlace(key, r.isFile)
	if err != nil {
		return nil, err
	}
	return place, s.showAt(r, key, place)
}

// sweep removes the places that no container has any more, and what was kept for them long ago. Containers are known by
// their bundles, which the runtime removes with them.
func (s *Service) sweep() {
	isUsed := map[placeKey]bool{}
	for directory, keys := range s.used {
		if !isDirectory(directory) {
			delete(s.used, directory)
			delete(s.prepared, directory)
			continue
		}
		for _, key := range keys {
			isUsed[key] = true
		}
	}
	for key := range s.places {
		if key.user.isContainer && s.records[key.id].parent == "" && !isUsed[key] {
			s.closePlace(key)
		}
	}
	for id, r := range s.records {
		if len(r.excluded) > 0 {
			s.kept.forgetOldImages(id, func(layersHash string) bool {
				for key := range s.places {
					if key.user.image != "" && layersPart(key.user.image) == layersHash {
						return true
					}
				}
				return false
			})
		}
	}
}

// usedFile is kept beside a container's configuration, for a process that takes over.
const usedFile = "sandbar-places"

func writeUsed(directory string, keys []placeKey) error {
	var lines strings.Builder
	for _, key := range keys {
		fmt.Fprintf(&lines, "%s %s\n", key.user, key.id)
	}
	return os.WriteFile(filepath.Join(directory, usedFile), []byte(lines.String()), 0o600)
}

func readUsed(directory string) []placeKey {
	content, err := os.ReadFile(filepath.Join(directory, usedFile))
	if err != nil {
		// A container without a live mount.
		return nil
	}
	var keys []placeKey
	for line := range strings.Lines(string(content)) {
		name, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		if user, isViewer := parseViewer(name); isViewer {
			keys = append(keys, placeKey{id, user})
		}
	}
	return keys
}

// withExclusions lists a mount and those inside of it as far as they have excluded paths.
func (s *Service) withExclusions(id string) []record {
	var family []record
	if r := s.records[id]; len(r.excluded) > 0 {
		family = append(family, r)
	}
	for _, child := range s.childrenOf(id) {
		family = append(family, s.withExclusions(child.id)...)
	}
	return family
}

func readBundle(path string) (*bundle, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b := &bundle{path: path}
	if err := json.Unmarshal(content, &b.fields); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var process struct {
		User struct {
			UID uint32 `json:"uid"`
			GID uint32 `json:"gid"`
		} `json:"user"`
	}
	if err := json.Unmarshal(b.fields["process"], &process); err != nil {
		return nil, fmt.Errorf("%s: process: %w", path, err)
	}
	b.user = owner{process.User.UID, process.User.GID}
	var annotations map[string]string
	if err := json.Unmarshal(b.fields["annotations"], &annotations); err != nil {
		return nil, fmt.Errorf("%s: annotations: %w", path, err)
	}
	b.image = annotations["io.kubernetes.cri.image-name"]
	// Numbers stay as they are written.
	decoder := json.NewDecoder(bytes.NewReader(b.fields["mounts"]))
	decoder.UseNumber()
	if err := decoder.Decode(&b.mounts); err != nil {
		return nil, fmt.Errorf("%s: mounts: %w", path, err)
	}
	return b, nil
}

// addHook adds a program that the runtime runs at a point of the container's creation.
func (b *bundle) addHook(moment, path string, arguments ...string) error {
	hooks := map[string][]any{}
	if b.fields["hooks"] != nil {
		if err := json.Unmarshal(b.fields["hooks"], &hooks); err != nil {
			return fmt.Errorf("%s: hooks: %w", b.path, err)
		}
	}
	hooks[moment] = append(hooks[moment], map[string]any{
		"path": path, "args": append([]string{filepath.Base(path)}, arguments...),
	})
	var err error
	b.fields["hooks"], err = json.Marshal(hooks)
	return err
}

func (b *bundle) write() error {
	var err error
	if b.fields["mounts"], err = json.Marshal(b.mounts); err != nil {
		return err
	}
	content, err := json.Marshal(b.fields)
	if err != nil {
		return err
	}
	return os.WriteFile(b.path, content, 0o600)
}

func textIn(mount map[string]any, field string) string {
	text, _ := mount[field].(string)
	return text
}

func isReadOnly(mount map[string]any) bool {
	options, _ := mount["options"].([]any)
	return slices.Contains(options, any("ro"))
}

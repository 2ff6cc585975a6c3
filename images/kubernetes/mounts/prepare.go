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
	// A live mount, with all that is mounted there now and later. Nil stands for what the runtime itself has mounted at
	// the destination: a volume inside of a live mount, which is put on top of it again.
	place *place
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
	var all []prepared
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
		var place *place
		s.node.do(func() {
			container := keptContainer{rootfs: rootfs, user: b.user, image: b.image}
			place, err = s.placeForContainer(id, container, isReadOnly(mount))
		})
		if err != nil {
			return fmt.Errorf("live mount %s: %w", id, err)
		}
		if rest != "" {
			// A folder inside of a mount, in a volume of the user's own: it is bound as it is now.
			mount["source"] = filepath.Join(place.path, rest)
			continue
		}
		placeholder := filepath.Join(directory, fmt.Sprintf("sandbar-placeholder-%d", i))
		if err := makeMountPoint(placeholder, !isDirectory(source)); err != nil {
			return err
		}
		mount["source"] = placeholder
		inside, err := s.volumesInside(b, destination, place)
		if err != nil {
			return err
		}
		all = append(append(all, prepared{destination, place}), inside...)
	}
	if len(all) == 0 {
		return b.write()
	}
	slices.SortStableFunc(all, func(first, second prepared) int {
		return strings.Count(first.destination, "/") - strings.Count(second.destination, "/")
	})
	s.node.do(func() { s.prepared[directory] = all })
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
			if descriptor, err = p.open(); err != nil {
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

func (p prepared) open() (int, error) {
	if p.place == nil {
		return -1, nil
	}
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_EMPTY_PATH
	descriptor, err := unix.OpenTree(p.place.point, "", flags)
	if err != nil {
		return -1, fmt.Errorf("clone %s: %w", p.place.path, err)
	}
	// What is mounted at the place later reaches the container, and never the other way round.
	attributes := unix.MountAttr{Propagation: unix.MS_SLAVE}
	if err := unix.MountSetattr(descriptor, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attributes); err != nil {
		unix.Close(descriptor)
		return -1, fmt.Errorf("clone %s: %w", p.place.path, err)
	}
	return descriptor, nil
}

// volumesInside lists what else is mounted below a live mount, and makes sure that it can be mounted there.
func (s *Service) volumesInside(b *bundle, destination string, place *place) ([]prepared, error) {
	var inside []prepared
	for _, mount := range b.mounts {
		target := textIn(mount, "destination")
		below, isBelow := strings.CutPrefix(target, strings.TrimSuffix(destination, "/")+"/")
		if !isBelow || strings.HasPrefix(textIn(mount, "source"), s.directory+"/") {
			continue
		}
		if entry, err := os.Stat(textIn(mount, "source")); err == nil {
			var made error
			s.node.do(func() { made = makePoint(place, below, !entry.IsDir()) })
			if made != nil {
				return nil, fmt.Errorf("make a place for %s: %w", target, made)
			}
		}
		inside = append(inside, prepared{destination: target})
	}
	return inside, nil
}

// placeForContainer returns the place of an attached mount for a container, with what is kept of its image.
func (s *Service) placeForContainer(id string, container keptContainer, isReadOnly bool) (*place, error) {
	user := viewer{isContainer: true, owner: container.user, isReadOnly: isReadOnly}
	if family := s.withExclusions(id); len(family) > 0 {
		layers, err := layersOf(container.rootfs)
		if err != nil {
			return nil, err
		}
		user.image = container.imageHash(layers)
		for _, r := range family {
			if err := s.kept.open(r, user.image, layers, container); err != nil {
				return nil, err
			}
		}
	}
	return s.placeFor(id, user)
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

// placeFor returns the place of an attached mount for containers of a kind.
func (s *Service) placeFor(id string, user viewer) (*place, error) {
	r, isKnown := s.records[id]
	if !isKnown {
		return nil, errors.New("it was removed")
	}
	if r.parent != "" {
		return nil, fmt.Errorf("it lies inside of %s", r.parent)
	}
	key := placeKey{id, user}
	path := filepath.Join(s.directory, usersDirectory, user.String(), id)
	place := s.openPlace(key, path, r.isFile)
	if place == nil {
		return nil, fmt.Errorf("no place can be made at %s", path)
	}
	return place, s.showAt(r, key, place)
}

// makePoint makes sure that something can be mounted below a place, as the owner of the folder around it would.
func makePoint(place *place, below string, isFile bool) error {
	if place.top < 0 {
		return errors.New("its mount is not attached")
	}
	point, _, err := makePointBelow(place.top, below, isFile)
	if err != nil {
		return err
	}
	return unix.Close(point)
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

package mounts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

// Prepare changes a container that is about to be created: live mounts appear as its user is to see them, and excluded
// paths hold the image's own content.
func (s *Service) Prepare(directory string) error {
	return s.prepare(directory, filepath.Join(directory, "rootfs"))
}

func (s *Service) prepare(directory, rootfs string) error {
	b, err := readBundle(filepath.Join(directory, "config.json"))
	if err != nil {
		return err
	}
	container := keptContainer{rootfs: rootfs, user: b.user, image: b.image}
	var added []map[string]any
	for _, mount := range b.mounts {
		source, _ := mount["source"].(string)
		destination, _ := mount["destination"].(string)
		relative, isBelow := strings.CutPrefix(source, s.directory+"/")
		if !isBelow {
			continue
		}
		id, rest, _ := strings.Cut(relative, "/")
		if _, err := s.Wait([]string{id}, attachPatience); err != nil {
			return fmt.Errorf("live mount %w", err)
		}
		var err error
		s.node.do(func() {
			var place *place
			if place, err = s.placeFor(id, b.user); err != nil {
				return
			}
			if rest != "" {
				// A folder inside of a mount, in a volume of the user's own: it is bound as it is now.
				mount["source"] = filepath.Join(place.path, rest)
				return
			}
			mount["source"] = place.source()
			var kept []map[string]any
			kept, err = s.keep(id, container, destination)
			added = append(added, kept...)
		})
		if err != nil {
			return err
		}
	}
	b.mounts = append(b.mounts, added...)
	return b.write()
}

// placeFor returns the place of an attached mount for a container's user.
func (s *Service) placeFor(id string, user owner) (*place, error) {
	r, isKnown := s.records[id]
	if !isKnown {
		return nil, fmt.Errorf("live mount %s was removed", id)
	}
	if r.parent != "" {
		return nil, fmt.Errorf("live mount %s lies inside of %s", id, r.parent)
	}
	key := placeKey{id, viewer{true, user}}
	path := filepath.Join(s.directory, usersDirectory, fmt.Sprintf("%d-%d", user.uid, user.gid), id)
	place := s.openPlace(key, path, r.isFile)
	if place == nil {
		return nil, fmt.Errorf("live mount %s: no place can be made at %s", id, path)
	}
	if err := s.showAt(r, key, place); err != nil {
		return nil, fmt.Errorf("live mount %s: %w", id, err)
	}
	return place, nil
}

// keep returns the mounts of what is excluded from a mount and from those inside of it.
func (s *Service) keep(id string, container keptContainer, destination string) ([]map[string]any, error) {
	r, isKnown := s.records[id]
	if !isKnown {
		return nil, fmt.Errorf("live mount %s was removed", id)
	}
	var added []map[string]any
	for _, excluded := range r.excluded {
		target := filepath.Join(destination, excluded)
		source, err := s.kept.open(id, target, container)
		if err == nil {
			err = s.makePoint(placeKey{id, viewer{true, container.user}}, excluded)
		}
		if err != nil {
			return nil, fmt.Errorf("live mount %s: keep %s: %w", id, target, err)
		}
		added = append(added, map[string]any{
			"destination": target, "type": "bind", "source": source, "options": []string{"rbind", "rprivate", "rw"},
		})
	}
	for _, child := range s.childrenOf(id) {
		below, err := s.keep(child.id, container, filepath.Join(destination, child.below(r)))
		if err != nil {
			return nil, err
		}
		added = append(added, below...)
	}
	return added, nil
}

// makePoint makes sure that a folder is there to mount something on, as the owner of the folder around it would make it.
func (s *Service) makePoint(key placeKey, below string) error {
	place := s.places[key]
	if place == nil || place.top < 0 {
		return fmt.Errorf("its mount is not attached")
	}
	point, _, err := makePointBelow(place.top, below, false)
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

func (b *bundle) write() error {
	// A mount has to come after those that it lies in.
	slices.SortStableFunc(b.mounts, func(first, second map[string]any) int {
		return depthOf(first) - depthOf(second)
	})
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

func depthOf(mount map[string]any) int {
	destination, _ := mount["destination"].(string)
	return strings.Count(filepath.Clean(destination), "/")
}

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const lowerLayer, upperLayer = "content of the lower layer", "content of the upper layer"

// file is an entry of a test archive; one with a target is a symbolic link.
type file struct{ name, content, target string }

func archiveOf(t *testing.T, files ...file) *bytes.Buffer {
	t.Helper()
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content)), Linkname: f.target}
		header.Typeflag = tar.TypeReg
		if f.target != "" {
			header.Typeflag = tar.TypeSymlink
		}
		if err := writer.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return &buffer
}

func configOf(layers ...string) string {
	var diffIDs []string
	for _, layer := range layers {
		diffIDs = append(diffIDs, digest.FromString(layer).String())
	}
	text, _ := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	return string(text)
}

// savedImage is the archive of `docker save`, in the order in which engines write it.
func savedImage(config string, layers ...file) []file {
	name := digest.FromString(config).Encoded() + ".json"
	manifest := `[{"Config":"` + name + `","RepoTags":["app:1"],"Layers":["lower/layer.tar","upper/layer.tar"]}]`
	return append(layers,
		file{name: "lower/VERSION", content: "1.0"},
		file{name: "lower/json", content: "{}"},
		file{name: name, content: config},
		file{name: "manifest.json", content: manifest})
}

func resolveFirst(t *testing.T, store content.Store, files ...file) (resolvedImage, error) {
	t.Helper()
	ctx := context.Background()
	read, err := readArchive(ctx, store, archiveOf(t, files...))
	if err != nil {
		return resolvedImage{}, err
	}
	described, err := read.images(ctx)
	if err != nil {
		return resolvedImage{}, err
	}
	return read.resolve(ctx, described[0])
}

func newStore(t *testing.T) content.Store {
	t.Helper()
	store, err := local.NewLabeledStore(t.TempDir(), newLabels())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func layersOf(t *testing.T, store content.Store, image resolvedImage) []digest.Digest {
	t.Helper()
	text, err := content.ReadBlob(context.Background(), store, image.manifest)
	if err != nil {
		t.Fatal(err)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	var digests []digest.Digest
	for _, layer := range manifest.Layers {
		digests = append(digests, layer.Digest)
	}
	return digests
}

func TestASavedImageIsResolvedUnderTheEnginesID(t *testing.T) {
	store, config := newStore(t), configOf(lowerLayer, upperLayer)
	image, err := resolveFirst(t, store, savedImage(config,
		file{name: "lower/layer.tar", content: lowerLayer}, file{name: "upper/layer.tar", content: upperLayer})...)
	if err != nil {
		t.Fatal(err)
	}
	if image.id != digest.FromString(config) || image.names[0] != "docker.io/library/app:1" {
		t.Errorf("got %s named %v", image.id, image.names)
	}
	got := layersOf(t, store, image)
	if got[0] != digest.FromString(lowerLayer) || got[1] != digest.FromString(upperLayer) {
		t.Errorf("got layers %v", got)
	}
}

func TestALayerThatTheNodeHasMayBeLeftOut(t *testing.T) {
	store, config := newStore(t), configOf(lowerLayer, upperLayer)
	// As a pull leaves it: compressed, and labelled with the digest of the uncompressed layer.
	ctx, compressed := context.Background(), "\x1f\x8b\x08 compressed"
	blob := ocispec.Descriptor{Digest: digest.FromString(compressed), Size: int64(len(compressed))}
	label := content.WithLabels(map[string]string{labels.LabelUncompressed: digest.FromString(lowerLayer).String()})
	if err := content.WriteBlob(ctx, store, "pull", strings.NewReader(compressed), blob, label); err != nil {
		t.Fatal(err)
	}
	image, err := resolveFirst(t, store, savedImage(config, file{name: "upper/layer.tar", content: upperLayer})...)
	if err != nil {
		t.Fatal(err)
	}
	if got := layersOf(t, store, image); got[0] != blob.Digest {
		t.Errorf("got layers %v, want first %s", got, blob.Digest)
	}
}

func TestAnAbsentLayerIsNamed(t *testing.T) {
	_, err := resolveFirst(t, newStore(t),
		savedImage(configOf(lowerLayer, upperLayer), file{name: "upper/layer.tar", content: upperLayer})...)
	var absent *layersAbsentError
	if !errors.As(err, &absent) || len(absent.diffIDs) != 1 || absent.diffIDs[0] != digest.FromString(lowerLayer) {
		t.Errorf("got %v", err)
	}
}

func TestALayerWithOtherContentIsRefused(t *testing.T) {
	_, err := resolveFirst(t, newStore(t), savedImage(configOf(lowerLayer, upperLayer),
		file{name: "lower/layer.tar", content: "something else"}, file{name: "upper/layer.tar", content: upperLayer})...)
	if err == nil || !strings.Contains(err.Error(), digest.FromString(lowerLayer).String()) {
		t.Errorf("got %v", err)
	}
}

func TestAConfigurationWithOtherContentIsRefused(t *testing.T) {
	files := savedImage(configOf(lowerLayer, upperLayer))
	for i := range files {
		if strings.HasSuffix(files[i].name, ".json") && files[i].name != "manifest.json" {
			files[i].content = configOf(upperLayer)
		}
	}
	if _, err := resolveFirst(t, newStore(t), files...); err == nil {
		t.Error("got no error")
	}
}

func TestALinkStandsForItsLayer(t *testing.T) {
	store := newStore(t)
	image, err := resolveFirst(t, store, savedImage(configOf(lowerLayer, lowerLayer),
		file{name: "lower/layer.tar", content: lowerLayer}, file{name: "upper/layer.tar", target: "../lower/layer.tar"})...)
	if err != nil {
		t.Fatal(err)
	}
	if got := layersOf(t, store, image); got[1] != digest.FromString(lowerLayer) {
		t.Errorf("got layers %v", got)
	}
}

func TestAnOCILayoutIsResolved(t *testing.T) {
	store, config := newStore(t), configOf(lowerLayer)
	descriptor := func(mediaType, text string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(text), Size: int64(len(text))}
	}
	manifestText, _ := json.Marshal(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    descriptor(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{descriptor(ocispec.MediaTypeImageLayer, lowerLayer)},
	})
	manifest := descriptor(ocispec.MediaTypeImageManifest, string(manifestText))
	manifest.Annotations = map[string]string{images.AnnotationImageName: "docker.io/library/app:2"}
	index, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{manifest}})
	image, err := resolveFirst(t, store,
		file{name: blobPath(digest.FromString(lowerLayer)), content: lowerLayer},
		file{name: blobPath(manifest.Digest), content: string(manifestText)},
		file{name: blobPath(digest.FromString(config)), content: config},
		file{name: "index.json", content: string(index)})
	if err != nil {
		t.Fatal(err)
	}
	if image.id != digest.FromString(config) || image.names[0] != "docker.io/library/app:2" {
		t.Errorf("got %s named %v", image.id, image.names)
	}
}

func TestTheCollectorFindsWhatAManifestNamesThatTheArchiveHoldsToo(t *testing.T) {
	ctx, config := context.Background(), configOf(lowerLayer, upperLayer)
	files := savedImage(config,
		file{name: "lower/layer.tar", content: lowerLayer}, file{name: "upper/layer.tar", content: upperLayer})
	first := newStore(t)
	image, err := resolveFirst(t, first, files...)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := content.ReadBlob(ctx, first, image.manifest)
	if err != nil {
		t.Fatal(err)
	}
	second := newStore(t)
	files = append([]file{{name: blobPath(image.manifest.Digest), content: string(manifest)}}, files...)
	if _, err := resolveFirst(t, second, files...); err != nil {
		t.Fatal(err)
	}
	info, err := second.Info(ctx, image.manifest.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"config": config, "l.0": lowerLayer, "l.1": upperLayer} {
		if got := info.Labels["containerd.io/gc.ref.content."+name]; got != digest.FromString(want).String() {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestAReferenceIsADigestWithOrWithoutAName(t *testing.T) {
	id := digest.FromString("image").String()
	for text, want := range map[string]string{id: id, "app@" + id: "docker.io/library/app:latest@" + id} {
		if got, _, err := parseReference(text); err != nil || got != want {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
	}
	if _, _, err := parseReference("app:1"); err == nil {
		t.Error("a name without a digest: got no error")
	}
}

// labelsInMemory keeps what containerd keeps in its database.
type labelsInMemory map[digest.Digest]map[string]string

func newLabels() labelsInMemory { return labelsInMemory{} }

func (l labelsInMemory) Get(blob digest.Digest) (map[string]string, error) { return l[blob], nil }

func (l labelsInMemory) Set(blob digest.Digest, values map[string]string) error {
	l[blob] = values
	return nil
}

func (l labelsInMemory) Update(blob digest.Digest, values map[string]string) (map[string]string, error) {
	if l[blob] == nil {
		l[blob] = map[string]string{}
	}
	for name, value := range values {
		l[blob][name] = value
	}
	return l[blob], nil
}

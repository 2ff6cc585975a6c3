package main

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// copySize is large because every piece is a round trip to containerd.
const copySize = 1 << 20

// layersAbsentError names layers that are neither in the archive nor on the node.
type layersAbsentError struct {
	image   string
	diffIDs []digest.Digest
}

func (e *layersAbsentError) Error() string {
	return fmt.Sprintf("layers of %s are neither in the archive nor on the node: %v", e.image, e.diffIDs)
}

// archivedImage is an image as the archive describes it: paths of its parts, which may be absent.
type archivedImage struct {
	Config string
	Names  []string `json:"RepoTags"`
	Layers []string
}

// storedBlob is a file of the archive that is in the content store.
type storedBlob struct {
	digest    digest.Digest
	size      int64
	mediaType string
}

// archive is what was read from the stream. Its blobs are in the content store already.
type archive struct {
	store     content.Store
	prefix    string
	blobs     map[string]storedBlob
	links     map[string]string
	manifests []byte
	index     []byte
}

// readArchive stores every blob of the stream as it comes, since the stream may be larger than memory and the files
// that say what the blobs are come last in it.
func readArchive(ctx context.Context, store content.Store, stream io.Reader) (*archive, error) {
	a := &archive{
		store: store, prefix: "sandbar-import-" + rand.Text() + "-",
		blobs: map[string]storedBlob{}, links: map[string]string{},
	}
	reader := tar.NewReader(bufio.NewReaderSize(stream, copySize))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		if err := a.add(ctx, header, reader); err != nil {
			return nil, fmt.Errorf("read %s from archive: %w", header.Name, err)
		}
	}
}

func (a *archive) add(ctx context.Context, header *tar.Header, file io.Reader) (err error) {
	name := path.Clean(header.Name)
	switch {
	case header.Typeflag == tar.TypeSymlink:
		a.links[name] = path.Join(path.Dir(name), header.Linkname)
	case header.Typeflag != tar.TypeReg:
	case name == "manifest.json":
		a.manifests, err = io.ReadAll(file)
	case name == "index.json":
		a.index, err = io.ReadAll(file)
	case isBlob(name):
		a.blobs[name], err = a.storeBlob(ctx, name, header.Size, file)
	}
	return err
}

// isBlob leaves out what engines write for readers older than manifest.json.
func isBlob(name string) bool {
	base := path.Base(name)
	return base != "VERSION" && base != "json" && base != "repositories" && base != "oci-layout"
}

func (a *archive) storeBlob(ctx context.Context, name string, size int64, file io.Reader) (storedBlob, error) {
	buffered := bufio.NewReaderSize(file, copySize)
	start, err := buffered.Peek(10)
	if err != nil && !errors.Is(err, io.EOF) {
		return storedBlob{}, err
	}
	blob := storedBlob{size: size, mediaType: layerMediaType(compression.DetectCompression(start))}
	// The path of a configuration or OCI blob holds its digest; any other name tells nothing.
	blob.digest = digestFromPath(name)
	writer, err := content.OpenWriter(ctx, a.store, content.WithRef(a.reference(name)),
		content.WithDescriptor(ocispec.Descriptor{Size: size, Digest: blob.digest}))
	if errdefs.IsAlreadyExists(err) {
		return blob, nil
	}
	if err != nil {
		return storedBlob{}, err
	}
	defer writer.Close()
	if _, err := io.CopyBuffer(writer, buffered, make([]byte, copySize)); err != nil {
		return storedBlob{}, err
	}
	// The store has computed it while writing, so this process does not.
	if written := writer.Digest(); blob.digest == "" {
		blob.digest = written
	} else if written != blob.digest {
		return storedBlob{}, fmt.Errorf("the digest of its content is %s", written)
	}
	if err := writer.Commit(ctx, size, blob.digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return storedBlob{}, err
	}
	return blob, nil
}

// reference names an unfinished blob. It must be new for every import: the store would resume what a killed import of
// another image left under the same name.
func (a *archive) reference(name string) string {
	return a.prefix + name
}

func digestFromPath(name string) digest.Digest {
	hexadecimal := strings.TrimSuffix(path.Base(name), ".json")
	if found := digest.NewDigestFromEncoded(digest.SHA256, hexadecimal); found.Validate() == nil {
		return found
	}
	return ""
}

func layerMediaType(kind compression.Compression) string {
	switch kind {
	case compression.Gzip:
		return images.MediaTypeDockerSchema2LayerGzip
	case compression.Zstd:
		return images.MediaTypeDockerSchema2LayerZstd
	default:
		return images.MediaTypeDockerSchema2Layer
	}
}

// images lists the images that the archive describes.
func (a *archive) images(ctx context.Context) ([]archivedImage, error) {
	if a.manifests != nil {
		var listed []archivedImage
		if err := json.Unmarshal(a.manifests, &listed); err != nil {
			return nil, fmt.Errorf("read manifest.json: %w", err)
		}
		return listed, nil
	}
	if a.index == nil {
		return nil, errors.New("the archive has neither manifest.json nor index.json: it is not from docker save")
	}
	var index ocispec.Index
	if err := json.Unmarshal(a.index, &index); err != nil {
		return nil, fmt.Errorf("read index.json: %w", err)
	}
	var listed []archivedImage
	for _, descriptor := range index.Manifests {
		image, err := a.imageOf(ctx, descriptor)
		if err != nil {
			return nil, err
		}
		listed = append(listed, image)
	}
	return listed, nil
}

func (a *archive) imageOf(ctx context.Context, descriptor ocispec.Descriptor) (archivedImage, error) {
	manifest, err := images.Manifest(ctx, a.store, descriptor, platforms.Default())
	if err != nil {
		return archivedImage{}, fmt.Errorf("read manifest %s: %w", descriptor.Digest, err)
	}
	image := archivedImage{Config: blobPath(manifest.Config.Digest)}
	for _, layer := range manifest.Layers {
		image.Layers = append(image.Layers, blobPath(layer.Digest))
	}
	for _, annotation := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		// The second is often only a tag, which names nothing.
		if name := descriptor.Annotations[annotation]; strings.ContainsAny(name, ":/") {
			image.Names = []string{name}
			break
		}
	}
	return image, nil
}

func blobPath(blob digest.Digest) string {
	return path.Join("blobs", blob.Algorithm().String(), blob.Encoded())
}

// resolvedImage is an image whose every part is in the content store.
type resolvedImage struct {
	names    []string
	id       digest.Digest
	manifest ocispec.Descriptor
}

// resolve finds the image's layers in the archive or on the node and writes a manifest that joins them.
func (a *archive) resolve(ctx context.Context, image archivedImage) (resolvedImage, error) {
	config, inArchive := a.blobs[image.Config]
	if !inArchive {
		return resolvedImage{}, fmt.Errorf("%s is not in the archive", image.Config)
	}
	configDescriptor := ocispec.Descriptor{
		MediaType: images.MediaTypeDockerSchema2Config, Digest: config.digest, Size: config.size,
	}
	diffIDs, err := images.RootFS(ctx, a.store, configDescriptor)
	if err != nil {
		return resolvedImage{}, fmt.Errorf("read %s: %w", image.Config, err)
	}
	if len(diffIDs) != len(image.Layers) {
		return resolvedImage{}, fmt.Errorf("%s names %d layers, the manifest %d", image.Config, len(diffIDs), len(image.Layers))
	}
	layers, err := a.resolveLayers(ctx, image, diffIDs)
	if err != nil {
		return resolvedImage{}, err
	}
	names, err := normalizeNames(image.Names)
	if err != nil {
		return resolvedImage{}, err
	}
	manifest, err := a.writeManifest(ctx, configDescriptor, layers)
	return resolvedImage{names: names, id: config.digest, manifest: manifest}, err
}

func (a *archive) resolveLayers(ctx context.Context, image archivedImage, diffIDs []digest.Digest) ([]ocispec.Descriptor, error) {
	present, err := findLayers(ctx, a.store, diffIDs)
	if err != nil {
		return nil, err
	}
	absent := &layersAbsentError{image: image.Config}
	var layers []ocispec.Descriptor
	for i, diffID := range diffIDs {
		name := path.Clean(image.Layers[i])
		if target, isLink := a.links[name]; isLink {
			name = target
		}
		blob, inArchive := a.blobs[name]
		onNode, isPresent := present[diffID]
		switch {
		case isPresent:
			layers = append(layers, onNode)
		case !inArchive:
			absent.diffIDs = append(absent.diffIDs, diffID)
		case blob.mediaType == images.MediaTypeDockerSchema2Layer && blob.digest != diffID:
			return nil, fmt.Errorf("%s has the digest %s, but %s asks for %s", name, blob.digest, image.Config, diffID)
		default:
			layers = append(layers, ocispec.Descriptor{MediaType: blob.mediaType, Digest: blob.digest, Size: blob.size})
		}
	}
	if len(absent.diffIDs) > 0 {
		return nil, absent
	}
	return layers, nil
}

// findLayers returns the blobs of the store that hold the given layers, compressed or not.
func findLayers(ctx context.Context, store content.Store, diffIDs []digest.Digest) (map[digest.Digest]ocispec.Descriptor, error) {
	found := map[digest.Digest]ocispec.Descriptor{}
	var filters []string
	for _, diffID := range diffIDs {
		filters = append(filters, "digest=="+diffID.String(), fmt.Sprintf("labels.%q==%s", labels.LabelUncompressed, diffID))
	}
	if len(filters) == 0 {
		return found, nil
	}
	err := store.Walk(ctx, func(blob content.Info) error {
		diffID := blob.Digest
		if uncompressed, isLayer := blob.Labels[labels.LabelUncompressed]; isLayer {
			diffID = digest.Digest(uncompressed)
		}
		mediaType, err := storedMediaType(ctx, store, blob)
		if err != nil {
			return err
		}
		found[diffID] = ocispec.Descriptor{MediaType: mediaType, Digest: blob.Digest, Size: blob.Size}
		return nil
	}, filters...)
	return found, err
}

func storedMediaType(ctx context.Context, store content.Store, blob content.Info) (string, error) {
	if blob.Labels[labels.LabelUncompressed] == blob.Digest.String() {
		return images.MediaTypeDockerSchema2Layer, nil
	}
	reader, err := store.ReaderAt(ctx, ocispec.Descriptor{Digest: blob.Digest, Size: blob.Size})
	if err != nil {
		return "", err
	}
	defer reader.Close()
	start := make([]byte, 10)
	if _, err := reader.ReadAt(start, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return layerMediaType(compression.DetectCompression(start)), nil
}

// writeManifest stores a manifest, with the labels by which the garbage collector finds what belongs to it.
func (a *archive) writeManifest(ctx context.Context, config ocispec.Descriptor, layers []ocispec.Descriptor) (ocispec.Descriptor, error) {
	manifest := ocispec.Manifest{MediaType: images.MediaTypeDockerSchema2Manifest, Config: config, Layers: layers}
	manifest.SchemaVersion = 2
	text, err := json.Marshal(manifest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	descriptor := ocispec.Descriptor{
		MediaType: manifest.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text)),
	}
	children := map[string]string{"containerd.io/gc.ref.content.config": config.Digest.String()}
	for i, layer := range layers {
		children[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = layer.Digest.String()
	}
	err = content.WriteBlob(ctx, a.store, a.reference(descriptor.Digest.String()), strings.NewReader(string(text)),
		descriptor, content.WithLabels(children))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return descriptor, a.addLabels(ctx, descriptor.Digest, children)
}

// addLabels labels a blob that was there already: engines with containerd's store save the very manifest that is
// written here, and a blob that is there keeps the labels that it has. The collector would take all that it names.
func (a *archive) addLabels(ctx context.Context, blob digest.Digest, added map[string]string) error {
	var fields []string
	for name := range added {
		fields = append(fields, "labels."+name)
	}
	_, err := a.store.Update(ctx, content.Info{Digest: blob, Labels: added}, fields...)
	return err
}

// normalizeNames writes names as the CRI asks for them: nginx is docker.io/library/nginx:latest.
func normalizeNames(names []string) ([]string, error) {
	var normalized []string
	for _, name := range names {
		parsed, err := reference.ParseDockerRef(name)
		if err != nil {
			return nil, fmt.Errorf("image name %q: %w", name, err)
		}
		normalized = append(normalized, parsed.String())
	}
	return normalized, nil
}

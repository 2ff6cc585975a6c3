package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/grpc"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	containerdSocket     = "/run/containerd/containerd.sock"
	containerdConfigPath = "/etc/containerd/config.toml"
	// The namespace and label that the CRI uses.
	kubernetesNamespace = "k8s.io"
	managedLabel        = "io.cri-containerd.image"
)

// node is the containerd of this node, as Kubernetes sees it.
type node struct {
	*containerd.Client
	cri criapi.ImageServiceClient
}

type loadedImage struct {
	Name string `json:"name"`
	ID   string `json:"id"`
}

type listedImage struct {
	Name      string `json:"name"`
	ID        string `json:"id"`
	SizeBytes uint64 `json:"sizeBytes"`
}

func connect() (*node, error) {
	client, err := containerd.New(containerdSocket, containerd.WithDefaultNamespace(kubernetesNamespace))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	connection, isGRPC := client.Conn().(grpc.ClientConnInterface)
	if !isGRPC {
		return nil, fmt.Errorf("connect to containerd: %T carries no gRPC", client.Conn())
	}
	return &node{Client: client, cri: criapi.NewImageServiceClient(connection)}, nil
}

func (n *node) list(ctx context.Context) ([]listedImage, error) {
	response, err := n.cri.ListImages(ctx, &criapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	listed := []listedImage{}
	for _, image := range response.Images {
		for _, name := range image.RepoTags {
			listed = append(listed, listedImage{Name: name, ID: image.Id, SizeBytes: image.Size})
		}
	}
	slices.SortFunc(listed, func(a, b listedImage) int { return strings.Compare(a.Name, b.Name) })
	return listed, nil
}

func (n *node) hasImage(ctx context.Context, name string) bool {
	_, err := n.ImageService().Get(ctx, name)
	return err == nil
}

// missing returns those of the references that the node lacks, in the order of the question.
func (n *node) missing(ctx context.Context, references []string) ([]string, error) {
	response, err := n.cri.ListImages(ctx, &criapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	present := map[string]bool{}
	for _, image := range response.Images {
		present[image.Id] = true
		for _, name := range image.RepoTags {
			present[name+"@"+image.Id] = true
		}
	}
	var questions []string
	var unknown []digest.Digest
	for _, text := range references {
		question, layer, err := parseReference(text)
		if err != nil {
			return nil, err
		}
		questions = append(questions, question)
		if layer != "" && !present[question] {
			unknown = append(unknown, layer)
		}
	}
	layers, err := findLayers(ctx, n.ContentStore(), unknown)
	if err != nil {
		return nil, fmt.Errorf("look for layers: %w", err)
	}
	missing := []string{}
	for i, question := range questions {
		if _, isLayer := layers[digest.Digest(question)]; !present[question] && !isLayer {
			missing = append(missing, references[i])
		}
	}
	return missing, nil
}

// parseReference returns the reference with its name written out, and the digest when it may be that of a layer.
func parseReference(text string) (string, digest.Digest, error) {
	name, id, hasName := strings.Cut(text, "@")
	if !hasName {
		name, id = "", text
	}
	parsed, err := digest.Parse(id)
	if err != nil {
		return "", "", fmt.Errorf("%q is not a digest: %w", text, err)
	}
	if !hasName {
		return text, parsed, nil
	}
	names, err := normalizeNames([]string{name})
	if err != nil {
		return "", "", err
	}
	return names[0] + "@" + id, "", nil
}

// load imports an archive.
func (n *node) load(ctx context.Context, stream io.Reader) ([]loadedImage, error) {
	snapshotter, err := configuredSnapshotter(containerdConfigPath)
	if err != nil {
		return nil, err
	}
	// The lease keeps the garbage collector away from what has no name yet. It ends with the time, too, if this process
	// is killed.
	ctx, release, err := n.WithLease(namespaces.WithNamespace(ctx, kubernetesNamespace))
	if err != nil {
		return nil, fmt.Errorf("get a lease: %w", err)
	}
	defer release(context.WithoutCancel(ctx))
	read, err := readArchive(ctx, n.ContentStore(), stream)
	if err != nil {
		return nil, err
	}
	described, err := read.images(ctx)
	if err != nil {
		return nil, err
	}
	loaded := []loadedImage{}
	for _, image := range described {
		resolved, err := read.resolve(ctx, image)
		if err != nil {
			return nil, err
		}
		if err := n.unpack(ctx, resolved, snapshotter); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", resolved.id, err)
		}
		named, err := n.name(ctx, resolved)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, named...)
	}
	return loaded, nil
}

func (n *node) unpack(ctx context.Context, image resolvedImage, snapshotter string) error {
	return containerd.NewImage(n.Client, images.Image{Target: image.manifest}).Unpack(ctx, snapshotter)
}

// name records the image's names, or its ID alone when it has none, and waits until the CRI has taken notice.
func (n *node) name(ctx context.Context, image resolvedImage) ([]loadedImage, error) {
	var loaded []loadedImage
	names := image.names
	if len(names) == 0 {
		names = []string{image.id.String()}
	}
	for _, name := range names {
		record := images.Image{
			Name: name, Target: image.manifest, Labels: map[string]string{managedLabel: "managed"},
		}
		_, err := n.ImageService().Update(ctx, record, "target", "labels")
		if errdefs.IsNotFound(err) {
			_, err = n.ImageService().Create(ctx, record)
		}
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", name, err)
		}
		if err := n.waitForCRI(ctx, name, image.id); err != nil {
			return nil, err
		}
		loaded = append(loaded, loadedImage{Name: name, ID: image.id.String()})
	}
	return loaded, nil
}

// waitForCRI waits for the CRI's own cache of images, which follows containerd's events.
func (n *node) waitForCRI(ctx context.Context, name string, id digest.Digest) error {
	const patience = 5 * time.Second
	deadline := time.Now().Add(patience)
	for {
		response, err := n.cri.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: name}})
		if err == nil && response.GetImage().GetId() == id.String() {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the CRI does not list %s as %s after %v (last answer: %v)", name, id, patience, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// configuredSnapshotter reads which snapshotter the CRI uses: only what is unpacked into that one is of use to it.
func configuredSnapshotter(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var config struct {
		Plugins struct {
			Images struct {
				Snapshotter string `toml:"snapshotter"`
			} `toml:"io.containerd.cri.v1.images"`
		} `toml:"plugins"`
	}
	if err := toml.Unmarshal(text, &config); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if config.Plugins.Images.Snapshotter == "" {
		return "", fmt.Errorf("%s names no snapshotter for the CRI", path)
	}
	return config.Plugins.Images.Snapshotter, nil
}

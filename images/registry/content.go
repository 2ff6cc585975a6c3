package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is one tag of a repository.
type image struct {
	Name      string        `json:"name"`
	Tag       string        `json:"tag"`
	Digest    digest.Digest `json:"digest"`
	SizeBytes int64         `json:"sizeBytes"`
}

func openStorage(ctx context.Context, directory string) (driver.StorageDriver, distribution.Namespace, error) {
	files, err := filesystem.FromParameters(map[string]any{"rootdirectory": directory})
	if err != nil {
		return nil, nil, err
	}
	registry, err := storage.NewRegistry(ctx, files, storage.EnableDelete)
	return files, registry, err
}

// describe lists the tagged images in a directory by name and tag, and says how much it takes on disk.
func describe(ctx context.Context, directory string) ([]image, int64, error) {
	images := []image{}
	if _, err := os.Stat(directory); os.IsNotExist(err) {
		return images, 0, nil
	}
	sizeBytes, err := measure(directory)
	if err != nil {
		return nil, 0, err
	}
	_, registry, err := openStorage(ctx, directory)
	if err != nil {
		return nil, 0, err
	}
	err = registry.(distribution.RepositoryEnumerator).Enumerate(ctx, func(name string) error {
		found, err := listTags(ctx, registry, name)
		images = append(images, found...)
		return err
	})
	if missing := (driver.PathNotFoundError{}); err != nil && !errors.As(err, &missing) {
		return nil, 0, err
	}
	slices.SortFunc(images, func(a, b image) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Tag, b.Tag)) })
	return images, sizeBytes, nil
}

func listTags(ctx context.Context, registry distribution.Namespace, name string) ([]image, error) {
	named, err := reference.WithName(name)
	if err != nil {
		return nil, err
	}
	repository, err := registry.Repository(ctx, named)
	if err != nil {
		return nil, err
	}
	tags, err := repository.Tags(ctx).All(ctx)
	if unknown := (distribution.ErrRepositoryUnknown{}); errors.As(err, &unknown) {
		// Pulled or pushed by digest only.
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	manifests, err := repository.Manifests(ctx)
	if err != nil {
		return nil, err
	}
	var images []image
	for _, tag := range tags {
		descriptor, err := repository.Tags(ctx).Get(ctx, tag)
		if err != nil {
			// Removed since it was listed.
			continue
		}
		size := sizeOf(ctx, manifests, descriptor.Digest)
		images = append(images, image{Name: name, Tag: tag, Digest: descriptor.Digest, SizeBytes: size})
	}
	return images, nil
}

// sizeOf adds up what an image consists of; of an index, the images of those platforms that are there.
func sizeOf(ctx context.Context, manifests distribution.ManifestService, id digest.Digest) int64 {
	manifest, err := manifests.Get(ctx, id)
	if err != nil {
		return 0
	}
	mediaType, payload, err := manifest.Payload()
	if err != nil {
		return 0
	}
	sum := int64(len(payload))
	for _, part := range manifest.References() {
		if mediaType == v1.MediaTypeImageIndex || mediaType == manifestlist.MediaTypeManifestList {
			sum += sizeOf(ctx, manifests, part.Digest)
		} else {
			sum += part.Size
		}
	}
	return sum
}

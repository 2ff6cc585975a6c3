// Command sandbar-images brings images from the host's engine into the node, without a registry.
//
//	sandbar-images missing   a JSON array of digests on stdin → those the node lacks, as JSON
//	sandbar-images import    a tar on stdin → imported and unpacked; prints [{"name", "id"}]
//	sandbar-images list      [{"name", "id", "sizeBytes"}]
//
// # What missing is asked
//
// Each entry is one of
//
//	sha256:…         an image ID (digest of the image's configuration) or a layer's diff ID (digest of its
//	                 uncompressed tar, as in the configuration's rootfs.diff_ids)
//	NAME@sha256:…    missing unless NAME means exactly this image ID on the node
//
// # What import reads
//
// The tar that `docker save`, `podman save` or BuildKit write. Entries may come in any order; what is not named below
// is ignored.
//
//	manifest.json    [{"Config": PATH, "RepoTags": [NAME], "Layers": [PATH]}]; the layers in the order of the
//	                 configuration's rootfs.diff_ids. It wins over index.json when both are there
//	index.json       an OCI image layout; blobs are blobs/sha256/DIGEST
//	other files      configurations and layers under the paths that those two use. A layer is a tar, plain or
//	                 compressed with gzip or zstd; a symbolic link stands for the layer that it points to
//
// A layer that the node has (that missing did not name) may be left out; its path in manifest.json still stands for it.
// When such a layer is not on the node after all, import prints its diff ID and exits with status 3: send everything.
// The digest of a configuration is checked against its path, that of a layer against its diff ID. Names are recorded
// last, after everything is unpacked and the CRI lists the image, so that a failed import changes nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

const exitLayersAbsent = 3

func main() {
	err := dispatch(context.Background(), os.Args[1:], os.Stdin, os.Stdout)
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "sandbar-images: %v\n", err)
	if absent := (*layersAbsentError)(nil); errors.As(err, &absent) {
		os.Exit(exitLayersAbsent)
	}
	os.Exit(1)
}

func dispatch(ctx context.Context, arguments []string, stdin io.Reader, stdout io.Writer) error {
	if len(arguments) == 0 {
		return errors.New("usage: sandbar-images missing|import|list")
	}
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	unlessNamed := flags.String("unless-named", "", "import nothing when the node has an image of this name")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	node, err := connect()
	if err != nil {
		return err
	}
	defer node.Close()
	switch arguments[0] {
	case "missing":
		var references []string
		if err := json.NewDecoder(stdin).Decode(&references); err != nil {
			return fmt.Errorf("read references: %w", err)
		}
		return printResult(stdout)(node.missing(ctx, references))
	case "import":
		if *unlessNamed != "" && node.hasImage(ctx, *unlessNamed) {
			return nil
		}
		return printResult(stdout)(node.load(ctx, stdin))
	case "list":
		return printResult(stdout)(node.list(ctx))
	default:
		return fmt.Errorf("unknown command %q (known: missing, import, list)", arguments[0])
	}
}

func printResult(stdout io.Writer) func(any, error) error {
	return func(result any, err error) error {
		if err != nil {
			return err
		}
		return json.NewEncoder(stdout).Encode(result)
	}
}

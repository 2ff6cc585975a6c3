package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/distribution/distribution/v3/registry/storage"
)

// control answers the commands that run beside the server.
type control struct {
	imagesDirectory string
	pushes          *pushes
	caches          *caches
}

func (c *control) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /content", answer(c.content))
	mux.HandleFunc("POST /prune", answer(c.prune))
	mux.HandleFunc("POST /prune-caches", answer(c.pruneCaches))
	return mux
}

// content is what `sandbar registry` shows.
type content struct {
	SizeBytes int64          `json:"sizeBytes"`
	Images    []image        `json:"images"`
	Caches    []cacheContent `json:"caches"`
}

type cacheContent struct {
	Registry  string  `json:"registry"`
	SizeBytes int64   `json:"sizeBytes"`
	Images    []image `json:"images"`
}

type pruned struct {
	FreedBytes int64 `json:"freedBytes"`
}

func (c *control) content(ctx context.Context) (any, error) {
	found := content{Caches: []cacheContent{}}
	var err error
	if found.Images, found.SizeBytes, err = describe(ctx, c.imagesDirectory); err != nil {
		return nil, err
	}
	settings, err := filepath.Glob(filepath.Join(c.caches.settingsDirectory, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range settings {
		name := filepath.Base(file)
		one := cacheContent{Registry: name[:len(name)-len(".json")]}
		if one.Images, one.SizeBytes, err = describe(ctx, filepath.Join(c.caches.directory, one.Registry)); err != nil {
			return nil, err
		}
		found.Caches = append(found.Caches, one)
	}
	return found, nil
}

// prune removes what no tag leads to. Pushes wait meanwhile, and it waits for those that are under way.
func (c *control) prune(ctx context.Context) (any, error) {
	release, err := c.pushes.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return freed(c.imagesDirectory, func() error {
		driver, registry, err := openStorage(ctx, c.imagesDirectory)
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(c.imagesDirectory, "docker")); os.IsNotExist(err) {
			// Nothing was ever pushed, which the collection takes for a failure.
			return nil
		}
		return storage.MarkAndSweep(ctx, driver, registry, storage.GCOpts{RemoveUntagged: true, Quiet: true})
	})
}

func (c *control) pruneCaches(context.Context) (any, error) {
	return freed(c.caches.directory, c.caches.clear)
}

func freed(directory string, deed func() error) (pruned, error) {
	before, err := measure(directory)
	if err != nil {
		return pruned{}, err
	}
	if err := deed(); err != nil {
		return pruned{}, err
	}
	after, err := measure(directory)
	return pruned{FreedBytes: before - after}, err
}

// measure adds up the sizes of all files; what is removed meanwhile, or was never there, has none.
func measure(directory string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(directory, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return ignoreMissing(err)
		}
		state, err := entry.Info()
		if err == nil {
			sum += state.Size()
		}
		return ignoreMissing(err)
	})
	return sum, err
}

func ignoreMissing(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

func answer(work func(context.Context) (any, error)) http.HandlerFunc {
	return func(response http.ResponseWriter, request *http.Request) {
		result, err := work(request.Context())
		if err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
			return
		}
		// Who is gone needs no answer.
		_ = json.NewEncoder(response).Encode(result)
		debug.FreeOSMemory()
	}
}

// askServer sends a command to the server of this container and writes what it answers.
func askServer(method, path string, output io.Writer) error {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", controlSocket)
		},
	}}
	request, err := http.NewRequest(method, "http://control"+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		message, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s", message)
	}
	_, err = io.Copy(output, response.Body)
	return err
}

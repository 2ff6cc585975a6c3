// Command registry keeps images for all clusters of an engine: those that are pushed to it, and copies of what was
// pulled from other registries. The server is upstream's, https://github.com/distribution/distribution.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/sirupsen/logrus"
)

const (
	// Images are pushed and pulled here; published on the host.
	imagesAddress = ":5000"
	// Copies of other registries' images are pulled here, from inside of clusters only.
	cachesAddress = ":5001"
	// For commands in this container alone: nobody else can reach it.
	controlSocket = "/run/control.sock"
	dataDirectory = "/var/lib/registry"

	// The heap is a few MiB, so that collecting twice as often costs nothing that can be measured.
	gcPercent    = 50
	shutdownTime = 3 * time.Second
)

func main() {
	if len(os.Args) > 1 {
		if err := runCommand(os.Args[1], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := serve(ctx, dataDirectory); err != nil {
		log.Fatal(err)
	}
}

// runCommand is what runs in the container beside the server: `content`, `prune`, and `get`, by which a cache asks for
// the credentials of its registry.
func runCommand(name string, output io.Writer) error {
	switch name {
	case "get":
		return anonymous(output)
	case "content":
		return askServer(http.MethodGet, "/content", output)
	case "prune":
		return askServer(http.MethodPost, "/prune", output)
	case "prune-caches":
		return askServer(http.MethodPost, "/prune-caches", output)
	default:
		return fmt.Errorf("unknown command %q", name)
	}
}

func serve(ctx context.Context, directory string) error {
	logrus.SetLevel(logrus.ErrorLevel)
	logrus.SetFormatter(onlyFailures{&logrus.TextFormatter{DisableColors: true}})
	imagesDirectory := filepath.Join(directory, "images")
	pushes := newPushes(handlers.NewApp(ctx, storageConfiguration(imagesDirectory)))
	caches := newCaches(ctx, filepath.Join(directory, "caches"), filepath.Join(directory, "settings"))
	http.DefaultTransport = caches

	control := &control{imagesDirectory: imagesDirectory, pushes: pushes, caches: caches}
	servers := []*server{
		{network: "tcp", address: imagesAddress, handler: pushes},
		{network: "tcp", address: cachesAddress, handler: caches},
		{network: "unix", address: controlSocket, handler: control.handler()},
	}
	return serveAll(ctx, servers)
}

// onlyFailures leaves out what clients are told anyway: every push begins by asking for layers that are not there yet.
type onlyFailures struct{ logrus.Formatter }

func (f onlyFailures) Format(entry *logrus.Entry) ([]byte, error) {
	if status, ok := entry.Data["http.response.status"].(int); ok && status < http.StatusInternalServerError {
		return nil, nil
	}
	return f.Formatter.Format(entry)
}

type server struct {
	network, address string
	handler          http.Handler
}

// serveAll serves until the context ends, or one of the servers fails.
func serveAll(ctx context.Context, servers []*server) error {
	failures := make(chan error, len(servers))
	var running []*http.Server
	for _, server := range servers {
		if server.network == "unix" {
			// Left over where the container was killed.
			if err := os.Remove(server.address); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		listener, err := net.Listen(server.network, server.address)
		if err != nil {
			return err
		}
		one := &http.Server{Handler: server.handler}
		running = append(running, one)
		go func() { failures <- one.Serve(listener) }()
	}
	select {
	case err := <-failures:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	for _, one := range running {
		// What is under way after that time is cut off: a client tries again.
		_ = one.Shutdown(ending)
	}
	return nil
}

func storageConfiguration(directory string) *configuration.Configuration {
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": directory},
			"delete":     configuration.Parameters{"enabled": true},
		},
	}
	config.Catalog.MaxEntries = 1000
	return config
}

// control-plane runs etcd, kube-apiserver, kube-controller-manager and kube-scheduler in one process. One process
// shares its caches, its memory allocator and its connections, and needs no credentials between its parts.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"sandbar.dev/lib/container"
)

// shutdownTimeout bounds how long a stop may take. What is acknowledged is on disk already, so nothing is lost when
// a slow request is cut off.
const shutdownTimeout = time.Second

var processStart = time.Now()

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		klog.Flush()
		fmt.Fprintf(os.Stderr, "control-plane: %v\n", err)
		os.Exit(1)
	}
	klog.Flush()
}

func run(ctx context.Context) error {
	// A start allocates much and keeps most of it; collecting garbage meanwhile would only take time from it.
	debug.SetGCPercent(startGCPercent)

	config, err := container.ReadConfig[Config](container.ConfigPath)
	if err != nil {
		return err
	}
	if err := container.SetRoutes(config.Routes); err != nil {
		return err
	}
	if err := container.KeepCapabilities(); err != nil {
		return err
	}
	options, err := parseOptions(config)
	if err != nil {
		return err
	}
	datastore, err := startDatastore()
	if err != nil {
		return err
	}
	defer datastore.Close()
	return runComponents(ctx, options, datastore)
}

// runComponents returns when ctx ends or when any component does: a control plane that lacks a part must not look
// healthy, and Docker starts the container again.
func runComponents(ctx context.Context, options *componentOptions, datastore *datastore) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 3)
	start := func(name string, component func(context.Context) error) {
		go func() {
			err := component(ctx)
			if ctx.Err() == nil {
				err = fmt.Errorf("%s ended: %w", name, err)
				cancel(err)
			}
			ended <- err
		}()
	}

	server, err := newAPIServer(ctx, options)
	if err != nil {
		return err
	}
	start("kube-apiserver", server.Run)
	running := 1
	if err := server.waitReady(ctx); err == nil {
		klog.InfoS("API server is ready", "seconds", time.Since(processStart).Seconds())
		start("kube-controller-manager", func(ctx context.Context) error {
			return runControllerManager(ctx, options.controllerManager, server.clientConfig())
		})
		start("kube-scheduler", func(ctx context.Context) error {
			return runScheduler(ctx, options.scheduler, server.clientConfig())
		})
		running += 2
		go returnStartMemory(ctx)
	}

	select {
	case <-ctx.Done():
	case err := <-datastore.Err():
		cancel(fmt.Errorf("etcd ended: %w", err))
	}
	deadline := time.After(shutdownTimeout)
	for ; running > 0; running-- {
		select {
		case <-ended:
		case <-deadline:
			running = 1
		}
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

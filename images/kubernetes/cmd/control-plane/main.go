// control-plane runs etcd, kube-apiserver, kube-controller-manager and kube-scheduler in one process. One process
// shares its caches, its memory allocator and its connections, and needs no credentials between its parts.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"sandbar.dev/lib/container"
)

// shutdownTimeout bounds how long a stop may take. What is acknowledged is on disk already, so nothing is lost when
// a slow request is cut off.
const shutdownTimeout = 500 * time.Millisecond

const maxProcessors = 4

// exitDamaged tells the command line that the datastore's files cannot be used.
const exitDamaged = 65

var processStart = time.Now()

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		exit(err)
	}
	klog.Flush()
}

func exit(err error) {
	klog.Flush()
	fmt.Fprintf(os.Stderr, "control-plane: %v\n", err)
	if errors.As(err, new(damagedError)) {
		os.Exit(exitDamaged)
	}
	os.Exit(1)
}

func run(ctx context.Context) error {
	debug.SetGCPercent(startGCPercent)
	// On many processors the Go runtime keeps more threads looking for work than a sandbox's API traffic has use for.
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), maxProcessors))
	nameProcess()

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
	datastore := startDatastore(ctx, datastoreDirectory, config.NodeName)
	defer datastore.close()
	options, err := parseOptions(config)
	if err != nil {
		return err
	}
	return runComponents(ctx, options, datastore, &gatewayAPI{datastore: datastore, bundlePath: bundlePath, class: config.GatewayClass})
}

// runComponents returns when ctx ends or when any component does: a control plane that lacks a part must not look
// healthy, and Docker starts the container again.
func runComponents(ctx context.Context, options *componentOptions, datastore *datastore, gateway *gatewayAPI) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var components sync.WaitGroup
	start := func(name string, run func(context.Context) error) {
		components.Go(func() {
			if err := run(ctx); ctx.Err() == nil {
				cancel(fmt.Errorf("%s ended: %w", name, err))
			}
		})
	}

	go func() { cancel(fmt.Errorf("etcd ended: %w", datastore.wait())) }()
	server, err := newAPIServer(ctx, options, datastore, gateway)
	if err != nil {
		return fmt.Errorf("%s: %w", apiServerName, err)
	}
	registrar, err := newRegistrar(server)
	if err != nil {
		return fmt.Errorf("%s: %w", apiServerName, err)
	}
	start(apiServerName, server.run)
	if server.waitReady(ctx) == nil {
		klog.InfoS("API server is ready", "seconds", time.Since(processStart).Seconds())
		start(controllerManagerName, func(ctx context.Context) error {
			return runControllerManager(ctx, options.controllerManager, asComponent(server.clientConfig(), controllerManagerName))
		})
		start(schedulerName, func(ctx context.Context) error {
			return runScheduler(ctx, options.scheduler, asComponent(server.clientConfig(), schedulerName))
		})
		go registrar.run(ctx)
		go returnStartMemory(ctx)
		go gateway.keep(ctx)
	}

	<-ctx.Done()
	waitAtMost(&components, shutdownTimeout)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func waitAtMost(group *sync.WaitGroup, timeout time.Duration) {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(timeout):
	}
}

// kubelet runs upstream's kubelet, kube-proxy, the provisioner of local volumes, network policies and live mounts in one
// process, which shares its runtime, caches and connections between them.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"sandbar.dev/lib/agent"
	"sandbar.dev/lib/container"
)

const (
	kubeletKubeconfig     = "/etc/sandbar/kubelet.kubeconfig"
	proxyKubeconfig       = "/etc/sandbar/kube-proxy.kubeconfig"
	provisionerKubeconfig = "/etc/sandbar/volume-provisioner.kubeconfig"

	startGCPercent = 400
	restGCPercent  = 50
	// By then the node is Ready and the first pods run.
	startDuration = 12 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		klog.Flush()
		fmt.Fprintf(os.Stderr, "kubelet: %v\n", err)
		os.Exit(1)
	}
	klog.Flush()
}

func run(ctx context.Context) error {
	debug.SetGCPercent(startGCPercent)
	config, err := agent.ReadConfig()
	if err != nil {
		return err
	}
	server, err := kubeletServer(config)
	if err != nil {
		return err
	}
	// The kubelet ends when it finds no container runtime.
	if err := waitForContainerd(ctx); err != nil {
		return err
	}
	if err := waitForHost(ctx, config.APIServer); err != nil {
		return err
	}
	apiReady := make(chan struct{})
	go openWhenReady(ctx, config.APIServer, apiReady)
	clients := clients{apiReady: apiReady}
	proxied := make(chan struct{})
	return runComponents(ctx, map[string]func(context.Context) error{
		"kubelet":            func(ctx context.Context) error { return runKubelet(ctx, server, clients) },
		"kube-proxy":         func(ctx context.Context) error { return runProxy(ctx, config, clients, proxied) },
		"volume provisioner": func(ctx context.Context) error { return runProvisioner(ctx, config, clients) },
		"network policies":   func(ctx context.Context) error { return runPolicies(ctx, config, clients, proxied) },
		"live mounts":        func(ctx context.Context) error { return runMounts(ctx, clients) },
		"ports":              func(ctx context.Context) error { return runPorts(ctx, config, clients) },
	})
}

func openWhenReady(ctx context.Context, apiServer string, apiReady chan<- struct{}) {
	if err := container.WaitForAPI(ctx, apiServer); err != nil {
		// Only a stop ends the wait.
		return
	}
	close(apiReady)
	time.Sleep(startDuration)
	// The start is over: no longer generous with memory, and what it left behind goes back to the host.
	debug.SetGCPercent(restGCPercent)
	debug.FreeOSMemory()
}

// runComponents ends with the first component that ends: the process is then started again as a whole, and pods that
// run meanwhile do not notice.
func runComponents(ctx context.Context, components map[string]func(context.Context) error) error {
	ended := make(chan error, len(components))
	for name, component := range components {
		go func() {
			err := component(ctx)
			if err == nil {
				err = fmt.Errorf("ended without an error")
			}
			ended <- fmt.Errorf("%s: %w", name, err)
		}()
	}
	select {
	case <-ctx.Done():
		// Nothing here holds state that a tidy end would save.
		return nil
	case err := <-ended:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// waitForHost waits until the control plane's container is there, whether or not it listens yet. A node that is not
// registered complains ten times a second; while somebody keeps the control plane stopped, that would fill the log.
func waitForHost(ctx context.Context, apiServer string) error {
	address, err := url.Parse(apiServer)
	if err != nil {
		return fmt.Errorf("apiServer: %w", err)
	}
	dialer := net.Dialer{Timeout: time.Second}
	for {
		connection, err := dialer.DialContext(ctx, "tcp", address.Host)
		if err == nil {
			return connection.Close()
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the API server's host: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func waitForContainerd(ctx context.Context) error {
	dialer := net.Dialer{}
	for {
		connection, err := dialer.DialContext(ctx, "unix", agent.ContainerdSocket)
		if err == nil {
			return connection.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for containerd: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

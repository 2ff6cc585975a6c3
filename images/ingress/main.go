// Command ingress sets the container's routes, gives up the privilege that this took, and becomes Traefik.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"sandbar.dev/lib/container"
)

const (
	traefikPath       = "/traefik"
	traefikConfigPath = "/etc/sandbar/traefik.yaml"
	kubeconfigPath    = "/etc/sandbar/kubeconfig"
)

type config struct {
	APIServer string            `json:"apiServer"`
	Routes    []container.Route `json:"routes"`
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	config, err := container.ReadConfig[config](container.ConfigPath)
	if err != nil {
		return err
	}
	if err := container.SetRoutes(config.Routes); err != nil {
		return err
	}
	if err := container.KeepCapabilities(container.NetBindService); err != nil {
		return err
	}
	if err := waitForAPI(config.APIServer); err != nil {
		return err
	}
	arguments := []string{traefikPath, "--configfile=" + traefikConfigPath}
	return fmt.Errorf("start %s: %w", traefikPath, syscall.Exec(traefikPath, arguments, traefikEnvironment()))
}

// Traefik's providers try again after growing pauses when the API server is late: it serves sooner when it starts later.
func waitForAPI(url string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return container.WaitForAPI(ctx, url)
}

// Traefik takes a client certificate only from a kubeconfig, and a kubeconfig only from this variable.
func traefikEnvironment() []string {
	return []string{"KUBECONFIG=" + kubeconfigPath}
}

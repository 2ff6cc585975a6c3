// Command metrics runs upstream's metrics-server with settings for one developer's node.
package main

import (
	"context"
	"log"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"k8s.io/component-base/logs"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app"

	"sandbar.dev/lib/container"
)

const (
	directory = "/etc/sandbar/"
	// What lives is a few MiB, so that collecting twice as often costs nothing that can be measured.
	gcPercent = 50
	// One node is asked every few seconds: more processors would only look for work.
	maxProcessors = 2
	// By then the first scrapes are over, and so is what the start left behind.
	startDuration = 30 * time.Second
)

type config struct {
	APIServer string `json:"apiServer"`
	// How often the node is asked, as "10s".
	Resolution string `json:"resolution"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	debug.SetGCPercent(gcPercent)
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), maxProcessors))
	config, err := container.ReadConfig[config](container.ConfigPath)
	if err != nil {
		return err
	}
	// Without the API upstream's server ends at once, and Docker would start it again after growing pauses.
	if err := container.WaitForAPI(ctx, config.APIServer); err != nil {
		return err
	}
	time.AfterFunc(startDuration, debug.FreeOSMemory)
	logs.InitLogs()
	defer logs.FlushLogs()
	command := app.NewMetricsServerCommand(ctx.Done())
	command.SetArgs(arguments(config))
	command.SilenceUsage = true
	return command.Execute()
}

func arguments(config config) []string {
	kubeconfig := directory + "kubeconfig"
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--secure-port=10250",
		"--tls-cert-file=" + directory + "tls.crt",
		"--tls-private-key-file=" + directory + "tls.key",
		"--kubelet-certificate-authority=" + directory + "ca.crt",
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-use-node-status-port",
		// It has to be shorter than the resolution.
		"--kubelet-request-timeout=5s",
		"--metric-resolution=" + config.Resolution,
		"--profiling=false",
	}
}

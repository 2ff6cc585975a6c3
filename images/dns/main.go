// Command dns runs CoreDNS with the few plugins that a cluster needs.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bufsize"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"

	"sandbar.dev/lib/container"
)

const corefilePath = "/etc/sandbar/Corefile"

// A query passes through the plugins in this order, which is upstream's, whatever the order in the Corefile.
var directives = []string{
	"reload", "bufsize", "ready", "health", "prometheus", "errors", "log", "loadbalance", "rewrite", "cache", "template",
	"hosts", "kubernetes", "loop", "forward",
}

type config struct {
	APIServer string `json:"apiServer"`
}

func main() {
	// The heap is a few MiB, so that collecting twice as often costs nothing that can be measured.
	debug.SetGCPercent(50)
	if err := waitForAPI(); err != nil {
		log.Fatal(err)
	}
	dnsserver.Directives = directives
	os.Args = []string{os.Args[0], "-conf", corefilePath, "-quiet"}
	coremain.Run()
}

// CoreDNS starts to answer without the cluster's names when the API server is late, and its client then tries
// again after growing pauses. It is up sooner when it starts later.
func waitForAPI() error {
	config, err := container.ReadConfig[config](container.ConfigPath)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return container.WaitForAPI(ctx, config.APIServer)
}

package main

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	utilsysctl "k8s.io/component-helpers/node/util/sysctl"
	proxyapp "k8s.io/kubernetes/cmd/kube-proxy/app"
	"k8s.io/kubernetes/pkg/proxy"
	proxyconfig "k8s.io/kubernetes/pkg/proxy/apis/config"
	"k8s.io/kubernetes/pkg/proxy/healthcheck"
	"k8s.io/kubernetes/pkg/proxy/iptables"
	proxyutil "k8s.io/kubernetes/pkg/proxy/util"
	utiliptables "k8s.io/kubernetes/pkg/util/iptables"

	"sandbar.dev/lib/agent"
)

const (
	proxySyncPeriod = 30 * time.Second
	// The first change is applied at once; this is how long the next one waits. A run takes some 50 ms.
	proxyMinSyncPeriod = 100 * time.Millisecond
	proxyMasqueradeBit = 14
)

// runProxy runs kube-proxy in iptables mode. It is put together here because upstream's own start waits for the Node
// in steps of a second, and prepares for IPv6, of which the cluster has none. It closes proxied once the first rules are
// written.
func runProxy(ctx context.Context, config agent.Config, clients clients, proxied chan<- struct{}) error {
	client, err := clients.new(proxyKubeconfig)
	if err != nil {
		return err
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	recorder := broadcaster.NewRecorder(scheme.Scheme, "kube-proxy")
	// Not served on a port of its own: it answers the health check ports of LoadBalancer services.
	health := healthcheck.NewProxyHealthServer("", 2*proxySyncPeriod, nil)
	nodeIP := net.ParseIP(config.Address)
	proxier, err := iptables.NewProxier(ctx, v1.IPv4Protocol, utiliptables.New(utiliptables.ProtocolIPv4), utilsysctl.New(),
		proxySyncPeriod, proxyMinSyncPeriod,
		false, // masquerade all
		false, // node ports on 127.0.0.1, which would need route_localnet
		proxyMasqueradeBit, proxyutil.NewDetectLocalByCIDR(config.PodSubnet), config.NodeName, nodeIP, recorder, health,
		nil,   // node ports on every address
		false, // only initialise
	)
	if err != nil {
		return fmt.Errorf("create proxier: %w", err)
	}
	server := &proxyapp.ProxyServer{
		Config: &proxyconfig.KubeProxyConfiguration{
			Mode:             proxyconfig.ProxyModeIPTables,
			ConfigSyncPeriod: metav1.Duration{Duration: 15 * time.Minute},
		},
		Client:          client,
		Broadcaster:     broadcaster,
		Recorder:        recorder,
		NodeRef:         &v1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: config.NodeName},
		NodeName:        config.NodeName,
		PrimaryIPFamily: v1.IPv4Protocol,
		NodeIPs:         map[v1.IPFamily]net.IP{v1.IPv4Protocol: nodeIP},
		Proxier:         newFirstSync(proxier, func() { close(proxied) }),
	}
	return server.Run(ctx)
}

// firstSync tells when a proxier has written its rules for the first time: it does so, and then returns, when it is told
// as the second of both that it knows everything.
type firstSync struct {
	proxy.Provider
	awaited atomic.Int32
	done    func()
}

func newFirstSync(proxier proxy.Provider, done func()) *firstSync {
	first := &firstSync{Provider: proxier, done: done}
	first.awaited.Store(2)
	return first
}

func (f *firstSync) OnServiceSynced() {
	f.Provider.OnServiceSynced()
	f.countDown()
}

func (f *firstSync) OnEndpointSlicesSynced() {
	f.Provider.OnEndpointSlicesSynced()
	f.countDown()
}

func (f *firstSync) countDown() {
	if f.awaited.Add(-1) == 0 {
		f.done()
	}
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandbar.dev/lib/agent"
)

const (
	hostInterface      = "eth0"
	networkConfigPath  = "/etc/cni/net.d/10-sandbar.conflist"
	packetFilterLinks  = "/usr/local/sbin"
	packetFilterSource = "/run/sandbar/iptables-rules"
)

// prepareNetwork makes the container a router between pods and the cluster's Docker network.
func prepareNetwork(config agent.Config, children *children) error {
	settings := map[string]string{
		"net/ipv4/ip_forward": "1",
		// Else a neighbour in the Docker network could reach what listens on 127.0.0.1 here.
		"net/ipv4/conf/all/route_localnet": "0",
		// Neighbours reach Services by way of this router, on purpose: they need not be told of a shorter one. After nine
		// redirects that a neighbour ignored, the kernel would hold back refusals too, which it counts together with them,
		// and a connection to a Service without endpoints would run into a timeout.
		"net/ipv4/conf/all/send_redirects":                   "0",
		"net/ipv4/conf/default/send_redirects":               "0",
		"net/ipv4/conf/" + hostInterface + "/send_redirects": "0",
		// As on a node of its own, where the API server is no neighbour, whose refusals are counted.
		"net/ipv4/icmp_ratelimit": "0",
	}
	for name, value := range settings {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			return err
		}
	}
	if err := keepPodTrafficInside(config.PodSubnet); err != nil {
		return err
	}
	if err := choosePacketFilter(); err != nil {
		return err
	}
	if err := installRules(config, children); err != nil {
		return err
	}
	mtu := 1500
	if link, err := netlink.LinkByName(hostInterface); err == nil {
		mtu = link.Attrs().MTU
	}
	if err := writeFile(networkConfigPath, networkConfig(config.PodSubnet, mtu)); err != nil {
		return err
	}
	return writeFile(agent.ResolverConfigPath, "nameserver "+config.ClusterDNS+"\n")
}

// keepPodTrafficInside answers "no route to host" for pods that are gone. Living pods have routes of their own, longer
// than this one; without it their former traffic would follow the default route to the host.
func keepPodTrafficInside(podSubnet string) error {
	_, destination, err := net.ParseCIDR(podSubnet)
	if err != nil {
		return fmt.Errorf("podSubnet: %w", err)
	}
	route := &netlink.Route{Dst: destination, Type: unix.RTN_UNREACHABLE}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("unreachable route for %s: %w", podSubnet, err)
	}
	return nil
}

// choosePacketFilter points the iptables commands at the kernel interface that Docker uses in this network namespace
// (for its name service), so that the rules of both are in one place; nftables where there is a choice.
func choosePacketFilter() error {
	tables, err := os.ReadFile("/proc/net/ip_tables_names")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	program := "/usr/sbin/xtables-nft-multi"
	if slices.Contains(strings.Fields(string(tables)), "nat") {
		program = "/usr/sbin/xtables-legacy-multi"
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			if err := replaceByLink(filepath.Join(packetFilterLinks, family+suffix), program); err != nil {
				return err
			}
		}
	}
	return nil
}

// installRules runs once in the life of the network namespace: Docker makes a new one for every start.
func installRules(config agent.Config, children *children) error {
	if err := writeFile(packetFilterSource, packetFilterRules(config)); err != nil {
		return err
	}
	rules, err := os.Open(packetFilterSource)
	if err != nil {
		return err
	}
	defer rules.Close()
	return children.run(command{
		name: "iptables-restore", arguments: []string{"--noflush", "--wait", "5"}, stdin: rules,
	})
}

func packetFilterRules(config agent.Config) string {
	return strings.NewReplacer("PODS", config.PodSubnet, "SERVICES", config.ServiceSubnet).Replace(
		// Neighbours in the Docker network need no route back to pods.
		`*nat
-A POSTROUTING -s PODS ! -d PODS -m comment --comment "sandbar: pods to the outside" -j MASQUERADE
COMMIT
*filter
` + policyChains(config) +
			// A rejection instead of a route: clients on the node itself need a route for kube-proxy's translation to
			// happen at all. What still carries a service address afterwards is for nobody.
			`-A FORWARD -d SERVICES -m comment --comment "sandbar: untranslated service address" -j REJECT
-A OUTPUT -d SERVICES -m comment --comment "sandbar: untranslated service address" -j REJECT
COMMIT
`)
}

// policyChains lead nowhere until the first NetworkPolicy fills them.
func policyChains(config agent.Config) string {
	if config.NetworkPolicy == nil {
		return ""
	}
	rules := ":KUBE-ROUTER-INPUT - [0:0]\n:KUBE-ROUTER-FORWARD - [0:0]\n"
	for _, jump := range config.PolicyJumps() {
		rules += "-A " + jump + "\n"
	}
	return rules
}

func networkConfig(podSubnet string, mtu int) string {
	// Every pod is a point-to-point link, so that all its traffic passes the packet filter. On a bridge, traffic between
	// pods would do so only with the kernel module br_netfilter, which a container cannot load.
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": "sandbar",
  "plugins": [
    {
      "type": "ptp",
      "mtu": %d,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni/networks",
        "ranges": [[{ "subnet": %q }]],
        "routes": [{ "dst": "0.0.0.0/0" }]
      }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
`, mtu, podSubnet)
}

package ports

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// routeProtocol marks the routes that are ours, so that those of an earlier process are found.
const routeProtocol = 83

// After the kernel refused a route.
const retryDelay = 2 * time.Second

// routes makes addresses the node's own: it answers for them in the Docker network, and kube-proxy's rules then say
// where their traffic goes. It has a thread of its own: the kernel may keep it waiting.
type routes struct {
	loopback int
	present  map[netip.Addr]bool
	changed  chan struct{}

	lock   sync.Mutex
	wanted map[netip.Addr]bool
}

// openRoutes takes over what an earlier process set.
func openRoutes() (*routes, error) {
	link, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	r := &routes{loopback: link.Attrs().Index, present: map[netip.Addr]bool{}, changed: make(chan struct{}, 1)}
	filter := &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_LOCAL}
	found, err := netlink.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, route := range found {
		if address, isAddress := netip.AddrFromSlice(route.Dst.IP.To4()); isAddress {
			r.present[address] = true
		}
	}
	return r, nil
}

// set has exactly the assigned addresses made the node's own.
func (r *routes) set(assigned map[types.NamespacedName]assignment) {
	wanted := map[netip.Addr]bool{}
	for _, a := range assigned {
		if a.address.IsValid() {
			wanted[a.address] = true
		}
	}
	r.lock.Lock()
	r.wanted = wanted
	r.lock.Unlock()
	wake(r.changed)
}

func (r *routes) run(ctx context.Context) {
	for {
		select {
		case <-r.changed:
		case <-ctx.Done():
			return
		}
		if err := r.apply(); err != nil {
			klog.ErrorS(err, "Ports: answer for the addresses of Services")
			time.AfterFunc(retryDelay, func() { wake(r.changed) })
		}
	}
}

func (r *routes) apply() error {
	r.lock.Lock()
	wanted := r.wanted
	r.lock.Unlock()
	for address := range wanted {
		if r.present[address] {
			continue
		}
		if err := netlink.RouteReplace(r.to(address)); err != nil {
			return fmt.Errorf("take address %s: %w", address, err)
		}
		r.present[address] = true
	}
	for address := range r.present {
		if wanted[address] {
			continue
		}
		if err := netlink.RouteDel(r.to(address)); err != nil && err != unix.ESRCH {
			return fmt.Errorf("give address %s back: %w", address, err)
		}
		delete(r.present, address)
	}
	return nil
}

func (r *routes) to(address netip.Addr) *netlink.Route {
	return &netlink.Route{
		Dst:       &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(32, 32)},
		LinkIndex: r.loopback,
		Type:      unix.RTN_LOCAL,
		Table:     unix.RT_TABLE_LOCAL,
		Scope:     netlink.SCOPE_HOST,
		Protocol:  routeProtocol,
	}
}

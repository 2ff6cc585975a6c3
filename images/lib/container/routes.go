package container

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// Route sends a range of addresses through a neighbour in the container's network.
type Route struct {
	Destination string `json:"destination"`
	Via         string `json:"via"`
}

// SetRoutes makes the routes exist. It needs CAP_NET_ADMIN; setting a route again changes nothing.
func SetRoutes(routes []Route) error {
	for _, route := range routes {
		_, destination, err := net.ParseCIDR(route.Destination)
		if err != nil {
			return fmt.Errorf("route %q: %w", route.Destination, err)
		}
		via := net.ParseIP(route.Via)
		if via == nil {
			return fmt.Errorf("route %s: %q is not an IP address", route.Destination, route.Via)
		}
		if err := netlink.RouteReplace(&netlink.Route{Dst: destination, Gw: via}); err != nil {
			return fmt.Errorf("route %s via %s: %w", route.Destination, route.Via, err)
		}
	}
	return nil
}

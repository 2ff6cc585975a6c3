package ports

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// classPrefix begins every loadBalancerClass that is ours. Services without a class are ours as well.
const classPrefix = "sandbar.dev/"

// assignment is what a Service of type LoadBalancer gets.
type assignment struct {
	address netip.Addr
	// Why it gets none.
	problem string
}

// assignAddresses gives every Service that is ours an address of the subnet. What a Service has it keeps; of two that
// want the same one, the older has it.
func assignAddresses(subnet netip.Prefix, services []*v1.Service) map[types.NamespacedName]assignment {
	assigned := map[types.NamespacedName]assignment{}
	holders := map[netip.Addr]types.NamespacedName{}
	give := func(service *v1.Service, address netip.Addr) {
		holders[address] = keyOf(service)
		assigned[keyOf(service)] = assignment{address: address}
	}
	ours := byAge(services)
	for _, service := range ours {
		address, isHeld := heldAddress(service, subnet)
		if _, isTaken := holders[address]; isHeld && !isTaken {
			give(service, address)
		}
	}
	for _, service := range ours {
		wished := service.Spec.LoadBalancerIP
		if _, isDone := assigned[keyOf(service)]; isDone || wished == "" {
			continue
		}
		address, err := netip.ParseAddr(wished)
		holder, isTaken := holders[address]
		switch {
		case err != nil || !isUsable(subnet, address):
			assigned[keyOf(service)] = assignment{problem: fmt.Sprintf("spec.loadBalancerIP %s is not in %s", wished, subnet)}
		case isTaken:
			assigned[keyOf(service)] = assignment{problem: fmt.Sprintf("spec.loadBalancerIP %s is that of %s", wished, holder)}
		default:
			give(service, address)
		}
	}
	next := subnet.Masked().Addr()
	for _, service := range ours {
		if _, isDone := assigned[keyOf(service)]; isDone {
			continue
		}
		for isUsable(subnet, next) && holders[next] != (types.NamespacedName{}) {
			next = next.Next()
		}
		if !isUsable(subnet, next) {
			assigned[keyOf(service)] = assignment{problem: fmt.Sprintf("no address of %s is left", subnet)}
			continue
		}
		give(service, next)
	}
	return assigned
}

// byAge returns the Services that are ours, the oldest first.
func byAge(services []*v1.Service) []*v1.Service {
	ours := slices.DeleteFunc(slices.Clone(services), func(service *v1.Service) bool { return !isOurs(service) })
	slices.SortFunc(ours, func(a, b *v1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(keyOf(a).String(), keyOf(b).String()))
	})
	return ours
}

func isOurs(service *v1.Service) bool {
	class := service.Spec.LoadBalancerClass
	return service.Spec.Type == v1.ServiceTypeLoadBalancer && service.DeletionTimestamp == nil &&
		(class == nil || strings.HasPrefix(*class, classPrefix))
}

// heldAddress is the one that a Service has, unless it wants another.
func heldAddress(service *v1.Service, subnet netip.Prefix) (netip.Addr, bool) {
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		address, err := netip.ParseAddr(ingress.IP)
		wished := service.Spec.LoadBalancerIP
		if err == nil && isUsable(subnet, address) && (wished == "" || wished == ingress.IP) {
			return address, true
		}
	}
	return netip.Addr{}, false
}

// isUsable leaves out the last address, which is the network's broadcast.
func isUsable(subnet netip.Prefix, address netip.Addr) bool {
	return subnet.Contains(address) && subnet.Contains(address.Next())
}

func keyOf(service *v1.Service) types.NamespacedName {
	return types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
}

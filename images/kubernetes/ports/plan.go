package ports

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sandbar.dev/lib/ports"
)

// hostPortsAnnotation tells on a Service, or on a record, what became of its ports on the host (src/model/published.ts).
const hostPortsAnnotation = "sandbar.dev/host-ports"

// hostPort is one entry of that annotation.
type hostPort struct {
	// Of the Service; of a record the wanted one.
	Port     int32       `json:"port"`
	Protocol v1.Protocol `json:"protocol"`
	// Of 127.0.0.1, also the one that it had where it is not open now.
	HostPort uint16 `json:"hostPort,omitempty"`
	// open, taken, failed, closed (the detail says by what), or waiting.
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
}

const (
	closed  = "closed"
	waiting = "waiting"
)

// owner is the object whose annotation tells of a port.
type owner struct {
	kind string
	types.NamespacedName
}

// wish is a port that somebody wants on the host.
type wish struct {
	owner  owner
	port   int32
	wanted ports.Wanted
	target target
	// What the annotation says now.
	former hostPort
	// Why it is not opened.
	refusal string
}

// target is what a port leads to.
type target struct {
	kind      string
	namespace string
	name      string
	protocol  v1.Protocol
	port      intstr.IntOrString
}

// planServices wants every port of every Service that has an address.
func planServices(services []*v1.Service, assigned map[types.NamespacedName]assignment) []wish {
	var wishes []wish
	for _, service := range byAge(services) {
		former := parseHostPorts(service.Annotations)
		refusal := assigned[keyOf(service)].problem
		if refusal == "" && !isLoopbackAllowed(service.Spec.LoadBalancerSourceRanges) {
			refusal = "loadBalancerSourceRanges does not have 127.0.0.1/32"
		}
		for _, port := range service.Spec.Ports {
			w := wish{
				owner:   owner{"Service", keyOf(service)},
				port:    port.Port,
				target:  target{"Service", service.Namespace, service.Name, port.Protocol, intstr.FromInt32(port.Port)},
				former:  findHostPort(former, port.Port, port.Protocol),
				refusal: refusal,
			}
			w.wanted = ports.Wanted{
				ID:       fmt.Sprintf("Service %s:%d/%s", keyOf(service), port.Port, port.Protocol),
				Protocol: ports.Protocol(port.Protocol),
				Port:     uint16(port.Port),
				Former:   w.former.HostPort,
			}
			wishes = append(wishes, w)
		}
	}
	return wishes
}

// A client on the host comes from 127.0.0.1, which is as good a source as any other.
func isLoopbackAllowed(ranges []string) bool {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	return len(ranges) == 0 || slices.ContainsFunc(ranges, func(text string) bool {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		return err == nil && prefix.Contains(loopback)
	})
}

// planRecords wants the ports that the command line recorded in ConfigMaps (src/model/published.ts).
func planRecords(records []*v1.ConfigMap) []wish {
	var wishes []wish
	for _, record := range records {
		fields := record.Data
		port, err := strconv.ParseUint(fields["port"], 10, 16)
		if err != nil || port == 0 {
			continue
		}
		protocol := v1.Protocol(fields["protocol"])
		t := target{fields["kind"], fields["namespace"], fields["name"], protocol, intstr.Parse(fields["targetPort"])}
		w := wish{
			owner:  owner{"ConfigMap", types.NamespacedName{Namespace: record.Namespace, Name: record.Name}},
			port:   int32(port),
			target: t,
			former: findHostPort(parseHostPorts(record.Annotations), int32(port), protocol),
		}
		// With its target in the id, one that leads elsewhere is another: its connections end.
		w.wanted = ports.Wanted{
			ID:       fmt.Sprintf("%s %s %s/%s:%s/%s", record.Name, t.kind, t.namespace, t.name, t.port.String(), protocol),
			Protocol: ports.Protocol(protocol),
			Port:     uint16(port),
			IsFixed:  true,
		}
		wishes = append(wishes, w)
	}
	return wishes
}

// wantedOf lists what is to be opened, in the order of the claims: what a user named, what was had before, the rest.
func wantedOf(wishes []wish) []ports.Wanted {
	wanted := []ports.Wanted{}
	for _, w := range wishes {
		if w.refusal == "" {
			wanted = append(wanted, w.wanted)
		}
	}
	rank := func(w ports.Wanted) int {
		switch {
		case w.IsFixed:
			return 0
		case w.Former != 0:
			return 1
		default:
			return 2
		}
	}
	slices.SortStableFunc(wanted, func(a, b ports.Wanted) int { return cmp.Compare(rank(a), rank(b)) })
	return wanted
}

func parseHostPorts(annotations map[string]string) []hostPort {
	var entries []hostPort
	// What does not parse is written anew.
	_ = json.Unmarshal([]byte(annotations[hostPortsAnnotation]), &entries)
	return entries
}

func findHostPort(entries []hostPort, port int32, protocol v1.Protocol) hostPort {
	for _, entry := range entries {
		if entry.Port == port && entry.Protocol == protocol {
			return entry
		}
	}
	return hostPort{Port: port, Protocol: protocol}
}

// formatHostPorts is what the annotation of an object is to say; empty where it is to have none.
func formatHostPorts(entries []hostPort) string {
	if len(entries) == 0 {
		return ""
	}
	// Of plain fields.
	text, _ := json.Marshal(entries)
	return string(text)
}

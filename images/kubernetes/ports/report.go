package ports

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"sandbar.dev/lib/ports"
)

// reports says of every object that may have ports on the host what is to stand in it.
func (s *Service) reports(
	services []*v1.Service, records []*v1.ConfigMap, assigned map[types.NamespacedName]assignment, wishes []wish,
) map[owner]standing {
	entries := map[owner][]hostPort{}
	isPending := map[owner]bool{}
	for _, w := range wishes {
		entry, isKnown := s.describe(w)
		entries[w.owner] = append(entries[w.owner], entry)
		isPending[w.owner] = isPending[w.owner] || !isKnown
	}
	reports := map[owner]standing{}
	add := func(o owner, annotations map[string]string) {
		text := formatHostPorts(entries[o])
		if isPending[o] {
			// The answer is on its way; what stands there also tells which port was had before.
			text = annotations[hostPortsAnnotation]
		}
		reports[o] = standing{hostPorts: text, address: assigned[o.NamespacedName].address}
	}
	for _, service := range services {
		add(owner{"Service", keyOf(service)}, service.Annotations)
	}
	for _, record := range records {
		add(owner{"ConfigMap", types.NamespacedName{Namespace: record.Namespace, Name: record.Name}}, record.Annotations)
	}
	return reports
}

// describe says what became of a port, where that is known.
func (s *Service) describe(w wish) (entry hostPort, isKnown bool) {
	entry = w.former
	entry.Detail = ""
	said, isSaid := s.said[w.wanted.ID]
	switch {
	case w.refusal != "":
		entry.State, entry.Detail = closed, w.refusal
	case isSaid:
		entry.State, entry.Detail = string(said.State), said.Detail
		if said.State == ports.Open {
			entry.HostPort = said.Port
		}
	case s.isOpenerMissed:
		entry.State, entry.Detail = waiting, s.openerProblem()
	default:
		return entry, false
	}
	return entry, true
}

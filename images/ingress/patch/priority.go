//go:build ignore

// Copied into Traefik's own package by apply.sh, which takes these first lines off.

package ingress

import (
	"strings"

	netv1 "k8s.io/api/networking/v1"
)

// kubernetesPriority orders routers as the Ingress specification has it: a full host name before a wildcard before
// none, then the longest path, and an exact path before a prefix of the same length. Upstream takes the length of the
// router's rule as text, by which a prefix "/" wins against an exact "/login".
func kubernetesPriority(host string, path netv1.HTTPIngressPath) int {
	const perHost, perCharacter = 1 << 20, 2
	priority := 1 + perCharacter*len(strings.TrimSuffix(path.Path, "/"))
	if path.PathType != nil && *path.PathType == netv1.PathTypeExact {
		priority = 2 + perCharacter*len(path.Path)
	}
	switch {
	case host == "":
		return priority
	case strings.HasPrefix(host, "*."):
		return priority + perHost
	default:
		return priority + 2*perHost
	}
}

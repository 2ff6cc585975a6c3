package main

import (
	"strings"
)

const (
	nodePrefix       = registryPrefix + "minions/"
	podPrefix        = registryPrefix + "pods/"
	namespacePrefix  = registryPrefix + "namespaces/"
	slicePrefix      = registryPrefix + "endpointslices/"
	claimPrefix      = registryPrefix + "persistentvolumeclaims/"
	volumePrefix     = registryPrefix + "persistentvolumes/"
	addressPrefix    = registryPrefix + "ipaddresses/"
	allocationPrefix = registryPrefix + "ranges/"
	definitionPrefix = registryPrefix + "apiextensions.k8s.io/customresourcedefinitions/"
	apiServicePrefix = registryPrefix + "apiregistration.k8s.io/apiservices/"
	mountPrefix      = registryPrefix + "configmaps/sandbar-system/mount-"
)

// place is what a key of the API server's store says about its object.
type place struct {
	// The custom resource's group; empty for built-in resources.
	customGroup string
	resource    string
	// Empty for objects of the whole cluster.
	namespace string
}

// placeOf reads a key: /registry/pods/NAMESPACE/NAME, /registry/services/specs/NAMESPACE/NAME, and with the group
// /registry/GROUP/RESOURCE/NAMESPACE/NAME for what is defined by custom resource definitions.
func placeOf(key string) place {
	parts := strings.Split(strings.TrimPrefix(key, registryPrefix), "/")
	found := place{resource: parts[0]}
	rest := parts[1:]
	hasGroup := strings.Contains(parts[0], ".")
	if (hasGroup || parts[0] == "services") && len(rest) > 0 {
		found.resource, rest = rest[0], rest[1:]
	}
	if hasGroup && parts[0] != "apiextensions.k8s.io" && parts[0] != "apiregistration.k8s.io" {
		found.customGroup = parts[0]
	}
	if len(rest) == 2 {
		found.namespace = rest[0]
	}
	return found
}

// Ranks order the deletions of a reset: what could interfere goes first, what others stand on goes last. Behind the
// closed gate any order is right; this one spares the controllers work.
const (
	rankAdmission = iota
	rankAPIService
	rankCustom
	rankDefinition
	rankWorkload
	rankPod
	rankOther
	rankNamespace
	ranks
)

var resourceRanks = map[string]int{
	"validatingwebhookconfigurations":   rankAdmission,
	"mutatingwebhookconfigurations":     rankAdmission,
	"validatingadmissionpolicies":       rankAdmission,
	"validatingadmissionpolicybindings": rankAdmission,
	"mutatingadmissionpolicies":         rankAdmission,
	"mutatingadmissionpolicybindings":   rankAdmission,
	"apiservices":                       rankAPIService,
	"customresourcedefinitions":         rankDefinition,
	"cronjobs":                          rankWorkload,
	"jobs":                              rankWorkload,
	"daemonsets":                        rankWorkload,
	"deployments":                       rankWorkload,
	"replicasets":                       rankWorkload,
	"statefulsets":                      rankWorkload,
	"controllers":                       rankWorkload,
	"horizontalpodautoscalers":          rankWorkload,
	"pods":                              rankPod,
	"namespaces":                        rankNamespace,
}

func rankOf(key string) int {
	at := placeOf(key)
	if at.customGroup != "" {
		return rankCustom
	}
	if rank, isListed := resourceRanks[at.resource]; isListed {
		return rank
	}
	return rankOther
}

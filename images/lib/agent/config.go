// Package agent is what the programs inside the agent container agree on: the configuration they are given and the
// places where they meet.
package agent

import "sandbar.dev/lib/container"

const (
	// ContainerdSocket is where containerd serves its own API and the CRI.
	ContainerdSocket = "/run/containerd/containerd.sock"
	// ContainerdConfigPath is containerd's configuration, written by process 1 on every start.
	ContainerdConfigPath = "/etc/containerd/config.toml"
	// PauseImage is baked into the agent's image, so that a pod starts without any registry.
	PauseImage = "registry.k8s.io/pause:3.10.2"
	// VolumesDirectory holds the directories behind provisioned PersistentVolumes.
	VolumesDirectory = "/var/lib/sandbar/volumes"
	// RemovedDirectory holds directories of volumes that are being deleted.
	RemovedDirectory = "/var/lib/sandbar/removed"
	// MountsDirectory holds the host folders that are attached while the agent runs.
	MountsDirectory = "/var/lib/sandbar/mounts"
	// KeptDirectory holds what containers write over the image's content where it is excluded from a mount.
	KeptDirectory = "/var/lib/sandbar/kept"
	// ResolverConfigPath is the resolv.conf of pods that ask for the node's name service (dnsPolicy: Default).
	ResolverConfigPath = "/run/sandbar/resolv.conf"
	// ProvisionerName is the `provisioner` of StorageClasses whose claims become directories below VolumesDirectory.
	ProvisionerName = "sandbar.dev/local-volume"
)

// Config is the agent's config.json.
type Config struct {
	NodeName      string `json:"nodeName"`
	Address       string `json:"address"`
	APIServer     string `json:"apiServer"`
	ClusterDomain string `json:"clusterDomain"`
	ClusterDNS    string `json:"clusterDNS"`
	ServiceSubnet string `json:"serviceSubnet"`
	PodSubnet     string `json:"podSubnet"`
	// Part of the Docker network's subnet that no container has an address of.
	LoadBalancerSubnet string `json:"loadBalancerSubnet"`

	FeatureGates         map[string]bool   `json:"featureGates"`
	KubeletArguments     map[string]string `json:"kubeletArguments"`
	KubeletConfiguration map[string]any    `json:"kubeletConfiguration"`

	Proxy Proxy `json:"proxy"`

	// NetworkPolicies are not enforced where this is absent.
	NetworkPolicy *NetworkPolicy `json:"networkPolicy"`
}

// NetworkPolicy is what policies are to know of what runs beside the node.
type NetworkPolicy struct {
	// ControlPlane is the address that may reach every pod, as the node itself may.
	ControlPlane string `json:"controlPlane"`
	// Neighbours are containers that policies may name as if they were pods.
	Neighbours []Neighbour `json:"neighbours"`
}

// Neighbour is a container beside the node, described as a pod.
type Neighbour struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Address   string            `json:"address"`
}

// Proxy is the HTTP proxy that image pulls go through; empty fields mean none.
type Proxy struct {
	HTTP    string `json:"httpProxy"`
	HTTPS   string `json:"httpsProxy"`
	Exclude string `json:"noProxy"`
}

// ReadConfig reads the configuration that the command line put into the container.
func ReadConfig() (Config, error) {
	return container.ReadConfig[Config](container.ConfigPath)
}

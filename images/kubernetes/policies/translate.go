package policies

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	netutils "k8s.io/utils/net"

	"sandbar.dev/lib/agent"
)

// Names are in the comments of rules, which the packet filter keeps below 256 characters.
const longestName = 72

// podRef tells a pod from an earlier one of the same name.
type podRef struct {
	types.NamespacedName
	uid types.UID
}

// translatePolicies writes policies so that the library enforces what they mean: one direction each, since the library
// would let in what the other direction lets out; one block of addresses a rule, since a set holds an address either as
// wanted or as excepted; and destinations for ports that are named, since it would allow their number everywhere. It is
// another policy to the library when its rules are others: sets of addresses, which are filled before the rules that need
// them are in force, have the names of policies.
func translatePolicies(policies []*networking.NetworkPolicy) []*networking.NetworkPolicy {
	var translated []*networking.NetworkPolicy
	for _, policy := range policies {
		for _, direction := range policy.Spec.PolicyTypes {
			spec := networking.NetworkPolicySpec{
				PodSelector: policy.Spec.PodSelector,
				PolicyTypes: []networking.PolicyType{direction},
			}
			switch direction {
			case networking.PolicyTypeIngress:
				for _, rule := range policy.Spec.Ingress {
					for _, peers := range separatePeers(rule.From) {
						spec.Ingress = append(spec.Ingress, networking.NetworkPolicyIngressRule{From: peers, Ports: rule.Ports})
					}
				}
			case networking.PolicyTypeEgress:
				for _, rule := range policy.Spec.Egress {
					spec.Egress = append(spec.Egress, egressRules(rule)...)
				}
			}
			translated = append(translated, &networking.NetworkPolicy{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: policy.Namespace,
					Name:      fmt.Sprintf("%s/%s/%x", ruleName(policy.Name), direction, digest(spec)),
				},
				Spec: spec,
			})
		}
	}
	return translated
}

func digest(spec networking.NetworkPolicySpec) []byte {
	content, err := json.Marshal(spec)
	if err != nil {
		panic(err) // It came as JSON.
	}
	sum := sha256.Sum256(content)
	return sum[:4]
}

// egressRules looks named ports up in the pods of all namespaces where the rule has no destination.
func egressRules(rule networking.NetworkPolicyEgressRule) []networking.NetworkPolicyEgressRule {
	var rules []networking.NetworkPolicyEgressRule
	ports := rule.Ports
	if len(rule.To) == 0 {
		isNamed := func(port networking.NetworkPolicyPort) bool {
			return port.Port != nil && port.Port.Type == intstr.String
		}
		if named := slices.DeleteFunc(slices.Clone(ports), func(port networking.NetworkPolicyPort) bool {
			return !isNamed(port)
		}); len(named) > 0 {
			everyPod := []networking.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}}
			rules = append(rules, networking.NetworkPolicyEgressRule{To: everyPod, Ports: named})
			ports = slices.DeleteFunc(slices.Clone(ports), isNamed)
			if len(ports) == 0 {
				return rules
			}
		}
	}
	for _, peers := range separatePeers(rule.To) {
		rules = append(rules, networking.NetworkPolicyEgressRule{To: peers, Ports: ports})
	}
	return rules
}

// separatePeers groups peers for rules of their own: together they are for the same traffic. None at all mean everybody.
// Blocks of IPv6, of which the cluster has none, are left out.
func separatePeers(peers []networking.NetworkPolicyPeer) [][]networking.NetworkPolicyPeer {
	if len(peers) == 0 {
		return [][]networking.NetworkPolicyPeer{nil}
	}
	var groups [][]networking.NetworkPolicyPeer
	var pods []networking.NetworkPolicyPeer
	for _, peer := range peers {
		if peer.IPBlock == nil {
			pods = append(pods, peer)
		} else if block := ipv4Block(*peer.IPBlock); block != nil {
			groups = append(groups, []networking.NetworkPolicyPeer{{IPBlock: block}})
		}
	}
	if len(pods) > 0 {
		groups = append(groups, pods)
	}
	return groups
}

// ipv4Block writes addresses as the set program reads them: the API takes leading zeros too.
func ipv4Block(block networking.IPBlock) *networking.IPBlock {
	canonical := func(cidr string) (string, bool) {
		_, network, err := netutils.ParseCIDRSloppy(cidr)
		if err != nil || network.IP.To4() == nil {
			return "", false
		}
		return network.String(), true
	}
	cidr, isIPv4 := canonical(block.CIDR)
	if !isIPv4 {
		return nil
	}
	written := &networking.IPBlock{CIDR: cidr}
	for _, except := range block.Except {
		if except, isIPv4 := canonical(except); isIPv4 {
			written.Except = append(written.Except, except)
		}
	}
	return written
}

// translatePods describes the pods that policies may be about, and the node's neighbours. Only those on the node that a
// policy selects get the node as their host: for no other does the library need rules.
func translatePods(policies []*networking.NetworkPolicy, pods []*v1.Pod, young map[podRef]string,
	neighbours []agent.Neighbour, nodeAddress string) []*v1.Pod {
	var translated []*v1.Pod
	for _, pod := range pods {
		address := addressOf(pod, young)
		if address == "" {
			continue
		}
		described := describePod(pod.Namespace, pod.Name, pod.Labels, address)
		described.Spec.Containers = pod.Spec.Containers
		// An init container that goes on running is as good as any other.
		for _, container := range pod.Spec.InitContainers {
			if container.RestartPolicy != nil && *container.RestartPolicy == v1.ContainerRestartPolicyAlways {
				described.Spec.Containers = append(slices.Clone(described.Spec.Containers), container)
			}
		}
		if isSelected(pod, policies) {
			described.Status.HostIP = nodeAddress
		}
		translated = append(translated, described)
	}
	for _, neighbour := range neighbours {
		translated = append(translated,
			describePod(neighbour.Namespace, neighbour.Name, neighbour.Labels, neighbour.Address))
	}
	return translated
}

func describePod(namespace, name string, labels map[string]string, address string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: ruleName(name), Labels: labels},
		Status: v1.PodStatus{
			Phase: v1.PodRunning, PodIP: address, PodIPs: []v1.PodIP{{IP: address}},
		},
	}
}

// addressOf is empty for pods without an address of their own. What the node said of a pod that just starts is newer
// than its status.
func addressOf(pod *v1.Pod, young map[podRef]string) string {
	if pod.Spec.HostNetwork || pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
		return ""
	}
	if address, isYoung := young[refOf(pod)]; isYoung {
		return address
	}
	return pod.Status.PodIP
}

func isSelected(pod *v1.Pod, policies []*networking.NetworkPolicy) bool {
	return slices.ContainsFunc(policies, func(policy *networking.NetworkPolicy) bool {
		if policy.Namespace != pod.Namespace {
			return false
		}
		selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		return err == nil && selector.Matches(labels.Set(pod.Labels))
	})
}

func refOf(pod *v1.Pod) podRef {
	return podRef{types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, pod.UID}
}

// ruleName begins with what no name holds: the library makes one word of a namespace and a name, so that those of
// a/bc and ab/c would be the same.
func ruleName(name string) string {
	if len(name) > longestName {
		name = fmt.Sprintf("%s~%x", name[:longestName-17], sha256.Sum256([]byte(name)))[:longestName]
	}
	return "/" + name
}

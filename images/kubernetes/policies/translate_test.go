package policies

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"sandbar.dev/lib/agent"
)

func policyOf(spec networking.NetworkPolicySpec) *networking.NetworkPolicy {
	return &networking.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "rules"}, Spec: spec}
}

func blockPeer(cidr string, except ...string) networking.NetworkPolicyPeer {
	return networking.NetworkPolicyPeer{IPBlock: &networking.IPBlock{CIDR: cidr, Except: except}}
}

func port(value intstr.IntOrString) networking.NetworkPolicyPort {
	return networking.NetworkPolicyPort{Port: &value}
}

func TestEachDirectionBecomesAPolicyOfItsOwn(t *testing.T) {
	translated := translatePolicies([]*networking.NetworkPolicy{policyOf(networking.NetworkPolicySpec{
		PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress},
		Egress:      []networking.NetworkPolicyEgressRule{{}},
	})})
	if len(translated) != 2 || translated[0].Name == translated[1].Name {
		t.Fatalf("got %v", translated)
	}
	into, out := translated[0].Spec, translated[1].Spec
	if into.PolicyTypes[0] != networking.PolicyTypeIngress || into.Ingress != nil || into.Egress != nil {
		t.Errorf("got %+v for what comes in", into)
	}
	if out.PolicyTypes[0] != networking.PolicyTypeEgress || len(out.Egress) != 1 || out.Egress[0].To != nil {
		t.Errorf("got %+v for what goes out", out)
	}
}

func TestEveryBlockOfAddressesGetsARule(t *testing.T) {
	pods := networking.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}
	groups := separatePeers([]networking.NetworkPolicyPeer{
		blockPeer("10.0.0.0/8", "10.1.0.0/16"), pods, blockPeer("010.1.0.7/24"), pods, blockPeer("fd00::/8"),
	})
	if len(groups) != 3 || len(groups[2]) != 2 {
		t.Fatalf("got %+v", groups)
	}
	if got := groups[0][0].IPBlock; got.CIDR != "10.0.0.0/8" || got.Except[0] != "10.1.0.0/16" {
		t.Errorf("got %+v", got)
	}
	if got := groups[1][0].IPBlock.CIDR; got != "10.1.0.0/24" {
		t.Errorf("got %s", got)
	}
	if only := separatePeers([]networking.NetworkPolicyPeer{blockPeer("fd00::/8")}); len(only) != 0 {
		t.Errorf("a rule for IPv6 alone became %+v, which might mean everybody", only)
	}
}

func TestNamedPortsWithoutADestinationAreLookedUpInPods(t *testing.T) {
	rules := egressRules(networking.NetworkPolicyEgressRule{
		Ports: []networking.NetworkPolicyPort{port(intstr.FromString("web")), port(intstr.FromInt32(53))},
	})
	if len(rules) != 2 || rules[0].To[0].NamespaceSelector == nil || rules[0].Ports[0].Port.StrVal != "web" {
		t.Fatalf("got %+v", rules)
	}
	if rules[1].To != nil || len(rules[1].Ports) != 1 || rules[1].Ports[0].Port.IntVal != 53 {
		t.Errorf("got %+v", rules[1])
	}
	alone := egressRules(networking.NetworkPolicyEgressRule{
		Ports: []networking.NetworkPolicyPort{port(intstr.FromString("web"))},
	})
	if len(alone) != 1 || len(alone[0].To) == 0 {
		t.Errorf("got %+v, which might mean every port", alone)
	}
}

func TestOnlySelectedPodsAreOnTheNode(t *testing.T) {
	pod := func(name string, labels map[string]string, status v1.PodStatus) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labels}, Status: status}
	}
	web := pod("web", map[string]string{"app": "web"}, v1.PodStatus{PodIP: "10.244.0.2"})
	web.Spec.Containers = []v1.Container{{Ports: []v1.ContainerPort{{Name: "http"}}}}
	web.Spec.InitContainers = []v1.Container{
		{Ports: []v1.ContainerPort{{Name: "side"}}, RestartPolicy: ptr.To(v1.ContainerRestartPolicyAlways)},
		{Ports: []v1.ContainerPort{{Name: "setup"}}},
	}
	onNode := pod("on-node", nil, v1.PodStatus{PodIP: "172.30.0.3"})
	onNode.Spec.HostNetwork = true
	pods := []*v1.Pod{
		web, onNode,
		pod("other", nil, v1.PodStatus{PodIP: "10.244.0.3"}),
		pod("young", map[string]string{"app": "web"}, v1.PodStatus{PodIP: "10.244.0.4"}),
		pod("done", nil, v1.PodStatus{PodIP: "10.244.0.5", Phase: v1.PodSucceeded}),
		pod("pending", nil, v1.PodStatus{}),
	}
	policies := []*networking.NetworkPolicy{policyOf(networking.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
	})}
	young := map[podRef]string{
		{types.NamespacedName{Namespace: "shop", Name: "young"}, ""}:         "10.244.0.9",
		{types.NamespacedName{Namespace: "shop", Name: "web"}, "of another"}: "10.244.0.8",
	}
	neighbours := []agent.Neighbour{{Namespace: "kube-system", Name: "dns", Address: "172.30.0.4"}}
	var got []string
	for _, pod := range translatePods(policies, pods, young, neighbours, "172.30.0.3") {
		var ports []string
		for _, container := range pod.Spec.Containers {
			ports = append(ports, container.Ports[0].Name)
		}
		got = append(got, strings.Join([]string{
			pod.Namespace + pod.Name, pod.Status.PodIP, pod.Status.HostIP, strings.Join(ports, ","),
		}, " "))
	}
	want := "shop/web 10.244.0.2 172.30.0.3 http,side\nshop/other 10.244.0.3  \nshop/young 10.244.0.9 172.30.0.3 \n" +
		"kube-system/dns 172.30.0.4  "
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if len(web.Spec.Containers) != 1 {
		t.Error("the informer's own pod was changed")
	}
}

func TestAPolicyWithOtherRulesHasOtherSets(t *testing.T) {
	named := func(peers ...networking.NetworkPolicyPeer) string {
		return translatePolicies([]*networking.NetworkPolicy{policyOf(networking.NetworkPolicySpec{
			PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress},
			Ingress:     []networking.NetworkPolicyIngressRule{{From: peers}},
		})})[0].Name
	}
	name := named(blockPeer("10.0.0.0/8"))
	if name == named(blockPeer("10.1.0.0/16")) || name != named(blockPeer("10.0.0.0/8")) {
		t.Errorf("got %s", name)
	}
	long := policyOf(networking.NetworkPolicySpec{PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress}})
	long.Namespace, long.Name = strings.Repeat("n", 63), strings.Repeat("a", 253)
	// The longest comment that the library writes, in the packet filter's 255 characters.
	comment := "rule to ACCEPT traffic from source pods to specified ipBlocks selected by policy name: " +
		translatePolicies([]*networking.NetworkPolicy{long})[0].Name + " namespace " + long.Namespace
	if len(comment) > 255 {
		t.Errorf("%d characters in %s", len(comment), comment)
	}
}

func TestLongNamesStayApart(t *testing.T) {
	long := strings.Repeat("a", 200)
	if ruleName(long+"b") == ruleName(long+"c") || len(ruleName(long)) != longestName+1 {
		t.Errorf("got %q", ruleName(long))
	}
}

package ports

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sandbar.dev/lib/ports"
)

var subnet = netip.MustParsePrefix("172.30.0.128/25")

// loadBalancer is a Service whose age is given by its place in the alphabet.
func loadBalancer(name string, change func(*v1.Service)) *v1.Service {
	service := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, CreationTimestamp: metav1.NewTime(time.Unix(int64(name[0]), 0)),
		},
		Spec: v1.ServiceSpec{
			Type:  v1.ServiceTypeLoadBalancer,
			Ports: []v1.ServicePort{{Port: 80, Protocol: v1.ProtocolTCP}},
		},
	}
	if change != nil {
		change(service)
	}
	return service
}

func holds(address string) func(*v1.Service) {
	return func(service *v1.Service) {
		service.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: address}}
	}
}

func wants(address string) func(*v1.Service) {
	return func(service *v1.Service) { service.Spec.LoadBalancerIP = address }
}

func class(name string) func(*v1.Service) {
	return func(service *v1.Service) { service.Spec.LoadBalancerClass = &name }
}

func TestAssignAddresses(t *testing.T) {
	tests := map[string]struct {
		services []*v1.Service
		// Address, or a part of the problem, by name.
		want map[string]string
	}{
		"each gets its own, the oldest the first": {
			[]*v1.Service{loadBalancer("b", nil), loadBalancer("a", nil)},
			map[string]string{"a": "172.30.0.128", "b": "172.30.0.129"},
		},
		"what one has it keeps": {
			[]*v1.Service{loadBalancer("a", nil), loadBalancer("b", holds("172.30.0.128"))},
			map[string]string{"a": "172.30.0.129", "b": "172.30.0.128"},
		},
		"of two that have the same, the older keeps it": {
			[]*v1.Service{loadBalancer("a", holds("172.30.0.140")), loadBalancer("b", holds("172.30.0.140"))},
			map[string]string{"a": "172.30.0.140", "b": "172.30.0.128"},
		},
		"an address of another network is replaced": {
			[]*v1.Service{loadBalancer("a", holds("10.0.0.1"))},
			map[string]string{"a": "172.30.0.128"},
		},
		"a wish comes true when the address is free": {
			[]*v1.Service{loadBalancer("a", nil), loadBalancer("b", wants("172.30.0.128"))},
			map[string]string{"a": "172.30.0.129", "b": "172.30.0.128"},
		},
		"a changed wish takes the address away": {
			[]*v1.Service{loadBalancer("a", func(s *v1.Service) { holds("172.30.0.128")(s); wants("172.30.0.150")(s) })},
			map[string]string{"a": "172.30.0.150"},
		},
		"a wish that another has stays open": {
			[]*v1.Service{loadBalancer("a", wants("172.30.0.128")), loadBalancer("b", holds("172.30.0.128"))},
			map[string]string{"a": "that of default/b", "b": "172.30.0.128"},
		},
		"a wish outside stays open": {
			[]*v1.Service{loadBalancer("a", wants("172.30.0.3")), loadBalancer("b", wants("172.30.0.255")), loadBalancer("c", wants("web"))},
			map[string]string{"a": "not in 172.30.0.128/25", "b": "not in 172.30.0.128/25", "c": "not in 172.30.0.128/25"},
		},
		"other classes, types and what is on its way out get nothing": {
			[]*v1.Service{
				loadBalancer("a", class("example.com/cloud")),
				loadBalancer("b", func(s *v1.Service) { s.Spec.Type = v1.ServiceTypeNodePort }),
				loadBalancer("c", func(s *v1.Service) { s.DeletionTimestamp = &metav1.Time{} }),
				loadBalancer("d", class("sandbar.dev/host")),
			},
			map[string]string{"d": "172.30.0.128"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			assigned := assignAddresses(subnet, test.services)
			if len(assigned) != len(test.want) {
				t.Errorf("got %v", assigned)
			}
			for name, want := range test.want {
				got := assigned[types.NamespacedName{Namespace: "default", Name: name}]
				if (got.address.IsValid() && got.address.String() != want) || !strings.Contains(got.problem+want, want) ||
					(!got.address.IsValid() && !strings.Contains(got.problem, want)) {
					t.Errorf("%s: got %v, want %s", name, got, want)
				}
			}
		})
	}
}

func TestASubnetThatIsFullSaysSo(t *testing.T) {
	small := netip.MustParsePrefix("172.30.0.128/30")
	services := []*v1.Service{loadBalancer("a", nil), loadBalancer("b", nil), loadBalancer("c", nil), loadBalancer("d", nil)}
	got := assignAddresses(small, services)[types.NamespacedName{Namespace: "default", Name: "d"}]
	if got.address.IsValid() || got.problem != "no address of 172.30.0.128/30 is left" {
		t.Errorf("got %v", got)
	}
}

func TestAServiceWantsItsPortsAndWhatItHadBefore(t *testing.T) {
	service := loadBalancer("a", func(s *v1.Service) {
		s.Spec.Ports = []v1.ServicePort{{Port: 80, Protocol: v1.ProtocolTCP}, {Port: 53, Protocol: v1.ProtocolUDP}}
		s.Annotations = map[string]string{hostPortsAnnotation: `[{"port":80,"protocol":"TCP","hostPort":8081,"state":"open"}]`}
	})
	services := []*v1.Service{service}
	wanted := wantedOf(planServices(services, assignAddresses(subnet, services)))
	want := []ports.Wanted{
		{ID: "Service default/a:80/TCP", Protocol: ports.TCP, Port: 80, Former: 8081},
		{ID: "Service default/a:53/UDP", Protocol: ports.UDP, Port: 53},
	}
	if !slices.Equal(wanted, want) {
		t.Errorf("got %+v", wanted)
	}
}

func TestSourceRangesHoldForTheHostToo(t *testing.T) {
	tests := map[string]struct {
		ranges []string
		want   int
	}{
		"none":               {nil, 1},
		"everybody":          {[]string{"0.0.0.0/0"}, 1},
		"loopback":           {[]string{"10.0.0.0/8", " 127.0.0.1/32"}, 1},
		"others":             {[]string{"10.0.0.0/8"}, 0},
		"nothing that reads": {[]string{"all"}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			services := []*v1.Service{loadBalancer("a", func(s *v1.Service) { s.Spec.LoadBalancerSourceRanges = test.ranges })}
			if got := wantedOf(planServices(services, assignAddresses(subnet, services))); len(got) != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func record(name string, data map[string]string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: name}, Data: data}
}

func TestRecordsComeFirstAndWantNoOtherPort(t *testing.T) {
	records := []*v1.ConfigMap{
		record("port-8080-tcp", map[string]string{
			"port": "8080", "protocol": "TCP", "kind": "Deployment", "namespace": "shop", "name": "web", "targetPort": "http",
		}),
		record("edited", map[string]string{"port": "many"}),
		record("nowhere", map[string]string{"port": "0"}),
	}
	services := []*v1.Service{loadBalancer("a", nil)}
	wishes := slices.Concat(planServices(services, assignAddresses(subnet, services)), planRecords(records))
	wanted := wantedOf(wishes)
	if len(wanted) != 2 || !wanted[0].IsFixed || wanted[0].Port != 8080 || wanted[1].Port != 80 {
		t.Errorf("got %+v", wanted)
	}
	if got, want := wishes[1].target, (target{"Deployment", "shop", "web", v1.ProtocolTCP, intstr.FromString("http")}); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestOneThatLeadsElsewhereIsAnother(t *testing.T) {
	data := map[string]string{"port": "80", "protocol": "TCP", "kind": "Service", "namespace": "default", "name": "a", "targetPort": "80"}
	before := planRecords([]*v1.ConfigMap{record("port-80-tcp", data)})[0].wanted.ID
	data["targetPort"] = "81"
	if after := planRecords([]*v1.ConfigMap{record("port-80-tcp", data)})[0].wanted.ID; after == before {
		t.Errorf("both are %s", after)
	}
}

func readyPod(name string, change func(*v1.Pod)) v1.Pod {
	pod := v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(int64(name[0]), 0))},
		Spec: v1.PodSpec{Containers: []v1.Container{{Ports: []v1.ContainerPort{
			{Name: "http", ContainerPort: 8080, Protocol: v1.ProtocolTCP},
		}}}},
		Status: v1.PodStatus{
			Phase: v1.PodRunning, PodIP: "10.244.0." + name,
			Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}},
		},
	}
	if change != nil {
		change(&pod)
	}
	return pod
}

func TestPodAddress(t *testing.T) {
	unready := func(pod *v1.Pod) { pod.Status.Conditions = nil }
	ending := func(pod *v1.Pod) { pod.DeletionTimestamp = &metav1.Time{} }
	starting := func(pod *v1.Pod) { pod.Status.Phase = v1.PodPending }
	tests := map[string]struct {
		pods []v1.Pod
		port intstr.IntOrString
		want string
	}{
		"the oldest of those that are ready": {[]v1.Pod{readyPod("3", nil), readyPod("2", nil)}, intstr.FromInt32(80), "10.244.0.2:80"},
		"rather than an older one that is not": {
			[]v1.Pod{readyPod("1", unready), readyPod("2", nil)}, intstr.FromInt32(80), "10.244.0.2:80",
		},
		"one that is not ready, where none is":     {[]v1.Pod{readyPod("1", unready)}, intstr.FromInt32(80), "10.244.0.1:80"},
		"by the port's name":                       {[]v1.Pod{readyPod("1", nil)}, intstr.FromString("http"), "10.244.0.1:8080"},
		"not by a name that it has not":            {[]v1.Pod{readyPod("1", nil)}, intstr.FromString("https"), ""},
		"not one that is ending, or not there yet": {[]v1.Pod{readyPod("1", ending), readyPod("2", starting)}, intstr.FromInt32(80), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := podAddress(test.pods, target{protocol: v1.ProtocolTCP, port: test.port})
			if got != test.want || (err != nil) != (test.want == "") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

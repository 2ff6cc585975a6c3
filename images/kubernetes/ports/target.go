package ports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientset "k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/utils/ptr"
)

var errNoEndpoint = errors.New("no pod is ready")

// resolver finds out where a target is just now. Pods are asked for when a connection comes: to follow all of them for
// the few ports that lead to pods would cost more at rest.
type resolver struct {
	client   clientset.Interface
	services corelisters.ServiceLister
}

// fromCache has the API server answer from memory.
const fromCache = "0"

func (r resolver) resolve(ctx context.Context, t target) (string, error) {
	switch t.kind {
	case "Service":
		return r.resolveService(ctx, t)
	case "Pod":
		pod, err := r.client.CoreV1().Pods(t.namespace).Get(ctx, t.name, metav1.GetOptions{ResourceVersion: fromCache})
		if err != nil {
			return "", err
		}
		return podAddress([]v1.Pod{*pod}, t)
	default:
		selector, err := r.selectorOf(ctx, t)
		if err != nil {
			return "", err
		}
		pods, err := r.client.CoreV1().Pods(t.namespace).List(ctx, metav1.ListOptions{
			LabelSelector: selector, ResourceVersion: fromCache,
		})
		if err != nil {
			return "", err
		}
		return podAddress(pods.Items, t)
	}
}

// A Service's own address, behind which kube-proxy chooses; of a headless one the first endpoint that is ready.
func (r resolver) resolveService(ctx context.Context, t target) (string, error) {
	service, err := r.services.Services(t.namespace).Get(t.name)
	if err != nil {
		return "", err
	}
	for _, port := range service.Spec.Ports {
		isMeant := port.Name == t.port.StrVal
		if t.port.Type == intstr.Int {
			isMeant = port.Port == t.port.IntVal
		}
		if !isMeant || port.Protocol != t.protocol {
			continue
		}
		switch service.Spec.ClusterIP {
		case "":
			return "", fmt.Errorf("%s has no address", t.name)
		case v1.ClusterIPNone:
			return r.resolveEndpoint(ctx, t, port.Name)
		default:
			return joinAddress(service.Spec.ClusterIP, port.Port), nil
		}
	}
	return "", fmt.Errorf("%s has no port %s/%s", t.name, t.port.String(), t.protocol)
}

func (r resolver) resolveEndpoint(ctx context.Context, t target, portName string) (string, error) {
	slices, err := r.client.DiscoveryV1().EndpointSlices(t.namespace).List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + t.name, ResourceVersion: fromCache,
	})
	if err != nil {
		return "", err
	}
	for _, slice := range slices.Items {
		for _, port := range slice.Ports {
			if ptr.Deref(port.Name, "") != portName || port.Port == nil {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if ptr.Deref(endpoint.Conditions.Ready, true) && len(endpoint.Addresses) > 0 {
					return joinAddress(endpoint.Addresses[0], *port.Port), nil
				}
			}
		}
	}
	return "", errNoEndpoint
}

func (r resolver) selectorOf(ctx context.Context, t target) (string, error) {
	options := metav1.GetOptions{ResourceVersion: fromCache}
	apps := r.client.AppsV1()
	var selector *metav1.LabelSelector
	switch t.kind {
	case "Deployment":
		workload, err := apps.Deployments(t.namespace).Get(ctx, t.name, options)
		if err != nil {
			return "", err
		}
		selector = workload.Spec.Selector
	case "StatefulSet":
		workload, err := apps.StatefulSets(t.namespace).Get(ctx, t.name, options)
		if err != nil {
			return "", err
		}
		selector = workload.Spec.Selector
	case "DaemonSet":
		workload, err := apps.DaemonSets(t.namespace).Get(ctx, t.name, options)
		if err != nil {
			return "", err
		}
		selector = workload.Spec.Selector
	default:
		return "", fmt.Errorf("unknown kind %q", t.kind)
	}
	return metav1.FormatLabelSelector(selector), nil
}

// podAddress chooses the oldest pod that is ready, or that at least runs where none is.
func podAddress(pods []v1.Pod, t target) (string, error) {
	running := slices.DeleteFunc(slices.Clone(pods), func(pod v1.Pod) bool {
		return pod.Status.Phase != v1.PodRunning || pod.Status.PodIP == "" || pod.DeletionTimestamp != nil
	})
	slices.SortFunc(running, func(a, b v1.Pod) int {
		return cmp.Or(compareReady(b, a), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for _, pod := range running {
		if port, isThere := podPort(pod, t); isThere {
			return joinAddress(pod.Status.PodIP, port), nil
		}
	}
	if len(running) > 0 {
		return "", fmt.Errorf("%s has no port %s/%s", running[0].Name, t.port.String(), t.protocol)
	}
	return "", errNoEndpoint
}

func compareReady(a, b v1.Pod) int {
	return cmp.Compare(readiness(a), readiness(b))
}

func readiness(pod v1.Pod) int {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == v1.PodReady && condition.Status == v1.ConditionTrue {
			return 1
		}
	}
	return 0
}

// podPort takes any number, since pods need not name the ports that they listen on.
func podPort(pod v1.Pod, t target) (int32, bool) {
	if t.port.Type == intstr.Int {
		return t.port.IntVal, true
	}
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == t.port.StrVal && port.Protocol == t.protocol {
				return port.ContainerPort, true
			}
		}
	}
	return 0, false
}

func joinAddress(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

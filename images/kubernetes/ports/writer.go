package ports

import (
	"context"
	"encoding/json"
	"net/netip"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientset "k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

const (
	firstWriteDelay = time.Second
	lastWriteDelay  = 30 * time.Second
)

// standing is what an object is to say of its ports.
type standing struct {
	// Of the annotation; empty for none.
	hostPorts string
	// Of the Service's status. Not valid where that is not ours to say.
	address netip.Addr
}

// writer writes into the API what became of ports. It has a thread of its own: an API server that is away must not keep
// ports from being opened and closed.
type writer struct {
	client   clientset.Interface
	services corelisters.ServiceLister
	records  corelisters.ConfigMapLister
	changed  chan struct{}

	lock      sync.Mutex
	standings map[owner]standing
}

func newWriter(client clientset.Interface, services corelisters.ServiceLister, records corelisters.ConfigMapLister) *writer {
	return &writer{client: client, services: services, records: records, changed: make(chan struct{}, 1)}
}

// set has these standings written, in place of those before.
func (w *writer) set(standings map[owner]standing) {
	w.lock.Lock()
	w.standings = standings
	w.lock.Unlock()
	wake(w.changed)
}

func (w *writer) run(ctx context.Context) {
	delay := firstWriteDelay
	var retry <-chan time.Time
	for {
		select {
		case <-w.changed:
		case <-retry:
		case <-ctx.Done():
			return
		}
		if w.write(ctx) {
			delay, retry = firstWriteDelay, nil
		} else {
			retry, delay = time.After(delay), min(2*delay, lastWriteDelay)
		}
	}
}

// write brings every object up to date; false where one has to be tried again.
func (w *writer) write(ctx context.Context) bool {
	w.lock.Lock()
	standings := w.standings
	w.lock.Unlock()
	isDone := true
	for o, s := range standings {
		err := w.writeOne(ctx, o, s)
		if err == nil || apierrors.IsNotFound(err) {
			continue
		}
		isDone = false
		klog.ErrorS(err, "Ports: write what became of them", "kind", o.kind, "object", o.NamespacedName)
	}
	return isDone
}

func (w *writer) writeOne(ctx context.Context, o owner, s standing) error {
	if o.kind == "ConfigMap" {
		record, err := w.records.ConfigMaps(o.Namespace).Get(o.Name)
		if err != nil || record.Annotations[hostPortsAnnotation] == s.hostPorts {
			return err
		}
		_, err = w.client.CoreV1().ConfigMaps(o.Namespace).Patch(ctx, o.Name, types.MergePatchType, annotate(s), metav1.PatchOptions{})
		return err
	}
	service, err := w.services.Services(o.Namespace).Get(o.Name)
	if err != nil {
		return err
	}
	services := w.client.CoreV1().Services(o.Namespace)
	// First: kube-proxy waits for it.
	if s.address.IsValid() && !hasAddress(service, s.address) {
		if _, err := services.Patch(ctx, o.Name, types.MergePatchType, addressPatch(s.address), metav1.PatchOptions{}, "status"); err != nil {
			return err
		}
	}
	if isOurs(service) && !s.address.IsValid() && len(service.Status.LoadBalancer.Ingress) > 0 {
		if _, err := services.Patch(ctx, o.Name, types.MergePatchType, []byte(`{"status":{"loadBalancer":null}}`), metav1.PatchOptions{}, "status"); err != nil {
			return err
		}
	}
	if service.Annotations[hostPortsAnnotation] == s.hostPorts {
		return nil
	}
	_, err = services.Patch(ctx, o.Name, types.MergePatchType, annotate(s), metav1.PatchOptions{})
	return err
}

func hasAddress(service *v1.Service, address netip.Addr) bool {
	ingress := service.Status.LoadBalancer.Ingress
	return len(ingress) == 1 && ingress[0].IP == address.String()
}

// annotate sets the annotation, or removes it.
func annotate(s standing) []byte {
	var value *string
	if s.hostPorts != "" {
		value = &s.hostPorts
	}
	return patch(map[string]any{"metadata": map[string]any{"annotations": map[string]any{hostPortsAnnotation: value}}})
}

func addressPatch(address netip.Addr) []byte {
	ingress := []v1.LoadBalancerIngress{{IP: address.String(), IPMode: ptr.To(v1.LoadBalancerIPModeVIP)}}
	return patch(map[string]any{"status": map[string]any{"loadBalancer": v1.LoadBalancerStatus{Ingress: ingress}}})
}

func patch(content map[string]any) []byte {
	// Of plain fields.
	encoded, _ := json.Marshal(content)
	return encoded
}

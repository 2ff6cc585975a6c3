package main

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	flowcontrol "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/klog/v2"
)

// Objects that the cluster makes or fills only once the server is ready, when the golden copy is written already. They
// are kept as they are when they are complete, a second or two later, and are part of what resets go back to.
const (
	// Controllers fill some of them in several steps, one upon the other's.
	settlingTime = 500 * time.Millisecond

	kubernetesServiceKey = registryPrefix + "services/specs/default/kubernetes"
	serviceRangeKey      = registryPrefix + "servicecidrs/kubernetes"
	systemAccountKey     = registryPrefix + "serviceaccounts/sandbar-system/default"
	systemCertificateKey = registryPrefix + "configmaps/sandbar-system/kube-root-ca.crt"
	rolePrefix           = registryPrefix + "clusterroles/"
)

// aggregatedRoles get their rules from a controller.
var aggregatedRoles = []string{rolePrefix + "admin", rolePrefix + "edit", rolePrefix + "view"}

// builtInFlows get a status from a controller.
var builtInFlows = func() sets.Set[string] {
	keys := sets.New[string]()
	for _, flow := range slices.Concat(flowcontrol.MandatoryFlowSchemas, flowcontrol.SuggestedFlowSchemas) {
		keys.Insert(registryPrefix + "flowschemas/" + flow.Name)
	}
	return keys
}()

// completeness is that of an object of these.
type completeness int

const (
	// Another object: the golden copy has it, or it is a user's.
	notLate completeness = iota
	incomplete
	complete
)

func completeWhen(isComplete bool) completeness {
	if isComplete {
		return complete
	}
	return incomplete
}

// completenessOf says how far an object is that the cluster completes late.
func completenessOf(key string, value []byte, nodeName string) completeness {
	switch {
	case key == nodePrefix+nodeName:
		return completeWhen(isReady(value))
	case slices.Contains(aggregatedRoles, key):
		role, isKnown := decode(value, &rbacv1.ClusterRole{})
		return completeWhen(isKnown && len(role.Rules) > 0)
	case key == serviceRangeKey:
		services, isKnown := decode(value, &networkingv1.ServiceCIDR{})
		return completeWhen(isKnown && len(services.Finalizers) > 0)
	case key == kubernetesServiceKey, key == systemAccountKey, key == systemCertificateKey:
		return complete
	case builtInFlows.Has(key):
		flow, isKnown := decode(value, &flowcontrolv1.FlowSchema{})
		return completeWhen(isKnown && slices.ContainsFunc(flow.Status.Conditions, func(condition flowcontrolv1.FlowSchemaCondition) bool {
			return condition.Type == flowcontrolv1.FlowSchemaConditionDangling && condition.Status == flowcontrolv1.ConditionFalse
		}))
	case strings.HasPrefix(key, addressPrefix):
		address, isKnown := decode(value, &networkingv1.IPAddress{})
		if isKnown && address.Spec.ParentRef != nil && address.Spec.ParentRef.Namespace == "default" && address.Spec.ParentRef.Name == "kubernetes" {
			return complete
		}
	}
	return notLate
}

// keepSettled writes down these objects, unless that was done on an earlier start.
func (d *datastore) keepSettled(ctx context.Context) {
	if d.nodeName == "" || isThere(d.path(settledFile)) {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	current, revision, err := readAll(ctx, d.client)
	if err != nil {
		return
	}
	pending, settled := map[string]bool{nodePrefix + d.nodeName: true, kubernetesServiceKey: true, serviceRangeKey: true, systemAccountKey: true}, keyValues{}
	for _, key := range aggregatedRoles {
		pending[key] = true
	}
	quiet, isQuiet := time.NewTimer(settlingTime), false
	look := func(key string, value []byte) {
		state := completenessOf(key, value, d.nodeName)
		// The Node counts as it first is Ready: from then on somebody may label it, as a script does right after "up".
		if _, isKept := settled[key]; state == notLate || isKept && key == nodePrefix+d.nodeName {
			return
		}
		quiet.Reset(settlingTime)
		isQuiet = false
		if state == complete {
			settled[key] = value
			delete(pending, key)
		} else {
			pending[key] = true
		}
	}
	for key, value := range current {
		look(key, value)
	}
	watch := d.client.Watch(ctx, registryPrefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	for len(pending) > 0 || !isQuiet {
		select {
		case <-quiet.C:
			isQuiet = true
		case batch, isOpen := <-watch:
			if !isOpen {
				return
			}
			for _, event := range batch.Events {
				if event.Type == clientv3.EventTypePut {
					look(string(event.Kv.Key), event.Kv.Value)
				}
			}
		}
	}
	err = writeWhole(d.path(settledFile), func(file io.Writer) error { return json.NewEncoder(file).Encode(settled) })
	if err != nil {
		klog.ErrorS(err, "Could not keep the first state of the cluster's own objects")
	}
}

// settled returns the objects that were written down, none before that.
func (d *datastore) settled() keyValues {
	content, err := os.ReadFile(d.path(settledFile))
	if err != nil {
		return nil
	}
	var found keyValues
	if err := json.Unmarshal(content, &found); err != nil {
		return nil
	}
	return found
}

// withSettled adds them to a golden copy. Before they are known, they stay as they are.
func (d *datastore) withSettled(golden, current keyValues) keyValues {
	all := maps.Clone(golden)
	if settled := d.settled(); settled != nil {
		maps.Copy(all, settled)
		return all
	}
	for key, value := range current {
		if completenessOf(key, value, d.nodeName) != notLate {
			all[key] = value
		}
	}
	return all
}

// isReady tells whether a stored Node is Ready.
func isReady(value []byte) bool {
	node, isKnown := decode(value, &corev1.Node{})
	return isKnown && slices.ContainsFunc(node.Status.Conditions, func(condition corev1.NodeCondition) bool {
		return condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
	})
}

package main

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes/scheme"
)

// stored reads and writes objects as the API server stores them, unless the user has it store JSON or encrypt: then
// decoding fails, and what would be changed in the object stays as it is.
var stored = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

func decode[T runtime.Object](value []byte, into T) (object T, isKnown bool) {
	_, _, err := stored.Decode(value, nil, into)
	return into, err == nil
}

func encode(object runtime.Object) []byte {
	value, err := runtime.Encode(stored, object)
	if err != nil {
		// Types of the scheme, filled by its own decoder.
		panic(err)
	}
	return value
}

func claimNamespaceOf(value []byte) string {
	volume, isKnown := decode(value, &corev1.PersistentVolume{})
	if !isKnown || volume.Spec.ClaimRef == nil {
		return ""
	}
	return volume.Spec.ClaimRef.Namespace
}

func serviceNamespaceOf(value []byte) string {
	address, isKnown := decode(value, &networkingv1.IPAddress{})
	if !isKnown || address.Spec.ParentRef == nil {
		return ""
	}
	return address.Spec.ParentRef.Namespace
}

// conditionTaint is the beginning of the names of taints that the cluster itself sets, as the node's state is.
const conditionTaint = "node.kubernetes.io/"

// nodeRecord is the Node as it first was Ready.
type nodeRecord struct {
	name string
	// Empty before the node has been Ready.
	first []byte
}

func (n nodeRecord) key() string { return nodePrefix + n.name }

// reset returns the Node without what was set on it since it first was Ready: labels, annotations, taints, a cordon.
// What the kubelet reports stays. A Node that is gone comes back as it was; nil stands for "as it is".
func (n nodeRecord) reset(current keyValues) []byte {
	value, isThere := current[n.key()]
	if !isThere {
		return n.first
	}
	first, isKnown := decode(n.first, &corev1.Node{})
	node, isReadable := decode(value, &corev1.Node{})
	if !isKnown || !isReadable {
		return nil
	}
	changed := node.DeepCopy()
	changed.Labels, changed.Annotations = maps.Clone(first.Labels), maps.Clone(first.Annotations)
	// Set by a controller a moment after the node is Ready.
	if lifetime, isSet := node.Annotations[corev1.ObjectTTLAnnotationKey]; isSet && changed.Annotations != nil {
		changed.Annotations[corev1.ObjectTTLAnnotationKey] = lifetime
	}
	changed.DeletionTimestamp, changed.DeletionGracePeriodSeconds, changed.Finalizers = nil, nil, nil
	changed.Spec.Unschedulable = false
	changed.Spec.Taints = append(taints(first, isOfUser), taints(node, isOfState)...)
	if equality.Semantic.DeepEqual(changed, node) {
		return nil
	}
	return encode(changed)
}

func isOfUser(taint corev1.Taint) bool { return !strings.HasPrefix(taint.Key, conditionTaint) }

func isOfState(taint corev1.Taint) bool {
	return !isOfUser(taint) && taint.Key != corev1.TaintNodeUnschedulable
}

func taints(node *corev1.Node, isWanted func(corev1.Taint) bool) []corev1.Taint {
	var found []corev1.Taint
	for _, taint := range node.Spec.Taints {
		if isWanted(taint) {
			found = append(found, taint)
		}
	}
	return found
}

// adapt makes a snapshot fit this cluster at this moment. Its pods are not those that run: controllers make theirs
// anew, and a pod without a controller is put back as if it had just been created.
func adapt(saved keyValues, nodeName string) keyValues {
	adapted := make(keyValues, len(saved))
	for key, value := range saved {
		switch {
		case strings.HasPrefix(key, podPrefix):
			if value = adaptPod(value); value == nil {
				continue
			}
		case strings.HasPrefix(key, volumePrefix):
			value = adaptVolume(value, nodeName)
		case strings.HasPrefix(key, nodePrefix), strings.HasPrefix(key, slicePrefix) && isMadeByController(value):
			continue
		}
		adapted[key] = value
	}
	return adapted
}

// isMadeByController tells of an EndpointSlice whether a controller fills it with the addresses of pods. The controller
// takes one that went back to old addresses for what it wrote then, and leaves it.
func isMadeByController(value []byte) bool {
	slice, isKnown := decode(value, &discoveryv1.EndpointSlice{})
	return isKnown && strings.HasSuffix(slice.Labels[discoveryv1.LabelManagedBy], "-controller.k8s.io")
}

// withOwn gives a snapshot of another cluster what every cluster has: this one has it with its own addresses, keys and
// credentials.
func withOwn(saved, own keyValues) keyValues {
	all := maps.Clone(saved)
	// Folders of another machine.
	maps.DeleteFunc(all, func(key string, _ []byte) bool { return strings.HasPrefix(key, mountPrefix) })
	maps.Copy(all, own)
	return all
}

// areOfOneCluster compares what identifies a cluster: the UID of the namespace kube-system.
func areOfOneCluster(one, other keyValues) bool {
	const key = namespacePrefix + "kube-system"
	first, isKnown := decode(one[key], &corev1.Namespace{})
	second, isOtherKnown := decode(other[key], &corev1.Namespace{})
	return isKnown && isOtherKnown && first.UID == second.UID
}

// adaptPod returns nil for a pod that is not put back.
func adaptPod(value []byte) []byte {
	pod, isKnown := decode(value, &corev1.Pod{})
	if !isKnown {
		return nil
	}
	hasEnded := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	switch {
	case pod.DeletionTimestamp != nil:
		return nil
	case hasEnded:
		// The record of work that is done: a Job counts it.
		return value
	case metav1.GetControllerOf(pod) != nil:
		return nil
	}
	pod.UID = uuid.NewUUID()
	pod.Spec.NodeName = ""
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: pod.Status.QOSClass}
	return encode(pod)
}

// adaptVolume names this cluster's node in a volume of a node, which has another name where the cluster has.
func adaptVolume(value []byte, nodeName string) []byte {
	volume, isKnown := decode(value, &corev1.PersistentVolume{})
	if !isKnown || volume.Spec.Local == nil || volume.Spec.NodeAffinity == nil || volume.Spec.NodeAffinity.Required == nil {
		return value
	}
	for _, term := range volume.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for i := range term.MatchExpressions {
			if term.MatchExpressions[i].Key == corev1.LabelHostname {
				term.MatchExpressions[i].Values = []string{nodeName}
			}
		}
	}
	return encode(volume)
}

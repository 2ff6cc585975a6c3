package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
)

const (
	classKind = "GatewayClass"
	// On what is made here: the version of the bundle. Whoever applies other definitions takes it away, or leaves it
	// beside another version or channel in upstream's own annotations.
	ownVersionAnnotation = "sandbar.dev/gateway-api"
	versionAnnotation    = gatewayGroup + "/bundle-version"
	channelAnnotation    = gatewayGroup + "/channel"
	ownChannel           = "standard"
	approvalAnnotation   = "api-approved.kubernetes.io"
	// After a definition is established, a server lets the first object of the type wait so long, for the sake of
	// other servers that may not know of it yet.
	creationDelay = 2 * time.Second
	// What upstream's instructions apply definitions with. As it owns the fields, applying others meets no conflict.
	fieldManager = "kubectl"
)

// ownObject is an object as the server stores it. Most of a definition is only passed on.
type ownObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              json.RawMessage `json:"spec"`
	Status            json.RawMessage `json:"status,omitempty"`
}

// definitionSpec is what a definition's status repeats.
type definitionSpec struct {
	Names    apiextensionsv1.CustomResourceDefinitionNames `json:"names"`
	Versions []struct {
		Name    string `json:"name"`
		Storage bool   `json:"storage"`
	} `json:"versions"`
}

// readOwn reads an object that was made here and that nobody put other definitions in place of.
func readOwn(value []byte) (object ownObject, isOwn bool) {
	if json.Unmarshal(value, &object) != nil || object.version() == "" || object.DeletionTimestamp != nil {
		return object, false
	}
	upstream, isDefinition := object.Annotations[versionAnnotation]
	return object, !isDefinition || upstream == object.version() && object.Annotations[channelAnnotation] == ownChannel
}

func (o ownObject) key() string {
	if o.Kind == classKind {
		return classPrefix + o.Name
	}
	return definitionPrefix + o.Name
}

// version is that of the bundle that it was made from.
func (o ownObject) version() string { return o.Annotations[ownVersionAnnotation] }

// isAsMade tells whether nobody has changed it since it was made.
func (o ownObject) isAsMade(wanted ownObject) bool {
	return (o.Generation == 1 || bytes.Equal(o.Spec, wanted.Spec)) && len(o.Finalizers) == 0 &&
		maps.Equal(o.Annotations, wanted.Annotations) && maps.Equal(o.Labels, wanted.Labels)
}

// object returns the class.
func (c GatewayClass) object(version string) ownObject {
	return ownObject{
		TypeMeta:   metav1.TypeMeta{APIVersion: gatewayGroup + "/v1", Kind: classKind},
		ObjectMeta: metav1.ObjectMeta{Name: c.Name, Annotations: map[string]string{ownVersionAnnotation: version}},
		Spec:       mustEncode(map[string]string{"controllerName": c.ControllerName}),
	}
}

// made returns the object as the server would have stored it, which for a definition takes several controllers.
func (o ownObject) made() ownObject {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	o.UID, o.CreationTimestamp, o.Generation = uuid.NewUUID(), now, 1
	if o.Kind == classKind {
		return o
	}
	o.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: fieldManager, Operation: metav1.ManagedFieldsOperationApply, APIVersion: o.APIVersion,
		Time: &now, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: mustEncode(o.appliedFields())},
	}}
	since := metav1.NewTime(now.Add(-creationDelay))
	condition := func(kind apiextensionsv1.CustomResourceDefinitionConditionType, reason, message string) apiextensionsv1.CustomResourceDefinitionCondition {
		return apiextensionsv1.CustomResourceDefinitionCondition{
			Type: kind, Status: apiextensionsv1.ConditionTrue, LastTransitionTime: since, Reason: reason, Message: message,
		}
	}
	spec := mustDecode[definitionSpec](o.Spec)
	status := apiextensionsv1.CustomResourceDefinitionStatus{
		AcceptedNames: spec.Names,
		Conditions: []apiextensionsv1.CustomResourceDefinitionCondition{
			condition(apiextensionsv1.KubernetesAPIApprovalPolicyConformant, "ApprovedAnnotation", "approved in "+o.Annotations[approvalAnnotation]),
			condition(apiextensionsv1.NamesAccepted, "NoConflicts", "no conflicts found"),
			condition(apiextensionsv1.Established, "InitialNamesAccepted", "the initial names have been accepted"),
		},
	}
	for _, version := range spec.Versions {
		if version.Storage {
			status.StoredVersions = []string{version.Name}
		}
	}
	o.Status = mustEncode(status)
	return o
}

// insteadOf returns the object as it takes the place of another version of itself.
func (o ownObject) insteadOf(current ownObject) ownObject {
	o = o.made()
	o.UID, o.CreationTimestamp, o.Generation = current.UID, current.CreationTimestamp, current.Generation+1
	if o.Kind != classKind {
		status := mustDecode[apiextensionsv1.CustomResourceDefinitionStatus](o.Status)
		before := mustDecode[apiextensionsv1.CustomResourceDefinitionStatus](current.Status)
		for _, version := range before.StoredVersions {
			if !slices.Contains(status.StoredVersions, version) {
				status.StoredVersions = append(status.StoredVersions, version)
			}
		}
		o.Status = mustEncode(status)
	}
	return o
}

// appliedFields names the fields that the definition sets. Lists are one field each.
func (o ownObject) appliedFields() map[string]any {
	spec := map[string]any{}
	for name, value := range mustDecode[map[string]json.RawMessage](o.Spec) {
		spec["f:"+name] = map[string]any{}
		if name == "names" {
			spec["f:"+name] = fieldsOf(mustDecode[map[string]any](value))
		}
	}
	metadata := map[string]any{"f:annotations": fieldsOf(o.Annotations)}
	if len(o.Labels) > 0 {
		metadata["f:labels"] = fieldsOf(o.Labels)
	}
	return map[string]any{"f:metadata": metadata, "f:spec": spec}
}

func fieldsOf[T any](values map[string]T) map[string]any {
	fields := map[string]any{}
	for name := range values {
		fields["f:"+name] = map[string]any{}
	}
	return fields
}

// What these two are given is part of the image, or was decoded before.

func mustDecode[T any](content []byte) (value T) {
	if err := json.Unmarshal(content, &value); err != nil {
		panic(fmt.Errorf("%s: %w", bundlePath, err))
	}
	return value
}

func mustEncode(value any) []byte {
	content, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return content
}

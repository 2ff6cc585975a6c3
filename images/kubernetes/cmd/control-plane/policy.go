package main

import (
	"context"
	"strings"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// bootstrapClusterPolicy brings the built-in cluster roles and bindings up to date, with upstream's own rules for
// what counts as up to date. What exists is read with one list per kind instead of one request per object.
func bootstrapClusterPolicy(ctx context.Context, client rbacclient.RbacV1Interface, written *written) error {
	roles, err := client.ClusterRoles().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	bindings, err := client.ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	knownRoles := knownRoles{reconciliation.ClusterRoleModifier{Client: client.ClusterRoles()}, map[string]reconciliation.RuleOwner{}}
	for i := range roles.Items {
		knownRoles.add(reconciliation.ClusterRoleRuleOwner{ClusterRole: &roles.Items[i]})
	}
	knownBindings := knownBindings{reconciliation.ClusterRoleBindingClientAdapter{Client: client.ClusterRoleBindings()}, map[string]reconciliation.RoleBinding{}}
	for i := range bindings.Items {
		knownBindings.add(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &bindings.Items[i]})
	}

	group := &errgroup.Group{}
	group.SetLimit(bootstrapConcurrency)
	for _, role := range append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...) {
		reconcileRole(group, knownRoles, written, reconciliation.ClusterRoleRuleOwner{ClusterRole: &role})
	}
	for _, binding := range append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...) {
		reconcileBinding(group, knownBindings, written, reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &binding})
	}
	return group.Wait()
}

// bootstrapNamespacePolicy does the same for the roles inside the system namespaces, which must exist.
func bootstrapNamespacePolicy(ctx context.Context, client kubernetes.Interface, written *written) error {
	roles, err := client.RbacV1().Roles(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	bindings, err := client.RbacV1().RoleBindings(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	namespaces := client.CoreV1().Namespaces()
	knownRoles := knownRoles{reconciliation.RoleModifier{Client: client.RbacV1(), NamespaceClient: namespaces}, map[string]reconciliation.RuleOwner{}}
	for i := range roles.Items {
		knownRoles.add(reconciliation.RoleRuleOwner{Role: &roles.Items[i]})
	}
	knownBindings := knownBindings{reconciliation.RoleBindingClientAdapter{Client: client.RbacV1(), NamespaceClient: namespaces}, map[string]reconciliation.RoleBinding{}}
	for i := range bindings.Items {
		knownBindings.add(reconciliation.RoleBindingAdapter{RoleBinding: &bindings.Items[i]})
	}

	group := &errgroup.Group{}
	group.SetLimit(bootstrapConcurrency)
	for _, inNamespace := range bootstrappolicy.NamespaceRoles() {
		for _, role := range inNamespace {
			reconcileRole(group, knownRoles, written, reconciliation.RoleRuleOwner{Role: &role})
		}
	}
	for _, inNamespace := range bootstrappolicy.NamespaceRoleBindings() {
		for _, binding := range inNamespace {
			reconcileBinding(group, knownBindings, written, reconciliation.RoleBindingAdapter{RoleBinding: &binding})
		}
	}
	return group.Wait()
}

func reconcileRole(group *errgroup.Group, client knownRoles, written *written, role reconciliation.RuleOwner) {
	group.Go(func() error {
		result, err := (&reconciliation.ReconcileRoleOptions{Role: role, Client: client, Confirm: true}).Run()
		if err == nil && result.Operation != reconciliation.ReconcileNone {
			written.add("role " + strings.TrimPrefix(role.GetNamespace()+"/"+role.GetName(), "/"))
		}
		return err
	})
}

func reconcileBinding(group *errgroup.Group, client knownBindings, written *written, binding reconciliation.RoleBinding) {
	group.Go(func() error {
		result, err := (&reconciliation.ReconcileRoleBindingOptions{RoleBinding: binding, Client: client, Confirm: true}).Run()
		if err == nil && result.Operation != reconciliation.ReconcileNone {
			written.add("role binding " + strings.TrimPrefix(binding.GetNamespace()+"/"+binding.GetName(), "/"))
		}
		return err
	})
}

// knownRoles answers reads from what was listed and passes writes on.
type knownRoles struct {
	reconciliation.RuleOwnerModifier
	byName map[string]reconciliation.RuleOwner
}

func (k knownRoles) add(role reconciliation.RuleOwner) {
	k.byName[role.GetNamespace()+"/"+role.GetName()] = role
}

// Get answers from the list.
func (k knownRoles) Get(namespace, name string) (reconciliation.RuleOwner, error) {
	if role, ok := k.byName[namespace+"/"+name]; ok {
		return role, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: "roles"}, name)
}

// knownBindings answers reads from what was listed and passes writes on.
type knownBindings struct {
	reconciliation.RoleBindingModifier
	byName map[string]reconciliation.RoleBinding
}

func (k knownBindings) add(binding reconciliation.RoleBinding) {
	k.byName[binding.GetNamespace()+"/"+binding.GetName()] = binding
}

// Get answers from the list.
func (k knownBindings) Get(namespace, name string) (reconciliation.RoleBinding, error) {
	if binding, ok := k.byName[namespace+"/"+name]; ok {
		return binding, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: "rolebindings"}, name)
}

package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
)

func TestEnsureTriesAgainUntilTheServerIsReadyForTheObject(t *testing.T) {
	attempts := 0
	err := ensure(t.Context(), desiredObject{
		name: "Service s3",
		create: func(context.Context) error {
			if attempts++; attempts < 3 {
				return apierrors.NewInternalError(errors.New("allocator is not ready"))
			}
			return nil
		},
		get: func(context.Context) error {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "services"}, "s3")
		},
	})
	if err != nil || attempts != 3 {
		t.Fatalf("error %v after %d attempts", err, attempts)
	}
}

func TestEnsureTakesAnObjectThatExistsAndIsRefusedForItsContent(t *testing.T) {
	err := ensure(t.Context(), desiredObject{
		create: func(context.Context) error {
			return apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "dns", nil)
		},
		get: func(context.Context) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEnsureNamesTheObjectThatCannotBeMade(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	refuse := func(context.Context) error { return errors.New("spec.ports: Required value") }
	err := ensure(ctx, desiredObject{name: "Service s3", create: refuse, get: refuse})
	if err == nil || !strings.Contains(err.Error(), "create Service s3: spec.ports: Required value") {
		t.Fatalf("error is %v", err)
	}
}

func TestBootstrapPolicyWritesOnlyWhatIsMissing(t *testing.T) {
	client := fake.NewClientset()
	for _, namespace := range systemNamespaces {
		if err := ensure(t.Context(), desired(client.CoreV1().Namespaces(), "Namespace", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})); err != nil {
			t.Fatal(err)
		}
	}
	bootstrapBoth := func() (writes int) {
		client.ClearActions()
		if err := errors.Join(bootstrapClusterPolicy(t.Context(), client.RbacV1(), &written{}), bootstrapNamespacePolicy(t.Context(), client, &written{})); err != nil {
			t.Fatal(err)
		}
		for _, action := range client.Actions() {
			if verb := action.GetVerb(); verb != "list" && verb != "get" && action.GetResource().Group != "" {
				writes++
			}
		}
		return writes
	}
	if writes := bootstrapBoth(); writes < 100 {
		t.Fatalf("the first time wrote %d objects", writes)
	}
	if writes := bootstrapBoth(); writes != 0 {
		t.Fatalf("the second time wrote %d objects", writes)
	}
	if err := client.RbacV1().ClusterRoles().Delete(t.Context(), "view", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if writes := bootstrapBoth(); writes != 1 {
		t.Fatalf("after one deletion wrote %d objects", writes)
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
)

const (
	// Each write waits for the disk; etcd puts those that wait at the same time into one flush.
	bootstrapConcurrency = 24
	bootstrapTimeout     = 30 * time.Second
	bootstrapRetryDelay  = 20 * time.Millisecond
)

var systemNamespaces = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}

// desiredObject is something that must exist before the API server calls itself ready. What it looks like once it
// exists is not looked at: from then on it is the user's.
type desiredObject struct {
	name        string
	create, get func(context.Context) error
}

// bootstrap makes everything exist that a client of a ready cluster may count on. All of it goes through the API,
// so admission, defaulting and validation apply to it as to any other object.
func bootstrap(ctx context.Context, config *rest.Config, objects []unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	namespaces, others, err := objectsFromFile(ctx, config, objects)
	if err != nil {
		return err
	}
	namespaces = append(namespaces, namespaceObjects(client)...)
	others = append(others, priorityClassObjects(client)...)
	rootCertificates, err := os.ReadFile(pkiDirectory + "root-ca.crt")
	if err != nil {
		return err
	}
	others = append(others, namespaceContents(client, string(rootCertificates))...)

	policy, ctxPolicy := errgroup.WithContext(ctx)
	policy.Go(func() error { return bootstrapClusterPolicy(ctxPolicy, client.RbacV1(), &written{}) })
	if err := ensureAll(ctx, namespaces); err != nil {
		return err
	}
	policy.Go(func() error { return bootstrapNamespacePolicy(ctxPolicy, client, &written{}) })
	if err := ensureAll(ctx, others); err != nil {
		return err
	}
	return policy.Wait()
}

// repairObjects makes again what was deleted of the objects that every cluster has, and returns their names.
func repairObjects(ctx context.Context, config *rest.Config) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	rootCertificates, err := os.ReadFile(pkiDirectory + "root-ca.crt")
	if err != nil {
		return nil, err
	}
	namespaces, err := missing(ctx, namespaceObjects(client))
	if err != nil {
		return nil, err
	}
	others, err := missing(ctx, append(priorityClassObjects(client), namespaceContents(client, string(rootCertificates))...))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(ensureAll(ctx, namespaces), ensureAll(ctx, others)); err != nil {
		return nil, err
	}
	written := &written{}
	for _, object := range append(namespaces, others...) {
		written.add(object.name)
	}
	err = errors.Join(bootstrapClusterPolicy(ctx, client.RbacV1(), written), bootstrapNamespacePolicy(ctx, client, written))
	return written.names, err
}

// written collects names of objects that were made or changed.
type written struct {
	lock  sync.Mutex
	names []string
}

func (w *written) add(name string) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.names = append(w.names, name)
}

// missing returns those of the objects that are not there.
func missing(ctx context.Context, objects []desiredObject) ([]desiredObject, error) {
	isMissing := make([]bool, len(objects))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(bootstrapConcurrency)
	for i, object := range objects {
		group.Go(func() error {
			err := object.get(ctx)
			isMissing[i] = apierrors.IsNotFound(err)
			if isMissing[i] {
				return nil
			}
			return err
		})
	}
	err := group.Wait()
	var found []desiredObject
	for i, object := range objects {
		if isMissing[i] {
			found = append(found, object)
		}
	}
	return found, err
}

func ensureAll(ctx context.Context, objects []desiredObject) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(bootstrapConcurrency)
	for _, object := range objects {
		group.Go(func() error { return ensure(ctx, object) })
	}
	return group.Wait()
}

// ensure tries again whatever the error is: while the server starts, caches and allocators that are not ready yet
// answer with errors of many kinds. The last one is reported when the time is over.
func ensure(ctx context.Context, object desiredObject) error {
	for {
		err := object.create(ctx)
		if err == nil || apierrors.IsAlreadyExists(err) {
			return nil
		}
		// A Service that exists with a fixed address is refused for its address, not for its name.
		if object.get(ctx) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("create %s: %w", object.name, err)
		case <-time.After(bootstrapRetryDelay):
		}
	}
}

// creator is what typed clients have in common.
type creator[T any] interface {
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Get(context.Context, string, metav1.GetOptions) (T, error)
}

func desired[T metav1.Object](client creator[T], kind string, object T) desiredObject {
	return desiredObject{
		name: kind + " " + strings.TrimPrefix(object.GetNamespace()+"/"+object.GetName(), "/"),
		create: func(ctx context.Context) error {
			_, err := client.Create(ctx, object, metav1.CreateOptions{})
			return err
		},
		get: func(ctx context.Context) error {
			_, err := client.Get(ctx, object.GetName(), metav1.GetOptions{})
			return err
		},
	}
}

func namespaceObjects(client kubernetes.Interface) []desiredObject {
	var objects []desiredObject
	for _, name := range systemNamespaces {
		objects = append(objects, desired(client.CoreV1().Namespaces(), "Namespace", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	return objects
}

func priorityClassObjects(client kubernetes.Interface) []desiredObject {
	var objects []desiredObject
	for _, class := range v1.SystemPriorityClasses() {
		objects = append(objects, desired(client.SchedulingV1().PriorityClasses(), "PriorityClass", class))
	}
	return objects
}

// namespaceContents are the two objects that the controller manager would put into each namespace once it runs, and
// that every pod waits for. Made here, the first pod does not wait.
func namespaceContents(client kubernetes.Interface, rootCertificates string) []desiredObject {
	var objects []desiredObject
	for _, namespace := range systemNamespaces {
		objects = append(objects,
			desired(client.CoreV1().ServiceAccounts(namespace), "ServiceAccount", &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}),
			desired(client.CoreV1().ConfigMaps(namespace), "ConfigMap", &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{
					Name:        rootcacertpublisher.RootCACertConfigMapName,
					Annotations: map[string]string{rootcacertpublisher.DescriptionAnnotation: rootcacertpublisher.Description},
				},
				Data: map[string]string{"ca.crt": rootCertificates},
			}),
		)
	}
	return objects
}

// readObjects reads the objects that the command line wants to exist; there may be none.
func readObjects(path string) ([]unstructured.Unstructured, error) {
	content, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read objects: %w", err)
	}
	var objects []unstructured.Unstructured
	if err := json.Unmarshal(content, &objects); err != nil {
		return nil, fmt.Errorf("read objects %s: %w", path, err)
	}
	return objects, nil
}

// objectsFromFile tells Namespaces from the rest, because the rest may live in them.
func objectsFromFile(ctx context.Context, config *rest.Config, objects []unstructured.Unstructured) (namespaces, others []desiredObject, err error) {
	if len(objects) == 0 {
		return nil, nil, nil
	}
	config = rest.CopyConfig(config)
	config.ContentType = "application/json"
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	resources := resourceFinder{discovery.NewDiscoveryClientForConfigOrDie(config), map[schema.GroupVersion]*metav1.APIResourceList{}}
	for _, object := range objects {
		resource, isNamespaced, err := resources.find(object.GroupVersionKind())
		if err != nil {
			return nil, nil, fmt.Errorf("%s %s in %s: %w", object.GetKind(), object.GetName(), objectsPath, err)
		}
		var target creatorWithSubresources = client.Resource(resource)
		if isNamespaced {
			target = client.Resource(resource).Namespace(object.GetNamespace())
		}
		entry := desired(withoutSubresources{target}, object.GetKind(), &object)
		if object.GetKind() == "Service" {
			entry.create = afterServiceRepair(resources.client.RESTClient(), entry.create)
		}
		if object.GetKind() == "Namespace" {
			namespaces = append(namespaces, entry)
		} else {
			others = append(others, entry)
		}
	}
	return namespaces, others, nil
}

// afterServiceRepair has a Service made only when the server has looked over those that there are. Made meanwhile, one
// may be seen before its address is: the server then gives it the address once more, fails, and never becomes ready.
func afterServiceRepair(client rest.Interface, create func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := client.Get().AbsPath("/readyz/poststarthook/start-service-ip-repair-controllers").Do(ctx).Error(); err != nil {
			return fmt.Errorf("services are still being looked over: %w", err)
		}
		return create(ctx)
	}
}

// The dynamic client's methods take an optional subresource, and so are not those of the typed clients.
type creatorWithSubresources interface {
	Create(context.Context, *unstructured.Unstructured, metav1.CreateOptions, ...string) (*unstructured.Unstructured, error)
	Get(context.Context, string, metav1.GetOptions, ...string) (*unstructured.Unstructured, error)
}

type withoutSubresources struct{ client creatorWithSubresources }

func (w withoutSubresources) Create(ctx context.Context, object *unstructured.Unstructured, options metav1.CreateOptions) (*unstructured.Unstructured, error) {
	return w.client.Create(ctx, object, options)
}

func (w withoutSubresources) Get(ctx context.Context, name string, options metav1.GetOptions) (*unstructured.Unstructured, error) {
	return w.client.Get(ctx, name, options)
}

// resourceFinder asks only about the groups that are used: the whole discovery document takes long to make and read.
type resourceFinder struct {
	client discovery.DiscoveryInterface
	known  map[schema.GroupVersion]*metav1.APIResourceList
}

func (f resourceFinder) find(kind schema.GroupVersionKind) (resource schema.GroupVersionResource, isNamespaced bool, err error) {
	groupVersion := kind.GroupVersion()
	if f.known[groupVersion] == nil {
		list, err := f.client.ServerResourcesForGroupVersion(groupVersion.String())
		if err != nil {
			return resource, false, err
		}
		f.known[groupVersion] = list
	}
	for _, candidate := range f.known[groupVersion].APIResources {
		if candidate.Kind == kind.Kind && candidate.Group == "" && candidate.Version == "" {
			return groupVersion.WithResource(candidate.Name), candidate.Namespaced, nil
		}
	}
	return resource, false, fmt.Errorf("the API server has no kind %s in %s", kind.Kind, groupVersion)
}

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	registration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"

	"sandbar.dev/kubernetes/objects"
)

const (
	registrationsPath = "/etc/sandbar/registrations.json"
	// Key of the label of APIServices that are made and removed here. Resets leave these alone.
	registrationLabel = "sandbar.dev/registered"

	// A server that is awaited is mostly there soon. Each pause is a quarter longer than the one before.
	firstRegistrationPause   = 500 * time.Millisecond
	longestRegistrationPause = 10 * time.Second
	registrationTimeout      = 2 * time.Second
	// A server that is started again is back sooner.
	absenceTolerated = 3 * time.Second
)

// registrar has APIServices be there as long as their servers answer. One that leads nowhere has every kubectl
// complain, holds up the deletion of namespaces, and would do so in the first seconds of each start.
type registrar struct {
	wanted []*registration.APIService
	lister interface {
		Get(name string) (*registration.APIService, error)
	}
	registrations interface {
		Create(context.Context, *registration.APIService, metav1.CreateOptions) (*registration.APIService, error)
		Delete(context.Context, string, metav1.DeleteOptions) error
	}
	answers func(context.Context, *registration.APIService) error
	// Something has happened to one of those that are wanted.
	changed chan struct{}
}

func newRegistrar(server *apiServer) (*registrar, error) {
	content, err := os.ReadFile(registrationsPath)
	if err != nil {
		return nil, err
	}
	var wanted []*registration.APIService
	if err := json.Unmarshal(content, &wanted); err != nil {
		return nil, fmt.Errorf("read %s: %w", registrationsPath, err)
	}
	client, err := clientset.NewForConfig(server.clientConfig())
	if err != nil {
		return nil, err
	}
	services, err := kubernetes.NewForConfig(server.clientConfig())
	if err != nil {
		return nil, err
	}
	informer := server.aggregator.APIRegistrationInformers.Apiregistration().V1().APIServices()
	r := &registrar{
		wanted:        wanted,
		lister:        informer.Lister(),
		registrations: client.ApiregistrationV1().APIServices(),
		answers: func(ctx context.Context, service *registration.APIService) error {
			return shakeHands(ctx, services, service)
		},
		changed: make(chan struct{}, 1),
	}
	_, err = informer.Informer().AddEventHandler(cache.FilteringResourceEventHandler{
		FilterFunc: r.isWanted,
		Handler:    objects.Whenever(r.change),
	})
	return r, err
}

func (r *registrar) isWanted(object any) bool {
	name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
	return err == nil && slices.ContainsFunc(r.wanted, func(service *registration.APIService) bool { return service.Name == name })
}

func (r *registrar) change() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// run sleeps as long as all is well: the API server itself notices when a server no longer answers.
func (r *registrar) run(ctx context.Context) {
	pause := firstRegistrationPause
	for {
		var again <-chan time.Time
		if !r.settleAll(ctx) {
			again = time.After(pause)
			pause = min(pause+pause/4, longestRegistrationPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
			pause = firstRegistrationPause
		case <-again:
		}
	}
}

func (r *registrar) settleAll(ctx context.Context) (areSettled bool) {
	areSettled = true
	for _, service := range r.wanted {
		isSettled, err := r.settle(ctx, service)
		if err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Could not make or remove an APIService", "name", service.Name)
		}
		areSettled = areSettled && isSettled && err == nil
	}
	return areSettled
}

// settle tells whether there is nothing more to do until the APIService changes.
func (r *registrar) settle(ctx context.Context, wanted *registration.APIService) (isSettled bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, registrationTimeout)
	defer cancel()
	found, err := r.lister.Get(wanted.Name)
	switch {
	case apierrors.IsNotFound(err):
		if r.answers(ctx, wanted) != nil {
			return false, nil
		}
		_, err = r.registrations.Create(ctx, wanted.DeepCopy(), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			err = nil
		}
		return true, err
	case err != nil:
		return false, err
	case !isRegistered(found.Labels):
		return true, nil
	}
	since, isUnavailable := unavailableSince(found)
	if isUnavailable && time.Since(since) > absenceTolerated && r.answers(ctx, wanted) != nil {
		return true, r.registrations.Delete(ctx, wanted.Name, *metav1.NewPreconditionDeleteOptions(string(found.UID)))
	}
	return !isUnavailable, nil
}

// isRegistered tells ours from one that a user has put in its place.
func isRegistered(labels map[string]string) bool {
	_, isOurs := labels[registrationLabel]
	return isOurs
}

// unavailableSince tells since when the API server has found nobody to forward requests to.
func unavailableSince(service *registration.APIService) (since time.Time, isUnavailable bool) {
	for _, condition := range service.Status.Conditions {
		if condition.Type == registration.Available {
			return condition.LastTransitionTime.Time, condition.Status == registration.ConditionFalse
		}
	}
	return time.Time{}, false
}

// shakeHands goes the way of the requests that are to be forwarded: to the Service's address, by TLS.
func shakeHands(ctx context.Context, client kubernetes.Interface, wanted *registration.APIService) error {
	at := wanted.Spec.Service
	service, err := client.CoreV1().Services(at.Namespace).Get(ctx, at.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(wanted.Spec.CABundle)
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: at.Name + "." + at.Namespace + ".svc"}}
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(*at.Port))))
	if err != nil {
		return err
	}
	return connection.Close()
}

// forgetRegistrations has a start begin without them: their servers may come up later than this one, or not at all.
func (d *datastore) forgetRegistrations(ctx context.Context) error {
	found, err := d.client.Get(ctx, apiServicePrefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for _, entry := range found.Kvs {
		if !isRegistration(string(entry.Key), entry.Value) {
			continue
		}
		if _, err := d.client.Delete(ctx, string(entry.Key)); err != nil {
			return err
		}
	}
	return nil
}

// isRegistration tells of what is stored whether it is an APIService that is made and removed here.
func isRegistration(key string, value []byte) bool {
	return strings.HasPrefix(key, apiServicePrefix) && bytes.Contains(value, []byte(registrationLabel))
}

package main

import (
	"net/http"
	"os"
	"path"
	"strings"

	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

const (
	apiServerName         = "kube-apiserver"
	controllerManagerName = "kube-controller-manager"
	schedulerName         = "kube-scheduler"
)

// nameProcess makes the API server's own clients call themselves what they are called elsewhere: client-go takes a
// client's name from the command, and the server writes it into the managedFields of what the client changes.
func nameProcess() {
	os.Args[0] = apiServerName
}

// asComponent makes requests appear as in a cluster of separate processes. They all come over the API server's own
// connection, which may do anything; without this, admission webhooks, policies and audit logs would see one
// all-powerful user, and a controller that oversteps its role would go unnoticed.
func asComponent(config *rest.Config, component string) *rest.Config {
	config = rest.CopyConfig(config)
	users := controllerUsers()
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripperFunc(func(request *http.Request) (*http.Response, error) {
			agent := request.Header.Get("User-Agent")
			user, isController := users[path.Base(agent)]
			if !isController {
				user = "system:" + component
			}
			request = request.Clone(request.Context())
			request.Header.Set(transport.ImpersonateUserHeader, user)
			request.Header.Set("User-Agent", component+strings.TrimPrefix(agent, apiServerName))
			return next.RoundTrip(request)
		})
	})
	return config
}

// controllerUsers maps the name that a controller gives its client to the service account that has its role.
func controllerUsers() map[string]string {
	users := map[string]string{}
	for _, binding := range bootstrappolicy.ControllerRoleBindings() {
		for _, subject := range binding.Subjects {
			users[subject.Name] = serviceaccount.MakeUsername(subject.Namespace, subject.Name)
		}
	}
	return users
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

// RoundTrip calls the function.
func (f roundTripperFunc) RoundTrip(request *http.Request) (*http.Response, error) {
	return f(request)
}

package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestAsComponentGivesEachControllerTheUserOfItsRole(t *testing.T) {
	var got http.Header
	server := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		got = request.Header
		response.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	for client, want := range map[string]string{
		"replicaset-controller": "system:serviceaccount:kube-system:replicaset-controller",
		"shared-informers":      "system:kube-controller-manager",
	} {
		config := rest.AddUserAgent(asComponent(&rest.Config{Host: server.URL}, controllerManagerName), client)
		_, _ = kubernetes.NewForConfigOrDie(config).CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
		if user := got.Get("Impersonate-User"); user != want {
			t.Errorf("%s acts as %q, want %q", client, user, want)
		}
	}
}

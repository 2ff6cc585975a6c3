package main

import (
	"fmt"
	"net/http"
	"time"

	clientset "k8s.io/client-go/kubernetes"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// clients makes clients whose requests wait until the API server is ready. So everything can start beside the server,
// and nothing falls into the ever longer pauses that components make after failed requests.
type clients struct {
	apiReady <-chan struct{}
}

func (c clients) config(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", kubeconfig, err)
	}
	config.ContentType = protobuf
	config.AcceptContentTypes = protobuf + ",application/json"
	config.QPS = -1
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return waitingTransport{next, c.apiReady} })
	return config, nil
}

func (c clients) new(kubeconfig string) (clientset.Interface, error) {
	config, err := c.config(kubeconfig)
	if err != nil {
		return nil, err
	}
	return clientset.NewForConfig(config)
}

// connect gives the kubelet its clients, as it would make them from its own settings.
func (c clients) connect(server *options.KubeletServer, dependencies *kubelet.Dependencies) error {
	if server.RotateCertificates || server.BootstrapKubeconfig != "" {
		// The user's own arrangement: then upstream's client, which renews its certificate, is the right one.
		return nil
	}
	config, err := c.config(server.KubeConfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = float32(server.KubeAPIQPS), int(server.KubeAPIBurst)
	if dependencies.KubeClient, err = clientset.NewForConfig(config); err != nil {
		return err
	}
	eventConfig := rest.CopyConfig(config)
	eventConfig.QPS, eventConfig.Burst = float32(server.EventRecordQPS), int(server.EventBurst)
	if dependencies.EventClient, err = corev1.NewForConfig(eventConfig); err != nil {
		return err
	}
	heartbeatConfig := rest.CopyConfig(config)
	heartbeatConfig.QPS = -1
	heartbeatConfig.Timeout = min(server.NodeStatusUpdateFrequency.Duration,
		time.Duration(server.NodeLeaseDurationSeconds)*time.Second)
	dependencies.HeartbeatClient, err = clientset.NewForConfig(heartbeatConfig)
	// HTTP/2 finds dead connections by its own pings.
	dependencies.OnHeartbeatFailure = func() {}
	return err
}

type waitingTransport struct {
	next  http.RoundTripper
	ready <-chan struct{}
}

func (t waitingTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	select {
	case <-t.ready:
		return t.next.RoundTrip(request)
	case <-request.Context().Done():
		return nil, request.Context().Err()
	}
}

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	maintenancePath = "/sandbar/"
	// From when the server's caches know what a reset did until its clients in this process do.
	noticeDelay = 100 * time.Millisecond
	// A command line that was stopped, as by Ctrl-Z, must not hold up a cluster for ever.
	longestHold = 10 * time.Minute
)

// maintenance is what the command line asks of a control plane that runs. Each request answers with JSON objects, one
// a line. The server's own authentication and authorization stand before it: only cluster administrators get here.
type maintenance struct {
	datastore *datastore
	gateway   *gatewayAPI
	client    *rest.Config
}

// progress is a line of an answer.
type progress struct {
	Phase   string `json:"phase"`
	Message string `json:"message,omitempty"`
}

func (m maintenance) handler() http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("POST "+maintenancePath+"reset", m.reset)
	routes.HandleFunc("POST "+maintenancePath+"hold", m.hold)
	routes.HandleFunc("POST "+maintenancePath+"repair", m.repair)
	return routes
}

// withMaintenance keeps the server from ending our requests as it ends other ones, after a minute.
func withMaintenance(isLongRunning apirequest.LongRunningRequestCheck) apirequest.LongRunningRequestCheck {
	return func(request *http.Request, info *apirequest.RequestInfo) bool {
		return isLongRunning(request, info) || strings.HasPrefix(request.URL.Path, maintenancePath)
	}
}

// reset brings the datastore back to the golden copy, or to a snapshot.
func (m maintenance) reset(response http.ResponseWriter, request *http.Request) {
	answer := lines(response)
	var wish struct {
		From string `json:"from"`
		Keep Keep   `json:"keep"`
	}
	if err := json.NewDecoder(request.Body).Decode(&wish); err != nil || wish.From != "golden" && wish.From != "snapshot" {
		response.WriteHeader(http.StatusBadRequest)
		answer(progress{"failed", `the body has to be {"from": "golden" or "snapshot", "keep": {…}}`})
		return
	}
	saved, err := m.datastore.saved(wish.From)
	if err != nil {
		response.WriteHeader(http.StatusConflict)
		answer(progress{"failed", err.Error()})
		return
	}
	if wish.From == "golden" {
		withGateway, err := m.gateway.forReset()
		if err != nil {
			response.WriteHeader(http.StatusInternalServerError)
			answer(progress{"failed", err.Error()})
			return
		}
		golden := saved
		saved = func(current keyValues) keyValues { return withGateway(golden(current), current) }
	}
	// Begun, it is finished, whoever still listens: half of a reset is worse than all of it.
	ctx := context.WithoutCancel(request.Context())
	open := sync.OnceFunc(m.datastore.gate.refuse())
	defer open()
	if request.Context().Err() != nil {
		// Nobody waits for it any more.
		return
	}
	answer(progress{Phase: "held"})
	done, err := wash(ctx, m.datastore.client, func(current keyValues) keyValues {
		return target(saved(current), current, m.datastore.node(), wish.Keep)
	})
	if err == nil {
		answer(progress{Phase: "back"})
		err = m.waitUntilNoticed(ctx)
	}
	open()
	if err != nil {
		answer(progress{"failed", err.Error()})
		return
	}
	answer(struct {
		progress
		washed
	}{progress{Phase: "done"}, done})
}

// waitUntilNoticed returns when controllers know what has happened. Had they been let write before, they would have
// acted upon what is gone, such as making a pod for a ReplicaSet that was there a moment ago.
func (m maintenance) waitUntilNoticed(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(m.client)
	if err != nil {
		return err
	}
	group, ctxLists := errgroup.WithContext(ctx)
	for _, path := range []string{
		"/api/v1/configmaps", "/api/v1/endpoints", "/api/v1/namespaces", "/api/v1/nodes", "/api/v1/persistentvolumeclaims",
		"/api/v1/persistentvolumes", "/api/v1/pods", "/api/v1/replicationcontrollers", "/api/v1/secrets", "/api/v1/serviceaccounts",
		"/api/v1/services", "/apis/apps/v1/daemonsets", "/apis/apps/v1/deployments", "/apis/apps/v1/replicasets",
		"/apis/apps/v1/statefulsets", "/apis/autoscaling/v2/horizontalpodautoscalers", "/apis/batch/v1/cronjobs", "/apis/batch/v1/jobs",
		"/apis/discovery.k8s.io/v1/endpointslices", "/apis/policy/v1/poddisruptionbudgets",
	} {
		group.Go(func() error {
			// Without a resourceVersion the server answers once its cache is as new as the datastore. No object has the name.
			err := client.CoreV1().RESTClient().Get().AbsPath(path).Param("fieldSelector", "metadata.name=-").Do(ctxLists).Error()
			if apierrors.IsNotFound(err) {
				// Turned off by the user; then no controller has it either.
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(noticeDelay):
		return nil
	}
}

// hold writes the datastore to a file and has all writes wait until the client ends the request.
func (m maintenance) hold(response http.ResponseWriter, request *http.Request) {
	answer := lines(response)
	var wish struct {
		SnapshotPath string `json:"snapshotPath"`
	}
	if err := json.NewDecoder(request.Body).Decode(&wish); err != nil || wish.SnapshotPath != m.datastore.path(snapshotFile) {
		response.WriteHeader(http.StatusBadRequest)
		answer(progress{"failed", `the body has to be {"snapshotPath": "` + m.datastore.path(snapshotFile) + `"}`})
		return
	}
	open := m.datastore.gate.hold()
	defer open()
	ctx, cancel := context.WithTimeout(request.Context(), longestHold)
	defer cancel()
	if ctx.Err() != nil {
		return
	}
	if err := writeCopy(m.datastore.etcd, wish.SnapshotPath); err != nil {
		answer(progress{"failed", err.Error()})
		return
	}
	answer(progress{Phase: "held"})
	<-ctx.Done()
}

// repair makes again what every cluster has and a user deleted, or what a golden copy of an older version lacks.
func (m maintenance) repair(response http.ResponseWriter, request *http.Request) {
	answer := lines(response)
	repaired, err := repairObjects(request.Context(), m.client)
	if err == nil {
		var isMade bool
		if isMade, err = m.datastore.repairNode(request.Context()); isMade {
			repaired = append(repaired, "Node "+m.datastore.nodeName)
		}
	}
	if err == nil && m.gateway.isMade.Load() {
		var made []string
		made, err = m.gateway.repair(request.Context())
		repaired = append(repaired, made...)
	}
	if err != nil {
		answer(progress{"failed", err.Error()})
		return
	}
	answer(struct {
		progress
		Repaired []string `json:"repaired"`
	}{progress{Phase: "done"}, append([]string{}, repaired...)})
}

// lines returns a function that sends an object as a line at once. Whoever asked may have gone.
func lines(response http.ResponseWriter) func(line any) {
	response.Header().Set("Content-Type", "application/x-ndjson")
	encoder := json.NewEncoder(response)
	controller := http.NewResponseController(response)
	return func(line any) {
		_ = encoder.Encode(line)
		_ = controller.Flush()
	}
}

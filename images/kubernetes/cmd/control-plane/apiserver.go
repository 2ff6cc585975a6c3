package main

import (
	"context"
	"errors"
	"time"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"
)

const (
	bootstrapHookName = "sandbar-bootstrap"
	readyPollInterval = 10 * time.Millisecond
)

type apiServer struct {
	aggregator *aggregator.APIAggregator
	// run serves until its context ends.
	run func(context.Context) error
}

func newAPIServer(ctx context.Context, options *componentOptions, datastore *datastore, gateway *gatewayAPI) (*apiServer, error) {
	objects, err := readObjects(objectsPath)
	if err != nil {
		return nil, err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	completed, err := options.apiServer.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	config, err := app.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	generic := config.KubeAPIs.ControlPlane.Generic
	generic.SkipOpenAPIInstallation = true // installOpenAPI does it
	// These two wait a second before they begin and then write one object after the other; ours does it all at once.
	generic.DisabledPostStartHooks.Insert(rbacrest.PostStartHookName, schedulingrest.PostStartHookName)
	generic.AddPostStartHookOrDie(bootstrapHookName, func(hook genericapiserver.PostStartHookContext) error {
		return bootstrap(hook, hook.LoopbackClientConfig, objects)
	})
	generic.AddPostStartHookOrDie(goldenHookName, datastore.keepGolden)
	config.Aggregator.GenericConfig.LongRunningFunc = withMaintenance(config.Aggregator.GenericConfig.LongRunningFunc)
	completedConfig, err := config.Complete()
	if err != nil {
		return nil, err
	}
	server, err := app.CreateServerChain(completedConfig)
	if err != nil {
		return nil, err
	}
	if kubeServer, ok := server.GenericAPIServer.NextDelegate().(*genericapiserver.GenericAPIServer); ok {
		installOpenAPI(kubeServer, generic)
	} else {
		return nil, errors.New("the aggregator delegates to something else")
	}
	maintenance := maintenance{datastore, gateway, server.GenericAPIServer.LoopbackClientConfig}
	server.GenericAPIServer.Handler.NonGoRestfulMux.HandlePrefix(maintenancePath, maintenance.handler())
	prepared, err := server.PrepareRun()
	if err != nil {
		return nil, err
	}
	return &apiServer{server, prepared.Run}, nil
}

// clientConfig connects to the API server with full rights, without leaving the process.
func (s *apiServer) clientConfig() *rest.Config {
	return rest.CopyConfig(s.aggregator.GenericAPIServer.LoopbackClientConfig)
}

func (s *apiServer) waitReady(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.clientConfig())
	if err != nil {
		return err
	}
	for {
		if err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(readyPollInterval):
		}
	}
}

package main

import (
	"context"
	"fmt"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllermanageroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	schedulerapp "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

func runControllerManager(ctx context.Context, options *controllermanageroptions.KubeControllerManagerOptions, client *rest.Config) error {
	config, err := options.Config(ctx, controllermanager.KnownControllers(), controllermanager.ControllersDisabledByDefault(), controllermanager.ControllerAliases())
	if err != nil {
		return err
	}
	config.Kubeconfig = overConnection(config.Kubeconfig, client)
	config.Client, err = kubernetes.NewForConfig(rest.AddUserAgent(config.Kubeconfig, controllermanageroptions.KubeControllerManagerUserAgent))
	if err != nil {
		return err
	}
	return controllermanager.Run(ctx, config.Complete())
}

// runScheduler does what upstream's Setup does, except that the clients use the given connection. The options are
// checked and hold the default configuration already.
func runScheduler(ctx context.Context, options *scheduleroptions.Options, client *rest.Config) error {
	config, err := options.Config(ctx)
	if err != nil {
		return err
	}
	config.KubeConfig = overConnection(config.KubeConfig, client)
	clientset, err := kubernetes.NewForConfig(rest.AddUserAgent(config.KubeConfig, "scheduler"))
	if err != nil {
		return err
	}
	dynamicClient, err := dynamic.NewForConfig(config.KubeConfig)
	if err != nil {
		return err
	}
	config.Client = clientset
	config.InformerFactory = scheduler.NewInformerFactory(clientset, 0)
	config.DynInformerFactory = dynamicinformer.NewDynamicSharedInformerFactory(dynamicClient, 0)
	config.EventBroadcaster = events.NewEventBroadcasterAdapterWithContext(ctx, clientset)
	completed := config.Complete()

	settings := completed.ComponentConfig
	var newRecorder profile.RecorderFactory = func(name string) eventRecorder {
		return completed.EventBroadcaster.NewRecorder(name)
	}
	instance, err := scheduler.New(ctx, completed.Client, completed.InformerFactory, completed.DynInformerFactory, newRecorder,
		scheduler.WithComponentConfigVersion(settings.TypeMeta.APIVersion),
		scheduler.WithKubeConfig(completed.KubeConfig),
		scheduler.WithProfiles(settings.Profiles...),
		scheduler.WithPercentageOfNodesToScore(settings.PercentageOfNodesToScore),
		scheduler.WithPodInitialBackoffSeconds(settings.PodInitialBackoffSeconds),
		scheduler.WithPodMaxBackoffSeconds(settings.PodMaxBackoffSeconds),
		scheduler.WithPodMaxInUnschedulablePodsDuration(completed.PodMaxInUnschedulablePodsDuration),
		scheduler.WithExtenders(settings.Extenders...),
		scheduler.WithParallelism(settings.Parallelism),
	)
	if err != nil {
		return fmt.Errorf("create scheduler: %w", err)
	}
	return schedulerapp.Run(ctx, &completed, instance)
}

// overConnection keeps a component's own settings (content type, rate limits) and takes the connection from client.
func overConnection(settings, client *rest.Config) *rest.Config {
	config := rest.CopyConfig(client)
	config.ContentConfig = settings.ContentConfig
	config.QPS = settings.QPS
	config.Burst = settings.Burst
	return config
}

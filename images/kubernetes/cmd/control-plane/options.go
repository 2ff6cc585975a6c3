package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllermanageroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
)

const (
	featureGatesFlag = "feature-gates"
	// The components insist on an address; the connection that they get is the in-process one.
	placeholderMaster = "https://127.0.0.1:6443"
	placeholderEtcd   = "http://in-process"
)

// componentOptions are the options of the three Kubernetes components, with all flags and feature gates applied.
type componentOptions struct {
	apiServer         *apiserveroptions.ServerRunOptions
	controllerManager *controllermanageroptions.KubeControllerManagerOptions
	scheduler         *scheduleroptions.Options
}

// parseOptions applies our flags and then the user's, which win. A flag or feature gate that a component does not
// know, or a value it does not take, is an error that names it.
func parseOptions(config Config) (*componentOptions, error) {
	apiServer := apiserveroptions.NewServerRunOptions()
	controllerManager, err := controllermanageroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", controllerManagerName, err)
	}
	scheduler := scheduleroptions.NewOptions()

	components := []struct {
		name        string
		flags       cliflag.NamedFlagSets
		ours, users map[string]string
	}{
		{apiServerName, apiServer.Flags(), apiServerFlags(config), config.APIServerArguments},
		{
			controllerManagerName,
			controllerManager.Flags(controllermanager.KnownControllers(), controllermanager.ControllersDisabledByDefault(), controllermanager.ControllerAliases()),
			controllerManagerFlags(config), config.ControllerManagerArguments,
		},
		{schedulerName, *scheduler.Flags, schedulerFlags(), config.SchedulerArguments},
	}
	gates := []string{formatFeatureGates(map[string]bool{
		// It lets servers of different versions forward requests to each other; here is one server.
		"UnknownVersionInteroperabilityProxy": false,
	}), formatFeatureGates(config.FeatureGates)}
	for _, component := range components {
		flags, componentGates := mergeFlags(component.ours, component.users)
		if err := setFlags(component.flags, flags); err != nil {
			return nil, fmt.Errorf("%s: %w", component.name, err)
		}
		gates = append(gates, componentGates)
	}
	// The components share one process, and with it one registry of feature gates, which any of their flags sets.
	if err := setFeatureGates(components[0].flags, gates); err != nil {
		return nil, err
	}
	// Upstream checks these when they start, which here is when clients have seen a ready API server already.
	err = controllerManager.Validate(controllermanager.KnownControllers(), controllermanager.ControllersDisabledByDefault(), controllermanager.ControllerAliases())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", controllerManagerName, err)
	}
	if scheduler.ComponentConfig, err = latest.Default(); err != nil {
		return nil, fmt.Errorf("%s: %w", schedulerName, err)
	}
	if errs := scheduler.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("%s: %w", schedulerName, utilerrors.NewAggregate(errs))
	}
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	if err := logsapi.ValidateAndApply(apiServer.Logs, utilfeature.DefaultFeatureGate); err != nil {
		return nil, fmt.Errorf("%s: %w", apiServerName, err)
	}
	return &componentOptions{apiServer, controllerManager, scheduler}, nil
}

// mergeFlags lets the user's flags win over ours and takes the feature gates out of them.
func mergeFlags(ours, users map[string]string) (flags map[string]string, featureGates string) {
	flags = maps.Clone(ours)
	for name, value := range users {
		flags[strings.TrimPrefix(name, "--")] = value
	}
	featureGates = flags[featureGatesFlag]
	delete(flags, featureGatesFlag)
	return flags, featureGates
}

func setFlags(sets cliflag.NamedFlagSets, values map[string]string) error {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if flags.Lookup(name) == nil {
			return fmt.Errorf("unknown flag --%s", name)
		}
		if err := flags.Set(name, values[name]); err != nil {
			return fmt.Errorf("flag --%s: %w", name, err)
		}
	}
	return nil
}

func setFeatureGates(sets cliflag.NamedFlagSets, gates []string) error {
	gates = slices.DeleteFunc(gates, func(gate string) bool { return gate == "" })
	if err := setFlags(sets, map[string]string{featureGatesFlag: strings.Join(gates, ",")}); err != nil {
		return err
	}
	if err := compatibility.DefaultComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("flag --%s: %w", featureGatesFlag, err)
	}
	return nil
}

func formatFeatureGates(gates map[string]bool) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		pairs = append(pairs, name+"="+strconv.FormatBool(gates[name]))
	}
	return strings.Join(pairs, ",")
}

func apiServerFlags(config Config) map[string]string {
	return map[string]string{
		"bind-address":                       "0.0.0.0",
		"secure-port":                        strconv.Itoa(config.AdvertisePort),
		"advertise-address":                  config.Address,
		"etcd-servers":                       placeholderEtcd,
		"service-cluster-ip-range":           config.ServiceSubnet,
		"authorization-mode":                 "Node,RBAC",
		"enable-admission-plugins":           "NodeRestriction",
		"allow-privileged":                   "true",
		"tls-cert-file":                      pkiDirectory + "apiserver.crt",
		"tls-private-key-file":               pkiDirectory + "apiserver.key",
		"client-ca-file":                     pkiDirectory + "ca.crt",
		"kubelet-certificate-authority":      pkiDirectory + "ca.crt",
		"kubelet-client-certificate":         pkiDirectory + "apiserver-kubelet-client.crt",
		"kubelet-client-key":                 pkiDirectory + "apiserver-kubelet-client.key",
		"kubelet-preferred-address-types":    "InternalIP",
		"service-account-issuer":             "https://kubernetes.default.svc.cluster.local",
		"service-account-key-file":           pkiDirectory + "sa.pub",
		"service-account-signing-key-file":   pkiDirectory + "sa.key",
		"requestheader-client-ca-file":       pkiDirectory + "front-proxy-ca.crt",
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-username-headers":     "X-Remote-User",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"proxy-client-cert-file":             pkiDirectory + "front-proxy-client.crt",
		"proxy-client-key-file":              pkiDirectory + "front-proxy-client.key",
	}
}

func controllerManagerFlags(config Config) map[string]string {
	return map[string]string{
		"master":                    placeholderMaster,
		"secure-port":               "0",
		"leader-elect":              "false",
		"allocate-node-cidrs":       "true",
		"cluster-cidr":              config.PodSubnet,
		"service-cluster-ip-range":  config.ServiceSubnet,
		"cluster-signing-cert-file": pkiDirectory + "ca.crt",
		"cluster-signing-key-file":  pkiDirectory + "ca.key",
		// The default lies on the read-only root.
		"flex-volume-plugin-dir":           "/tmp/flexvolume",
		"root-ca-file":                     pkiDirectory + "root-ca.crt",
		"service-account-private-key-file": pkiDirectory + "sa.key",
		// No other client competes for this API server.
		"kube-api-qps":   "-1",
		"kube-api-burst": "-1",
	}
}

func schedulerFlags() map[string]string {
	return map[string]string{
		"master":         placeholderMaster,
		"secure-port":    "0",
		"leader-elect":   "false",
		"kube-api-qps":   "-1",
		"kube-api-burst": "-1",
	}
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	logsapi "k8s.io/component-base/logs/api/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	kubeletscheme "k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"
	"k8s.io/utils/ptr"

	"sandbar.dev/lib/agent"
)

const kubeletRoot = "/var/lib/kubelet"

// runKubelet runs the kubelet with settings that kubeletServer checked.
func runKubelet(ctx context.Context, server *options.KubeletServer, clients clients) error {
	dependencies, err := kubeletapp.UnsecuredDependencies(ctx, server, utilfeature.DefaultFeatureGate)
	if err != nil {
		return err
	}
	if err := clients.connect(server, dependencies); err != nil {
		return err
	}
	return kubeletapp.Run(ctx, server, dependencies, utilfeature.DefaultFeatureGate)
}

// kubeletServer layers the settings (upstream's defaults, ours, the user's configuration, the user's flags), checks
// them all and applies those that are global to the process.
func kubeletServer(config agent.Config) (*options.KubeletServer, error) {
	merged, err := mergeConfiguration(kubeletSettings(config), config.KubeletConfiguration)
	if err != nil {
		return nil, err
	}
	server := &options.KubeletServer{KubeletFlags: *options.NewKubeletFlags(), KubeletConfiguration: *merged}
	server.KubeConfig = kubeletKubeconfig
	server.HostnameOverride = config.NodeName
	server.NodeIP = config.Address
	server.RootDirectory = kubeletRoot
	if err := setFlags(server, config.KubeletArguments); err != nil {
		return nil, err
	}
	if err := checkFeatureGates(server.FeatureGates); err != nil {
		return nil, err
	}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(server.FeatureGates); err != nil {
		return nil, fmt.Errorf("kubelet: feature gates: %w", err)
	}
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	if err := logsapi.ValidateAndApply(&server.Logging, utilfeature.DefaultFeatureGate); err != nil {
		return nil, fmt.Errorf("kubelet: logging: %w", err)
	}
	if err := options.ValidateKubeletServer(server); err != nil {
		return nil, fmt.Errorf("kubelet: %w", err)
	}
	return server, nil
}

func kubeletSettings(config agent.Config) *kubeletv1beta1.KubeletConfiguration {
	oomScore := int32(-999)
	if !agent.MayLowerOOMScore() {
		oomScore = 0
	}
	return &kubeletv1beta1.KubeletConfiguration{
		TypeMeta: metav1.TypeMeta{
			APIVersion: kubeletv1beta1.SchemeGroupVersion.String(),
			Kind:       "KubeletConfiguration",
		},
		FeatureGates:             config.FeatureGates,
		ContainerRuntimeEndpoint: "unix://" + agent.ContainerdSocket,
		CgroupDriver:             "cgroupfs",
		FailCgroupV1:             ptr.To(false),
		ClusterDomain:            config.ClusterDomain,
		ClusterDNS:               []string{config.ClusterDNS},
		ResolverConfig:           ptr.To(agent.ResolverConfigPath),

		TLSCertFile:       "/etc/sandbar/pki/kubelet.crt",
		TLSPrivateKeyFile: "/etc/sandbar/pki/kubelet.key",
		Authentication: kubeletv1beta1.KubeletAuthentication{
			Anonymous: kubeletv1beta1.KubeletAnonymousAuthentication{Enabled: ptr.To(false)},
			X509:      kubeletv1beta1.KubeletX509Authentication{ClientCAFile: "/etc/sandbar/pki/ca.crt"},
			Webhook:   kubeletv1beta1.KubeletWebhookAuthentication{Enabled: ptr.To(true)},
		},
		Authorization: kubeletv1beta1.KubeletAuthorization{Mode: kubeletv1beta1.KubeletAuthorizationModeWebhook},

		// The disk is the developer's: that it fills up is for them to see, not a reason to evict pods or images.
		ImageGCHighThresholdPercent: ptr.To[int32](100),
		EvictionHard: map[string]string{
			"nodefs.available": "0%", "nodefs.inodesFree": "0%",
			"imagefs.available": "0%", "imagefs.inodesFree": "0%",
		},
		LocalStorageCapacityIsolation: ptr.To(hasMeasurableFileSystem(kubeletRoot)),
		FailSwapOn:                    ptr.To(false),
		OOMScoreAdj:                   &oomScore,

		// After a laptop's sleep the kubelet says that it is not ready until it looks again; what it finds is still sent only
		// when it has changed, or after minutes.
		NodeStatusUpdateFrequency: metav1.Duration{Duration: 3 * time.Second},
		NodeStatusReportFrequency: metav1.Duration{Duration: 5 * time.Minute},

		SerializeImagePulls: ptr.To(false),
		RegistryPullQPS:     ptr.To[int32](0),
		// In an edit loop a crash is usually cured seconds later; upstream's five minutes would hide that.
		CrashLoopBackOff: kubeletv1beta1.CrashLoopBackOffConfig{
			MaxContainerRestartPeriod: &metav1.Duration{Duration: 10 * time.Second},
		},
		// One node alone does not have to spare its API server.
		KubeAPIQPS:   ptr.To[int32](500),
		KubeAPIBurst: 1000,
	}
}

// hasMeasurableFileSystem tells whether the kubelet can find the device below a directory. On file systems with
// anonymous devices it cannot, and would not start with limits on ephemeral storage.
func hasMeasurableFileSystem(directory string) bool {
	const zfsMagic = 0x2fc12fc1
	var state unix.Statfs_t
	if err := unix.Statfs(directory, &state); err != nil {
		return true
	}
	return state.Type != unix.BTRFS_SUPER_MAGIC && state.Type != zfsMagic
}

// mergeConfiguration puts the user's configuration over ours, key by key, and decodes the result strictly.
func mergeConfiguration(ours *kubeletv1beta1.KubeletConfiguration, users map[string]any) (*kubeletconfig.KubeletConfiguration, error) {
	_, codecs, err := kubeletscheme.NewSchemeAndCodecs(serializer.EnableStrict)
	if err != nil {
		return nil, err
	}
	content, err := json.Marshal(ours)
	if err != nil {
		return nil, err
	}
	var base map[string]any
	if err := json.Unmarshal(content, &base); err != nil {
		return nil, err
	}
	if content, err = json.Marshal(mergeObjects(base, users)); err != nil {
		return nil, err
	}
	// Before the rest, because upstream's defaults panic on a gate that they do not know.
	var gates struct{ FeatureGates map[string]bool }
	if err := json.Unmarshal(content, &gates); err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	if err := checkFeatureGates(gates.FeatureGates); err != nil {
		return nil, err
	}
	decoded, _, err := codecs.UniversalDecoder().Decode(content, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	merged, isConfiguration := decoded.(*kubeletconfig.KubeletConfiguration)
	if !isConfiguration {
		return nil, fmt.Errorf("kubelet configuration: %T is not a KubeletConfiguration", decoded)
	}
	return merged, nil
}

// checkFeatureGates tries the gates on a copy: what a refused set has left in the process-wide ones would stay there.
func checkFeatureGates(gates map[string]bool) error {
	if err := utilfeature.DefaultMutableFeatureGate.DeepCopy().SetFromMap(gates); err != nil {
		return fmt.Errorf("kubelet: feature gates: %w", err)
	}
	return nil
}

// mergeObjects is a JSON merge patch (RFC 7386): objects merge, null removes, everything else replaces.
func mergeObjects(base, patch map[string]any) map[string]any {
	merged := maps.Clone(base)
	for key, value := range patch {
		baseObject, baseIsObject := merged[key].(map[string]any)
		patchObject, patchIsObject := value.(map[string]any)
		switch {
		case value == nil:
			delete(merged, key)
		case baseIsObject && patchIsObject:
			merged[key] = mergeObjects(baseObject, patchObject)
		default:
			merged[key] = value
		}
	}
	return merged
}

// setFlags applies the user's flags, in a fixed order, so that the same mistake gives the same message.
func setFlags(server *options.KubeletServer, values map[string]string) error {
	flags := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	server.AddFlags(flags)
	gates := maps.Clone(server.FeatureGates)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		name := strings.TrimLeft(key, "-")
		if flags.Lookup(name) == nil {
			return fmt.Errorf("kubelet: unknown flag --%s", name)
		}
		if err := flags.Set(name, values[key]); err != nil {
			return fmt.Errorf("kubelet: flag --%s: %w", name, err)
		}
	}
	// The flag replaces the whole map, where a user means to add to it.
	for name, enabled := range gates {
		if _, isSet := server.FeatureGates[name]; !isSet {
			if server.FeatureGates == nil {
				server.FeatureGates = map[string]bool{}
			}
			server.FeatureGates[name] = enabled
		}
	}
	return nil
}

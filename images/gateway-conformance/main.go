// Command suite runs upstream's conformance tests of the Gateway API, with the features that the class claims in its
// status, and writes upstream's report.
package main

import (
	"bytes"
	"context"
	"flag"
	"io/fs"
	"log"
	"os"
	"testing"
	"testing/fstest"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	controllerlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/apis/v1alpha2"
	"sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	timeouts "sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"
)

// Upstream reads a manifest from every file system that has it, so ours has a name of its own.
const (
	upstreamManifests = "base/manifests.yaml"
	baseManifests     = "base/without-udp.yaml"
)

var (
	class   = flag.String("class", "sandbar", "GatewayClass to test")
	version = flag.String("implementation", "", "version that the report names")
	report  = flag.String("report", "", "file for upstream's report")
	only    = flag.String("only", "", "short name of the one test to run")
)

func main() {
	controllerlog.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	testing.Init()
	flag.Parse()
	everything := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(everything, []testing.InternalTest{{Name: "Conformance", F: run}}, nil, nil)
}

func run(t *testing.T) {
	access, err := config.GetConfig()
	if err != nil {
		t.Fatal(err)
	}
	kube, err := client.New(access, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, add := range []func() error{
		func() error { return gatewayv1.Install(kube.Scheme()) },
		func() error { return v1beta1.Install(kube.Scheme()) },
		func() error { return v1alpha2.Install(kube.Scheme()) },
		func() error { return apiextensionsv1.AddToScheme(kube.Scheme()) },
	} {
		if err := add(); err != nil {
			t.Fatal(err)
		}
	}
	claimed, err := claimedFeatures(t.Context(), kube)
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := withoutUDP(conformance.Manifests)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := suite.NewConformanceTestSuite(suite.ConformanceOptions{
		Client:               kube,
		Clientset:            kubernetes.NewForConfigOrDie(access),
		RestConfig:           access,
		GatewayClassName:     *class,
		CleanupBaseResources: true,
		TimeoutConfig:        timeouts.DefaultTimeoutConfig(),
		ManifestFS:           []fs.FS{manifests, &conformance.Manifests},
		BaseManifests:        baseManifests,
		RunTest:              *only,
		SupportedFeatures:    claimed,
		ConformanceProfiles:  sets.New(suite.GatewayHTTPConformanceProfileName, suite.GatewayGRPCConformanceProfileName),
		Implementation: confv1.Implementation{
			Organization: "sandbar", Project: "sandbar", Version: *version, URL: "https://traefik.io/", Contact: []string{"-"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	whole.Setup(t, tests.ConformanceTests)
	if err := whole.Run(t, tests.ConformanceTests); err != nil {
		t.Fatal(err)
	}
	if *report == "" {
		return
	}
	found, err := whole.Report()
	if err != nil {
		t.Fatal(err)
	}
	content, err := yaml.Marshal(found)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*report, content, 0o644); err != nil {
		log.Fatal(err)
	}
}

// claimedFeatures are those in the class's status, without a type of route that the standard channel lacks.
func claimedFeatures(ctx context.Context, kube client.Client) (suite.FeaturesSet, error) {
	var found gatewayv1.GatewayClass
	if err := kube.Get(ctx, client.ObjectKey{Name: *class}, &found); err != nil {
		return nil, err
	}
	claimed := suite.FeaturesSet{}
	for _, feature := range found.Status.SupportedFeatures {
		claimed.Insert(features.FeatureName(feature.Name))
	}
	// Its definition is only in the experimental channel.
	return claimed.Delete(features.SupportTLSRoute), nil
}

// withoutUDP returns the base manifests without what answers UDP, which only tests of the experimental channel ask.
func withoutUDP(all fs.FS) (fs.FS, error) {
	content, err := fs.ReadFile(all, upstreamManifests)
	if err != nil {
		return nil, err
	}
	var kept [][]byte
	for _, document := range bytes.Split(content, []byte("\n---\n")) {
		if !bytes.Contains(document, []byte("\n  name: coredns\n")) {
			kept = append(kept, document)
		}
	}
	return fstest.MapFS{baseManifests: {Data: bytes.Join(kept, []byte("\n---\n"))}}, nil
}

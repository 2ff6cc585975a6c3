package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

const (
	gatewaysKey = definitionPrefix + "gateways.gateway.networking.k8s.io"
	classKey    = classPrefix + "sandbar"

	smallBundle = `{"version":"v1.4.0","definitions":[{
		"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
		"metadata":{"name":"gateways.gateway.networking.k8s.io","creationTimestamp":null,"annotations":{
			"api-approved.kubernetes.io":"https://example.com/1","gateway.networking.k8s.io/bundle-version":"v1.4.0","gateway.networking.k8s.io/channel":"standard"}},
		"spec":{"group":"gateway.networking.k8s.io","names":{"kind":"Gateway","listKind":"GatewayList","plural":"gateways","singular":"gateway"},
			"scope":"Namespaced","versions":[{"name":"v1","served":true,"storage":true},{"name":"v1beta1","served":true,"storage":false}]},
		"status":{"acceptedNames":{"kind":"","plural":""},"conditions":null,"storedVersions":null}}]}`
)

func openGateway(t *testing.T, keys map[string]string) *gatewayAPI {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle.json")
	if err := os.WriteFile(path, []byte(smallBundle), 0o600); err != nil {
		t.Fatal(err)
	}
	class := &GatewayClass{Name: "sandbar", ControllerName: "example.com/controller"}
	return &gatewayAPI{datastore: openStore(t, t.TempDir(), keysOf(keys)), bundlePath: path, class: class}
}

func repair(t *testing.T, gateway *gatewayAPI) []string {
	t.Helper()
	names, err := gateway.repair(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func put(t *testing.T, gateway *gatewayAPI, key, value string) {
	t.Helper()
	if _, err := gateway.datastore.client.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func TestDefinitionsAreMadeAsTheServerWouldHaveStoredThem(t *testing.T) {
	gateway := openGateway(t, nil)
	want := []string{"GatewayClass sandbar", "CustomResourceDefinition gateways.gateway.networking.k8s.io"}
	if names := repair(t, gateway); !slices.Equal(names, want) {
		t.Errorf("made %v", names)
	}
	var definition apiextensionsv1.CustomResourceDefinition
	if err := json.Unmarshal(allKeys(t, gateway.datastore)[gatewaysKey], &definition); err != nil {
		t.Fatal(err)
	}
	isTrue := map[string]bool{}
	for _, condition := range definition.Status.Conditions {
		isTrue[string(condition.Type)] = condition.Status == apiextensionsv1.ConditionTrue
	}
	if !isTrue["Established"] || !isTrue["NamesAccepted"] || !isTrue["KubernetesAPIApprovalPolicyConformant"] {
		t.Errorf("conditions %v", definition.Status.Conditions)
	}
	if definition.UID == "" || definition.Status.AcceptedNames.Plural != "gateways" || !slices.Equal(definition.Status.StoredVersions, []string{"v1"}) {
		t.Errorf("got %+v", definition)
	}
	fields := string(definition.ManagedFields[0].FieldsV1.Raw)
	if !strings.Contains(fields, `"f:spec":{"f:group":{},"f:names":{"f:kind":{},"f:listKind":{},"f:plural":{},"f:singular":{}},"f:scope":{},"f:versions":{}}`) {
		t.Errorf("fields %s", fields)
	}
	if names := repair(t, gateway); len(names) != 0 {
		t.Errorf("made again: %v", names)
	}
}

func TestDefinitionsOfAUserStayAndOlderOnesOfOursAreBroughtUpToDate(t *testing.T) {
	older := strings.ReplaceAll(smallBundle, "v1.4.0", "v1.3.0")
	foreign := `{"kind":"CustomResourceDefinition","metadata":{"name":"gateways.gateway.networking.k8s.io","annotations":{
		"gateway.networking.k8s.io/bundle-version":"v1.5.1","gateway.networking.k8s.io/channel":"standard","sandbar.dev/gateway-api":"v1.3.0"}}}`
	experimental := `{"kind":"CustomResourceDefinition","metadata":{"name":"gateways.gateway.networking.k8s.io","annotations":{
		"gateway.networking.k8s.io/bundle-version":"v1.3.0","gateway.networking.k8s.io/channel":"experimental","sandbar.dev/gateway-api":"v1.3.0"}}}`
	for name, test := range map[string]struct {
		before string
		isMade bool
	}{
		"a user's":                     {before: foreign},
		"a user's, of another channel": {before: experimental},
		"a user's, plain":              {before: `{"kind":"CustomResourceDefinition","metadata":{"name":"gateways.gateway.networking.k8s.io"}}`},
		"ours, of earlier":             {isMade: true},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := openGateway(t, nil)
			if test.isMade {
				current := gateway.bundlePath
				gateway.bundlePath = filepath.Join(t.TempDir(), "older.json")
				if err := os.WriteFile(gateway.bundlePath, []byte(strings.ReplaceAll(older, `"name":"v1","served":true,"storage":true`, `"name":"v1alpha2","served":true,"storage":true`)), 0o600); err != nil {
					t.Fatal(err)
				}
				repair(t, gateway)
				gateway.bundlePath = current
			} else {
				put(t, gateway, gatewaysKey, test.before)
			}
			first, _ := readOwn(allKeys(t, gateway.datastore)[gatewaysKey])
			repair(t, gateway)
			value := allKeys(t, gateway.datastore)[gatewaysKey]
			if !test.isMade {
				if string(value) != test.before {
					t.Errorf("became %s", value)
				}
				return
			}
			var definition apiextensionsv1.CustomResourceDefinition
			if err := json.Unmarshal(value, &definition); err != nil {
				t.Fatal(err)
			}
			if definition.UID != first.UID || definition.Generation != 2 || !slices.Equal(definition.Status.StoredVersions, []string{"v1", "v1alpha2"}) {
				t.Errorf("became %s", value)
			}
		})
	}
}

func TestAResetLeavesWhatNobodyChangedAndPutsTheRestBack(t *testing.T) {
	gateway := openGateway(t, nil)
	repair(t, gateway)
	withGateway, err := gateway.forReset()
	if err != nil {
		t.Fatal(err)
	}
	wash := func() washed {
		done, err := wash(t.Context(), gateway.datastore.client, func(current keyValues) keyValues { return withGateway(keyValues{}, current) })
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	const serviceKey = apiServicePrefix + "v1.gateway.networking.k8s.io"
	put(t, gateway, serviceKey, "made from it")
	before := allKeys(t, gateway.datastore)
	if done := wash(); done.Deleted+done.Restored != 0 {
		t.Errorf("changed %+v", done)
	}
	put(t, gateway, gatewaysKey, `{"kind":"CustomResourceDefinition","metadata":{"name":"gateways.gateway.networking.k8s.io"},"spec":{}}`)
	put(t, gateway, registryPrefix+"gateway.networking.k8s.io/gateways/default/web", "{}")
	edited, _ := readOwn(before[classKey])
	edited.Generation, edited.Spec = 2, json.RawMessage(`{"controllerName":"example.com/controller","description":"edited"}`)
	put(t, gateway, classKey, string(mustEncode(edited)))
	wash()
	after := allKeys(t, gateway.datastore)
	if !slices.Equal(slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before))) {
		t.Errorf("holds %v", slices.Sorted(maps.Keys(after)))
	}
	definition, isOwn := readOwn(after[gatewaysKey])
	class, _ := readOwn(after[classKey])
	if !isOwn || definition.version() != "v1.4.0" || strings.Contains(string(class.Spec), "edited") {
		t.Errorf("holds %s and %s", after[gatewaysKey], after[classKey])
	}
}

func TestSwitchedOffItRemovesWhatIsUnused(t *testing.T) {
	gateway := openGateway(t, nil)
	repair(t, gateway)
	gateway.class = nil
	const webKey = registryPrefix + "gateway.networking.k8s.io/gateways/default/web"
	put(t, gateway, webKey, "{}")
	repair(t, gateway)
	if keys := slices.Sorted(maps.Keys(allKeys(t, gateway.datastore))); !slices.Equal(keys, []string{gatewaysKey, webKey}) {
		t.Errorf("in use, there are %v", keys)
	}
	if _, err := gateway.datastore.client.Delete(t.Context(), webKey); err != nil {
		t.Fatal(err)
	}
	repair(t, gateway)
	if keys := slices.Sorted(maps.Keys(allKeys(t, gateway.datastore))); len(keys) != 0 {
		t.Errorf("unused, there are %v", keys)
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/sirupsen/logrus"
)

func init() { logrus.SetOutput(io.Discard) }

const manifestType = "application/vnd.oci.image.manifest.v1+json"

func newRegistry(t *testing.T, directory string) (*pushes, *httptest.Server) {
	t.Helper()
	pushes := newPushes(handlers.NewApp(context.Background(), storageConfiguration(directory)))
	server := httptest.NewServer(pushes)
	t.Cleanup(server.Close)
	return pushes, server
}

func send(t *testing.T, method, url string, body []byte, contentType string) *http.Response {
	t.Helper()
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	request.Header.Set("Accept", manifestType)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func mustSend(t *testing.T, method, url string, body []byte, contentType string) []byte {
	t.Helper()
	response := send(t, method, url, body, contentType)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %s %v", method, url, response.Status, content, err)
	}
	return content
}

func digestOf(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

func pushBlob(t *testing.T, base, repository string, content []byte) {
	t.Helper()
	response := send(t, http.MethodPost, base+"/v2/"+repository+"/blobs/uploads/", nil, "")
	response.Body.Close()
	location := response.Header.Get("Location")
	if strings.HasPrefix(location, "/") {
		location = base + location
	}
	mustSend(t, http.MethodPut, location+"&digest="+digestOf(content), content, "application/octet-stream")
}

// pushImage pushes an image of one layer with this content.
func pushImage(t *testing.T, base, repository, tag, layer string) {
	t.Helper()
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	pushBlob(t, base, repository, config)
	pushBlob(t, base, repository, []byte(layer))
	part := func(mediaType string, content []byte) map[string]any {
		return map[string]any{"mediaType": mediaType, "digest": digestOf(content), "size": len(content)}
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": part("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{part("application/vnd.oci.image.layer.v1.tar", []byte(layer))},
	})
	if err != nil {
		t.Fatal(err)
	}
	mustSend(t, http.MethodPut, base+"/v2/"+repository+"/manifests/"+tag, manifest, manifestType)
}

func TestPruningFreesWhatNoTagLeadsTo(t *testing.T) {
	directory := t.TempDir()
	pushes, server := newRegistry(t, directory)
	control := &control{imagesDirectory: directory, pushes: pushes, caches: newCaches(context.Background(), t.TempDir(), t.TempDir())}
	if _, err := control.prune(context.Background()); err != nil {
		t.Fatalf("of an empty registry: %v", err)
	}
	pushImage(t, server.URL, "app", "v1", strings.Repeat("old", 1000))
	pushImage(t, server.URL, "app", "v1", strings.Repeat("new", 1000))
	pushImage(t, server.URL, "deep/er/app", "v2", "other")

	result, err := control.prune(context.Background())
	if err != nil || result.(pruned).FreedBytes < 3000 {
		t.Errorf("got %+v, %v", result, err)
	}
	found, err := control.content(context.Background())
	images := found.(content).Images
	if err != nil || len(images) != 2 || images[0].Name != "app" || images[0].SizeBytes < 3000 || images[1].Tag != "v2" {
		t.Errorf("got %+v, %v", images, err)
	}
	layer := mustSend(t, http.MethodGet, server.URL+"/v2/app/blobs/"+digestOf([]byte(strings.Repeat("new", 1000))), nil, "")
	if string(layer) != strings.Repeat("new", 1000) {
		t.Errorf("got a layer of %d bytes", len(layer))
	}
	pushImage(t, server.URL, "app", "v1", strings.Repeat("old", 1000))
}

func TestPruningWaitsForAPushThatHasBegun(t *testing.T) {
	directory := t.TempDir()
	pushes, server := newRegistry(t, directory)
	control := &control{imagesDirectory: directory, pushes: pushes, caches: newCaches(context.Background(), t.TempDir(), t.TempDir())}
	pushBlob(t, server.URL, "app", []byte("layer"))
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := control.prune(ctx); err != context.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	pushImage(t, server.URL, "app", "v1", "layer")
	if _, err := control.prune(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestACacheServesItsCopiesWhileTheRegistryIsAway(t *testing.T) {
	upstreamApp := handlers.NewApp(context.Background(), storageConfiguration(t.TempDir()))
	upstream := httptest.NewTLSServer(upstreamApp)
	plain := httptest.NewServer(upstreamApp)
	defer plain.Close()
	pushImage(t, plain.URL, "app", "v1", "layer")

	directory, settingsDirectory := t.TempDir(), t.TempDir()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw})
	settings, _ := json.Marshal(map[string]any{"remoteURL": upstream.URL, "caCertificates": []string{string(certificate)}})
	if err := os.WriteFile(filepath.Join(settingsDirectory, "registry.test.json"), settings, 0o600); err != nil {
		t.Fatal(err)
	}
	original := http.DefaultTransport
	defer func() { http.DefaultTransport = original }()
	open := func() *httptest.Server {
		caches := newCaches(context.Background(), directory, settingsDirectory)
		http.DefaultTransport = caches.transport
		return httptest.NewServer(caches)
	}
	server := open()
	manifest := server.URL + "/v2/app/manifests/v1?ns=registry.test"
	layer := server.URL + "/v2/app/blobs/" + digestOf([]byte("layer")) + "?ns=registry.test"
	mustSend(t, http.MethodGet, manifest, nil, "")
	mustSend(t, http.MethodGet, layer, nil, "")
	for _, other := range []string{"elsewhere.test", "", "..", "a/b"} {
		if response := send(t, http.MethodGet, server.URL+"/v2/?ns="+other, nil, ""); response.StatusCode != http.StatusNotFound {
			t.Errorf("%q: got %s", other, response.Status)
		}
	}
	server.Close()
	upstream.Close()

	server = open()
	defer server.Close()
	mustSend(t, http.MethodGet, server.URL+"/v2/app/manifests/v1?ns=registry.test", nil, "")
	if got := mustSend(t, http.MethodGet, server.URL+"/v2/app/blobs/"+digestOf([]byte("layer"))+"?ns=registry.test", nil, ""); string(got) != "layer" {
		t.Errorf("got %q", got)
	}
	if response := send(t, http.MethodGet, server.URL+"/v2/app/manifests/v2?ns=registry.test", nil, ""); response.StatusCode < 400 {
		t.Errorf("got %s", response.Status)
	}
}

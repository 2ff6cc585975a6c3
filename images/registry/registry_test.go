package main

import (
	"bytes"
	"cmp"
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
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/handlers"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

func init() { logrus.SetOutput(io.Discard) }

// Clients of these tests go by a transport of their own: the default one is that of caches.
var client = http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}

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
	response, err := client.Do(request)
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
	location := beginUpload(t, base, repository)
	mustSend(t, http.MethodPut, location+"&digest="+digestOf(content), content, "application/octet-stream")
}

func beginUpload(t *testing.T, base, repository string) (location string) {
	t.Helper()
	response := send(t, http.MethodPost, base+"/v2/"+repository+"/blobs/uploads/", nil, "")
	response.Body.Close()
	location = response.Header.Get("Location")
	if strings.HasPrefix(location, "/") {
		location = base + location
	}
	return location
}

// pushImage pushes an image of one layer with this content; without a tag, by the digest of its manifest.
func pushImage(t *testing.T, base, repository, tag, layer string) (manifest []byte) {
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
	mustSend(t, http.MethodPut, base+"/v2/"+repository+"/manifests/"+cmp.Or(tag, digestOf(manifest)), manifest, manifestType)
	return manifest
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

func TestPruningWaitsForTheIndexThatNamesAManifest(t *testing.T) {
	directory := t.TempDir()
	pushes, server := newRegistry(t, directory)
	control := &control{imagesDirectory: directory, pushes: pushes, caches: newCaches(context.Background(), t.TempDir(), t.TempDir())}
	child := pushImage(t, server.URL, "app", "", "layer")
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := control.prune(ctx); err != context.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	index, _ := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": v1.MediaTypeImageIndex, "manifests": []any{map[string]any{
			"mediaType": manifestType, "digest": digestOf(child), "size": len(child),
			"platform": map[string]any{"architecture": "amd64", "os": "linux"},
		}},
	})
	mustSend(t, http.MethodPut, server.URL+"/v2/app/manifests/v1", index, v1.MediaTypeImageIndex)
	if _, err := control.prune(context.Background()); err != nil {
		t.Error(err)
	}
	mustSend(t, http.MethodGet, server.URL+"/v2/app/manifests/"+digestOf(child), nil, "")
}

func TestPullsDoNotWaitForAPushThatStandsStill(t *testing.T) {
	directory := t.TempDir()
	pushes, server := newRegistry(t, directory)
	control := &control{imagesDirectory: directory, pushes: pushes, caches: newCaches(context.Background(), t.TempDir(), t.TempDir())}
	pushImage(t, server.URL, "app", "v1", "layer")

	body, writer := io.Pipe()
	defer writer.Close()
	upload, err := http.NewRequest(http.MethodPatch, beginUpload(t, server.URL, "other"), body)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = client.Do(upload) }()
	// It is read, so the server is at it.
	if _, err := writer.Write([]byte("half a layer")); err != nil {
		t.Fatal(err)
	}
	for pushes.changes.TryLock() {
		pushes.changes.Unlock()
	}
	ctx, stop := context.WithCancelCause(context.Background())
	pruned := make(chan error)
	go func() {
		_, err := control.prune(ctx)
		pruned <- err
	}()
	// As long as several looks at whether the push is over.
	for deadline := time.Now().Add(500 * time.Millisecond); time.Now().Before(deadline); {
		mustSend(t, http.MethodHead, server.URL+"/v2/app/manifests/v1", nil, "")
	}
	stop(errPushing)
	if err := <-pruned; err != errPushing {
		t.Errorf("got %v", err)
	}
}

func TestWhatACacheTrustsIsItsOwn(t *testing.T) {
	upstreamApp := handlers.NewApp(context.Background(), storageConfiguration(t.TempDir()))
	upstream := httptest.NewTLSServer(upstreamApp)
	defer upstream.Close()
	plain := httptest.NewServer(upstreamApp)
	defer plain.Close()
	pushImage(t, plain.URL, "app", "v1", "layer")
	var proxied atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		proxied.Add(1)
		http.Error(response, "no way through", http.StatusBadGateway)
	}))
	defer proxy.Close()

	settingsDirectory := t.TempDir()
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw}))
	// A proxy is never asked for what is on the machine itself.
	elsewhere := strings.Replace(upstream.URL, "127.0.0.1", "upstream.test", 1)
	for name, settings := range map[string]map[string]any{
		"trusting.test": {"remoteURL": upstream.URL, "caCertificates": []string{certificate}},
		"strange.test":  {"remoteURL": upstream.URL, "caCertificates": []string{}},
		"proxied.test":  {"remoteURL": elsewhere, "proxy": map[string]string{"httpsProxy": proxy.URL}},
	} {
		content, _ := json.Marshal(settings)
		if err := os.WriteFile(filepath.Join(settingsDirectory, name+".json"), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	caches := newCaches(context.Background(), t.TempDir(), settingsDirectory)
	original := http.DefaultTransport
	http.DefaultTransport = caches
	defer func() { http.DefaultTransport = original }()
	server := httptest.NewServer(caches)
	defer server.Close()
	pull := func(name string) int {
		response := send(t, http.MethodGet, server.URL+"/v2/app/manifests/v1?ns="+name, nil, "")
		response.Body.Close()
		return response.StatusCode
	}
	for range 2 {
		if status := pull("strange.test"); status < 400 {
			t.Errorf("an authority that is not trusted: got %d", status)
		}
		if status := pull("proxied.test"); status < 400 || proxied.Load() == 0 {
			t.Errorf("through a proxy: got %d, it was asked %d times", status, proxied.Load())
		}
		asked := proxied.Load()
		if status := pull("trusting.test"); status != http.StatusOK || proxied.Load() != asked {
			t.Errorf("got %d, the proxy was asked %d times more", status, proxied.Load()-asked)
		}
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
		http.DefaultTransport = caches
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

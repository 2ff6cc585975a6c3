package container

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

type testConfig struct {
	Address string  `json:"address"`
	Routes  []Route `json:"routes"`
}

func TestReadConfig(t *testing.T) {
	tests := map[string]struct{ content, wantError string }{
		"a known key is read":        {`{"address": "172.30.0.2", "routes": [{"destination": "10.96.0.0/16", "via": "172.30.0.3"}]}`, ""},
		"an unknown key is an error": {`{"adress": "172.30.0.2"}`, `unknown field "adress"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			config, err := ReadConfig[testConfig](path)
			if test.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantError) {
					t.Fatalf("error is %v, want %q", err, test.wantError)
				}
				return
			}
			if err != nil || config.Address != "172.30.0.2" || config.Routes[0].Via != "172.30.0.3" {
				t.Fatalf("read %+v, error %v", config, err)
			}
		})
	}
}

func TestSetRoutesNamesTheBadValue(t *testing.T) {
	err := SetRoutes([]Route{{Destination: "10.96.0.0/16", Via: "agent"}})
	if err == nil || !strings.Contains(err.Error(), `"agent"`) {
		t.Fatalf("error is %v", err)
	}
}

func TestWaitForAPIReturnsWhenTheServerBecomesReady(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) < 3 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	if err := WaitForAPI(t.Context(), server.URL); err != nil || calls.Load() != 3 {
		t.Fatalf("error %v after %d calls", err, calls.Load())
	}
}

func TestWaitForAPINamesTheLastAnswerWhenItEndsEarly(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := WaitForAPI(ctx, server.URL); err == nil || !strings.Contains(err.Error(), "404") {
		t.Fatalf("error is %v", err)
	}
}

// Capabilities are gone for good once given up, so the test does it in a process of its own.
func TestKeepCapabilitiesGivesUpAllOthersOnAllThreads(t *testing.T) {
	if os.Getenv("SANDBAR_TEST_CHILD") != "" {
		if err := KeepCapabilities(NetBindService); err != nil {
			t.Fatal(err)
		}
		files, _ := filepath.Glob("/proc/self/task/*/status")
		for _, file := range files {
			status, _ := os.ReadFile(file)
			if !strings.Contains(string(status), "CapEff:\t0000000000000400\n") || !strings.Contains(string(status), "NoNewPrivs:\t1\n") {
				t.Errorf("%s:\n%s", file, status)
			}
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs to run as root, to have capabilities to give up")
	}
	child := exec.Command(os.Args[0], "-test.run", t.Name(), "-test.v")
	child.Env = append(os.Environ(), "SANDBAR_TEST_CHILD=1")
	if output, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
}

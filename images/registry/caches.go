package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"golang.org/x/net/http/httpproxy"
)

// What a registry that is away or behind a dead link may cost before its copy is served.
const (
	dialTimeout   = 5 * time.Second
	answerTimeout = 30 * time.Second
)

// cacheSettings is what the command line writes for each registry of which copies are kept.
type cacheSettings struct {
	RemoteURL      string   `json:"remoteURL"`
	CACertificates []string `json:"caCertificates"`
	Proxy          struct {
		HTTPProxy  string `json:"httpProxy"`
		HTTPSProxy string `json:"httpsProxy"`
		NoProxy    string `json:"noProxy"`
	} `json:"proxy"`
}

// caches serves copies of other registries' images, and fetches what it has no copy of. Which registry is meant stands
// in the query parameter `ns`, as containerd sends it to mirrors.
type caches struct {
	ctx               context.Context
	directory         string
	settingsDirectory string
	transport         *swappableTransport

	mutex sync.Mutex
	open  map[string]*cache
}

type cache struct {
	app *handlers.App
	// The content of the file that it was opened with.
	settings []byte
}

var registryHost = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*(:[0-9]+)?$`)

func newCaches(ctx context.Context, directory, settingsDirectory string) *caches {
	transport := &swappableTransport{}
	transport.current.Store(newTransport(nil, nil))
	return &caches{ctx: ctx, directory: directory, settingsDirectory: settingsDirectory, transport: transport,
		open: map[string]*cache{}}
}

func (c *caches) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	host := request.URL.Query().Get("ns")
	app, err := c.find(host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// containerd then asks the registry itself.
		http.Error(response, fmt.Sprintf("no copies are kept of registry %q", host), http.StatusNotFound)
	case err != nil:
		http.Error(response, err.Error(), http.StatusInternalServerError)
	default:
		app.ServeHTTP(response, request)
	}
}

// find opens a cache when it is asked for, and anew when its settings have changed.
func (c *caches) find(host string) (*handlers.App, error) {
	if !registryHost.MatchString(host) {
		return nil, fs.ErrNotExist
	}
	content, err := os.ReadFile(filepath.Join(c.settingsDirectory, host+".json"))
	if err != nil {
		return nil, err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if found := c.open[host]; found != nil && bytes.Equal(found.settings, content) {
		return found.app, nil
	}
	settings, err := parseSettings(content)
	if err != nil {
		return nil, fmt.Errorf("settings of registry %s: %w", host, err)
	}
	if err := c.renewTransport(settings); err != nil {
		return nil, err
	}
	app, err := c.openApp(host, settings)
	if err != nil {
		return nil, err
	}
	c.closeApp(host)
	c.open[host] = &cache{app: app, settings: content}
	return app, nil
}

// upstream's app panics where its configuration cannot be used.
func (c *caches) openApp(host string, settings cacheSettings) (app *handlers.App, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("open cache of registry %s: %v", host, reason)
		}
	}()
	config := storageConfiguration(filepath.Join(c.directory, host))
	never := time.Duration(0)
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config.Proxy = configuration.Proxy{
		RemoteURL: settings.RemoteURL,
		// A copy is there for when the registry is not. `prune --caches` takes them away.
		TTL: &never,
		// Credentials that are given or absent have the registry asked for how to log in, at once: a cache could then
		// not be opened while the registry is away. A program that gives them is run when they are needed.
		Exec: &configuration.ExecConfig{Command: program},
	}
	return handlers.NewApp(c.ctx, config), nil
}

func (c *caches) closeApp(host string) {
	if found := c.open[host]; found != nil {
		// Of what is closed nothing can fail: no copy ever ends.
		_ = found.app.Shutdown()
		delete(c.open, host)
	}
}

// clear takes every copy away.
func (c *caches) clear() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for host := range c.open {
		c.closeApp(host)
	}
	return os.RemoveAll(c.directory)
}

// renewTransport has requests trust the authorities of every cache, and go through the proxy of these settings:
// upstream's caches have one transport for all.
func (c *caches) renewTransport(settings cacheSettings) error {
	entries, err := os.ReadDir(c.settingsDirectory)
	if err != nil {
		return err
	}
	authorities, err := x509.SystemCertPool()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(c.settingsDirectory, entry.Name()))
		if err != nil {
			return err
		}
		// A file that cannot be read is told of when its cache is asked for.
		if other, err := parseSettings(content); err == nil {
			for _, certificate := range other.CACertificates {
				authorities.AppendCertsFromPEM([]byte(certificate))
			}
		}
	}
	proxy := httpproxy.Config{
		HTTPProxy: settings.Proxy.HTTPProxy, HTTPSProxy: settings.Proxy.HTTPSProxy, NoProxy: settings.Proxy.NoProxy,
	}
	c.transport.current.Store(newTransport(authorities, proxy.ProxyFunc()))
	return nil
}

func parseSettings(content []byte) (cacheSettings, error) {
	var settings cacheSettings
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&settings)
	return settings, err
}

// swappableTransport stands in place of http.DefaultTransport, the only one that upstream's caches know.
type swappableTransport struct{ current atomic.Pointer[http.Transport] }

func (t *swappableTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	return t.current.Load().RoundTrip(request)
}

func newTransport(authorities *x509.CertPool, proxyFor func(*url.URL) (*url.URL, error)) *http.Transport {
	dialer := net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		DialContext:           dialer.DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: authorities},
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: answerTimeout,
		IdleConnTimeout:       answerTimeout,
		ForceAttemptHTTP2:     true,
	}
	if proxyFor != nil {
		transport.Proxy = func(request *http.Request) (*url.URL, error) { return proxyFor(request.URL) }
	}
	return transport
}

// anonymous answers as a credential program of Docker's does: there are none.
func anonymous(output io.Writer) error {
	_, err := io.WriteString(output, `{"Username":"","Secret":""}`)
	return err
}

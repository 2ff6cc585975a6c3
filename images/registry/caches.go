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

	mutex sync.Mutex
	open  map[string]*cache
}

type cache struct {
	app *handlers.App
	// The content of the file that it was opened with.
	settings []byte
	// Of the registry, without a path.
	remoteHost string
	// Trusts the authorities and goes through the proxy of these settings.
	transport *http.Transport
}

var registryHost = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*(:[0-9]+)?$`)

func newCaches(ctx context.Context, directory, settingsDirectory string) *caches {
	return &caches{ctx: ctx, directory: directory, settingsDirectory: settingsDirectory, open: map[string]*cache{}}
}

func (c *caches) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	host := request.URL.Query().Get("ns")
	found, err := c.find(host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// containerd then asks the registry itself.
		http.Error(response, fmt.Sprintf("no copies are kept of registry %q", host), http.StatusNotFound)
	case err != nil:
		http.Error(response, err.Error(), http.StatusInternalServerError)
	default:
		ctx := context.WithValue(request.Context(), transportKey{}, found.transport)
		found.app.ServeHTTP(response, request.WithContext(ctx))
	}
}

// transportKey leads in a request's context to the transport of the cache that it is for.
type transportKey struct{}

// RoundTrip stands in place of http.DefaultTransport, the only one that upstream's caches know: each request goes by
// the transport of the cache that it is made for. Without a context comes only the question how to log in, to the
// registry itself: whichever cache of it can ask.
func (c *caches) RoundTrip(request *http.Request) (response *http.Response, err error) {
	if transport, ok := request.Context().Value(transportKey{}).(*http.Transport); ok {
		return transport.RoundTrip(request)
	}
	err = fmt.Errorf("no copies are kept of registry %q", request.URL.Host)
	for _, transport := range c.transportsTo(request.URL.Host) {
		if response, err = transport.RoundTrip(request); err == nil {
			return response, nil
		}
	}
	return nil, err
}

func (c *caches) transportsTo(remoteHost string) []*http.Transport {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	var transports []*http.Transport
	for _, found := range c.open {
		if found.remoteHost == remoteHost {
			transports = append(transports, found.transport)
		}
	}
	return transports
}

// find opens a cache when it is asked for, and anew when its settings have changed.
func (c *caches) find(host string) (*cache, error) {
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
		return found, nil
	}
	settings, err := parseSettings(content)
	if err != nil {
		return nil, fmt.Errorf("settings of registry %s: %w", host, err)
	}
	remote, err := url.Parse(settings.RemoteURL)
	if err != nil {
		return nil, fmt.Errorf("settings of registry %s: %w", host, err)
	}
	transport, err := newTransport(settings)
	if err != nil {
		return nil, err
	}
	app, err := c.openApp(host, settings)
	if err != nil {
		return nil, err
	}
	c.closeCache(host)
	c.open[host] = &cache{app: app, settings: content, remoteHost: remote.Host, transport: transport}
	return c.open[host], nil
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

func (c *caches) closeCache(host string) {
	if found := c.open[host]; found != nil {
		// Of what is closed nothing can fail: no copy ever ends.
		_ = found.app.Shutdown()
		found.transport.CloseIdleConnections()
		delete(c.open, host)
	}
}

// clear takes every copy away.
func (c *caches) clear() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for host := range c.open {
		c.closeCache(host)
	}
	return os.RemoveAll(c.directory)
}

func parseSettings(content []byte) (cacheSettings, error) {
	var settings cacheSettings
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&settings)
	return settings, err
}

func newTransport(settings cacheSettings) (*http.Transport, error) {
	authorities, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	for _, certificate := range settings.CACertificates {
		authorities.AppendCertsFromPEM([]byte(certificate))
	}
	proxyFor := (&httpproxy.Config{
		HTTPProxy: settings.Proxy.HTTPProxy, HTTPSProxy: settings.Proxy.HTTPSProxy, NoProxy: settings.Proxy.NoProxy,
	}).ProxyFunc()
	dialer := net.Dialer{Timeout: dialTimeout}
	return &http.Transport{
		Proxy:                 func(request *http.Request) (*url.URL, error) { return proxyFor(request.URL) },
		DialContext:           dialer.DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: authorities},
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: answerTimeout,
		IdleConnTimeout:       answerTimeout,
		ForceAttemptHTTP2:     true,
	}, nil
}

// anonymous answers as a credential program of Docker's does: there are none.
func anonymous(output io.Writer) error {
	_, err := io.WriteString(output, `{"Username":"","Secret":""}`)
	return err
}

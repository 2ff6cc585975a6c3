package container

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	firstRetryDelay = 20 * time.Millisecond
	lastRetryDelay  = 500 * time.Millisecond
	probeTimeout    = 2 * time.Second
)

// WaitForAPI returns once the API server at url ("https://172.30.0.2:6443") answers /readyz with 200. Delays grow
// from 20 ms to half a second, so that a server that is about to be ready is noticed at once and one that is
// stopped for hours costs nothing. It ends early only with ctx, and then names what the last probe saw.
func WaitForAPI(ctx context.Context, url string) error {
	client := &http.Client{Timeout: probeTimeout, Transport: probeTransport()}
	defer client.CloseIdleConnections()
	var last error
	for delay := firstRetryDelay; ; delay = min(delay*5/4, lastRetryDelay) {
		err := probe(ctx, client, url+"/readyz")
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("API server is not ready: %w (%w)", last, context.Cause(ctx))
		case <-time.After(delay):
		}
	}
}

func probe(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}

// The probe carries no secret and its answer is only a hint about time, so it needs no certificate check;
// whoever waits then connects with a client that does check. HTTP proxies of the environment play no part.
func probeTransport() *http.Transport {
	return &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		// A SYN to an address that is not there yet is answered by nobody; a short timeout tries again soon.
		DialContext: (&net.Dialer{Timeout: lastRetryDelay}).DialContext,
	}
}

package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"strings"
	"time"

	"sandbar.dev/lib/agent"
)

const (
	lookupRetryDelay = 20 * time.Millisecond
	// Long enough for a name that the cluster's DNS forwards, short enough to notice a lost packet.
	lookupTimeout = 500 * time.Millisecond
)

// resolve asks the cluster's name service, at its service address, until it answers.
func resolve(config agent.Config, arguments []string) error {
	flags := flag.NewFlagSet("resolve", flag.ContinueOnError)
	timeout := flags.Duration("timeout", 30*time.Second, "how long to keep asking")
	name, err := parseNameAndFlags(flags, arguments)
	if err != nil {
		return err
	}
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", net.JoinHostPort(config.ClusterDNS, "53"))
	}}
	addresses, err := lookup(resolver, name, time.Now().Add(*timeout))
	if err != nil {
		return fmt.Errorf("%s is not resolved after %v: %w", name, *timeout, err)
	}
	fmt.Println(strings.Join(addresses, "\n"))
	return nil
}

// parseNameAndFlags accepts flags on both sides of the name.
func parseNameAndFlags(flags *flag.FlagSet, arguments []string) (string, error) {
	if err := flags.Parse(arguments); err != nil {
		return "", err
	}
	if flags.NArg() == 0 {
		return "", fmt.Errorf("usage: sandbar-agent resolve NAME [--timeout 30s]")
	}
	name := flags.Arg(0)
	if err := flags.Parse(flags.Args()[1:]); err != nil {
		return "", err
	}
	if flags.NArg() > 0 {
		return "", fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	// The final dot keeps the resolver from trying the search domains of the Docker network.
	return strings.TrimSuffix(name, ".") + ".", nil
}

func lookup(resolver *net.Resolver, name string, deadline time.Time) ([]string, error) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
		addresses, err := resolver.LookupHost(ctx, name)
		cancel()
		if err == nil {
			return addresses, nil
		}
		if time.Now().Add(lookupRetryDelay).After(deadline) {
			return nil, err
		}
		time.Sleep(lookupRetryDelay)
	}
}

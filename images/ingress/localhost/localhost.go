// Package localhost makes the certificates of names below localhost, which no Ingress or Gateway brings one for. A
// wildcard would not do: browsers take *.localhost for a public suffix.
package localhost

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	certificatePath = "/etc/sandbar/authority.crt"
	keyPath         = "/etc/sandbar/authority.key"

	validity = 90 * 24 * time.Hour
	// A clock may jump back by hours, and differ between the engine's virtual machine and the host.
	backdating = 48 * time.Hour
	// Names are whatever a client asks for.
	maxKept = 1000
	// Names of 64 characters and more do not fit into a common name.
	maxCommonName = 63
	maxName       = 253
)

var nameForm = regexp.MustCompile(`^(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*localhost$`)

// Authority signs certificates for names below localhost, and keeps those that it has made.
type Authority struct {
	issuer *x509.Certificate
	signer any
	// Sent along with each certificate.
	chain [][]byte
	// All certificates are this process's own, so one key is as good as many.
	key  *ecdsa.PrivateKey
	now  func() time.Time
	lock sync.Mutex
	kept map[string]*tls.Certificate
}

var load = sync.OnceValues(func() (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(certificatePath, keyPath)
	if err != nil {
		return nil, fmt.Errorf("read the authority of names below localhost: %w", err)
	}
	return New(pair, time.Now)
})

// CertificateFor returns the certificate for the name that a client asks for, or fallback for a name elsewhere.
func CertificateFor(name string, fallback *tls.Certificate) (*tls.Certificate, error) {
	name, isLocal := canonical(name)
	if !isLocal {
		return fallback, nil
	}
	authority, err := load()
	if err != nil {
		return nil, err
	}
	return authority.Certificate(name)
}

// canonical is the name in the form that certificates have it. A client that asks for an address sends none.
func canonical(name string) (string, bool) {
	if name == "" {
		return "localhost", true
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name, len(name) <= maxName && nameForm.MatchString(name)
}

// New makes an authority of a certificate and its key.
func New(pair tls.Certificate, now func() time.Time) (*Authority, error) {
	issuer, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &Authority{
		issuer: issuer, signer: pair.PrivateKey, chain: pair.Certificate, key: key, now: now, kept: map[string]*tls.Certificate{},
	}, nil
}

// Certificate returns the certificate for a name, made when it is first asked for and anew when a third of its time is left,
// as long as the authority lasts.
func (a *Authority) Certificate(name string) (*tls.Certificate, error) {
	a.lock.Lock()
	defer a.lock.Unlock()
	if kept := a.kept[name]; kept != nil && a.isFresh(kept.Leaf) {
		return kept, nil
	}
	made, err := a.issue(name)
	if err != nil {
		return nil, err
	}
	if len(a.kept) >= maxKept {
		clear(a.kept)
	}
	a.kept[name] = made
	return made, nil
}

// isFresh tells whether a new one would be no better. None lasts longer than the authority.
func (a *Authority) isFresh(leaf *x509.Certificate) bool {
	now := a.now()
	hasBegun := now.After(leaf.NotBefore) || leaf.NotBefore.Equal(a.issuer.NotBefore)
	lastsLong := now.Before(leaf.NotAfter.Add(-validity/3)) || leaf.NotAfter.Equal(a.issuer.NotAfter)
	return hasBegun && lastsLong
}

func (a *Authority) issue(name string) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		NotBefore:    later(now.Add(-backdating), a.issuer.NotBefore),
		NotAfter:     earlier(now.Add(validity), a.issuer.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{name},
		// Says that this is no authority.
		BasicConstraintsValid: true,
	}
	if len(name) <= maxCommonName {
		template.Subject = pkix.Name{CommonName: name}
	}
	if name == "localhost" {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.issuer, a.key.Public(), a.signer)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a certificate for %s", name), err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, a.chain...), PrivateKey: a.key, Leaf: leaf}, nil
}

func earlier(one, other time.Time) time.Time {
	if one.Before(other) {
		return one
	}
	return other
}

func later(one, other time.Time) time.Time {
	if one.After(other) {
		return one
	}
	return other
}

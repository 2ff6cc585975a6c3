package localhost

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// newAuthority makes one that may sign for names below localhost only, as the command line makes it.
func newAuthority(t *testing.T, ends time.Time, now *time.Time) (*Authority, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: start.AddDate(0, -1, 0), NotAfter: ends,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		PermittedDNSDomains: []string{"localhost"}, PermittedDNSDomainsCritical: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := New(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.issuer)
	return authority, roots
}

func TestCertificatesHoldForTheirNameAlone(t *testing.T) {
	now := start
	authority, roots := newAuthority(t, start.AddDate(10, 0, 0), &now)
	long := strings.Repeat(strings.Repeat("a", 60)+".", 4) + "localhost"
	for _, name := range []string{"localhost", "app.localhost", "a.b.localhost", long} {
		made, err := authority.Certificate(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := made.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if made.Leaf.VerifyHostname("other.localhost") == nil {
			t.Errorf("the certificate of %s holds for other.localhost", name)
		}
	}
	if made, _ := authority.Certificate("localhost"); made.Leaf.VerifyHostname("127.0.0.1") != nil {
		t.Error("no certificate holds for 127.0.0.1")
	}
}

func TestCertificatesAreKeptUntilAThirdOfTheirTimeIsLeft(t *testing.T) {
	now := start
	ends := start.AddDate(0, 0, 100)
	authority, _ := newAuthority(t, ends, &now)
	serial := func() string {
		made, err := authority.Certificate("app.localhost")
		if err != nil {
			t.Fatal(err)
		}
		if now.Before(made.Leaf.NotBefore) || now.After(made.Leaf.NotAfter) || made.Leaf.NotAfter.After(ends) {
			t.Errorf("at %v: valid from %v to %v", now, made.Leaf.NotBefore, made.Leaf.NotAfter)
		}
		return made.Leaf.SerialNumber.String()
	}
	first := serial()
	now = start.AddDate(0, 0, 59)
	if serial() != first {
		t.Error("made anew too early")
	}
	now = start.AddDate(0, 0, 61)
	if serial() == first {
		t.Error("not made anew")
	}
	// A clock that jumps back by weeks.
	now = start.AddDate(0, 0, -20)
	serial()
}

func TestNoneIsMadeAnewThatWouldBeNoBetter(t *testing.T) {
	var now time.Time
	authority, _ := newAuthority(t, start.AddDate(0, 0, 100), &now)
	// In the authority's last weeks, after its end, and before its beginning.
	for _, days := range []int{80, 110, -40} {
		now = start.AddDate(0, 0, days)
		first, err := authority.Certificate("app.localhost")
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
		if second, err := authority.Certificate("app.localhost"); second != first || err != nil {
			t.Errorf("on day %d: made anew at the next handshake, %v", days, err)
		}
	}
}

func TestOnlyNamesBelowLocalhostGetOne(t *testing.T) {
	fallback := &tls.Certificate{}
	for _, name := range []string{"example.com", "localhost.example.com", "mylocalhost", "127.0.0.1", "*.localhost", "-a.localhost", "a..localhost",
		strings.Repeat("a", 64) + ".localhost", strings.Repeat("a.", 130) + "localhost"} {
		if made, err := CertificateFor(name, fallback); made != fallback || err != nil {
			t.Errorf("%s is taken for a name below localhost", name)
		}
	}
	for written, want := range map[string]string{"": "localhost", "App.LOCALHOST.": "app.localhost"} {
		if name, isLocal := canonical(written); !isLocal || name != want {
			t.Errorf("%q becomes %q", written, name)
		}
	}
}

func TestNoMoreThanAThousandAreKept(t *testing.T) {
	now := start
	authority, _ := newAuthority(t, start.AddDate(10, 0, 0), &now)
	for number := range maxKept + 10 {
		if _, err := authority.Certificate(strconv.Itoa(number) + ".localhost"); err != nil {
			t.Fatal(err)
		}
	}
	if len(authority.kept) > maxKept {
		t.Errorf("%d are kept", len(authority.kept))
	}
}

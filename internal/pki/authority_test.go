package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"headway/internal/pki"
)

// read is the first certificate of a file.
func (i *installation) read(file string) *x509.Certificate {
	i.Helper()
	raw, err := os.ReadFile(file)
	i.check(err)
	block, _ := pem.Decode(raw)
	if block == nil {
		i.Fatalf("%s has no PEM", file)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	i.check(err)
	return c
}

// What is signed lasts as long as browsers accept, is for one purpose, and signs
// nothing itself.
func TestWhatAnAuthoritySigns(t *testing.T) {
	i := install(t)
	clientCert, clientKey := filepath.Join(i.dir, "c.pem"), filepath.Join(i.dir, "c-key.pem")
	i.check(i.authority.Client("gpu-1", clientCert, clientKey))
	ca, server, client := i.read(filepath.Join(i.dir, pki.CACertFile)), i.read(i.cert), i.read(clientCert)
	const day = 24 * time.Hour
	for what, c := range map[string]struct {
		cert  *x509.Certificate
		lasts time.Duration
		usage []x509.ExtKeyUsage
		signs bool
	}{
		"the authority": {ca, 3650 * day, nil, true},
		"a server":      {server, 397 * day, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, false},
		"a client":      {client, 397 * day, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, false},
	} {
		now := time.Now()
		if left := c.cert.NotAfter.Sub(now); left > c.lasts || left < c.lasts-time.Hour {
			t.Errorf("%s lasts for %s; want %s", what, left, c.lasts)
		}
		if since := now.Sub(c.cert.NotBefore); since < time.Hour || since > 2*time.Hour { // for clocks that are behind
			t.Errorf("%s is good since %s", what, since)
		}
		if !slices.Equal(c.cert.ExtKeyUsage, c.usage) || c.cert.IsCA != c.signs || c.signs != (c.cert.KeyUsage&x509.KeyUsageCertSign != 0) {
			t.Errorf("%s is for %v, an authority %v", what, c.cert.ExtKeyUsage, c.cert.IsCA)
		}
	}
	if !ca.MaxPathLenZero || ca.MaxPathLen != 0 {
		t.Errorf("other authorities may be signed: %d", ca.MaxPathLen)
	}
	if len(client.URIs) != 0 || client.Subject.CommonName != "gpu-1" {
		t.Errorf("a name that is no URI: %v, %s", client.URIs, client.Subject)
	}
	if server.SerialNumber.Cmp(client.SerialNumber) == 0 || server.SerialNumber.BitLen() < 64 {
		t.Errorf("serial numbers %x and %x", server.SerialNumber, client.SerialNumber)
	}
	for file, mode := range map[string]os.FileMode{clientKey: 0o600, clientCert: 0o644, i.dir: 0o700} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v; want %v", file, info.Mode(), err, mode)
		}
	}
}

// A certificate of a server or a self-made one is no authority.
func TestOnlyAnAuthorityIsOpenedAsOne(t *testing.T) {
	i := install(t)
	dir := t.TempDir()
	for from, to := range map[string]string{i.cert: pki.CACertFile, i.key: "ca-key.pem"} {
		raw, err := os.ReadFile(from)
		i.check(err)
		i.check(os.WriteFile(filepath.Join(dir, to), raw, 0o600))
	}
	if _, _, err := pki.OpenAuthority(dir, time.Now()); err == nil || !strings.Contains(err.Error(), "no authority") {
		t.Errorf("%v; want a refusal", err)
	}
}

// A client cannot serve with its certificate, nor a server come as a client.
func TestCertificatesAreForOnePurpose(t *testing.T) {
	i := install(t)
	cert, key := filepath.Join(i.dir, "c.pem"), filepath.Join(i.dir, "c-key.pem")
	i.check(i.authority.Client("localhost", cert, key))
	asServer := i.open(func(o *pki.Options) { o.CertFile, o.KeyFile = cert, key })
	if _, _, err := i.dial(asServer.Config()); err == nil {
		t.Error("a client's certificate serves")
	}
	pair, err := tls.LoadX509KeyPair(i.cert, i.key)
	i.check(err)
	config := i.open(func(o *pki.Options) { o.ClientCAFile = filepath.Join(i.dir, pki.CACertFile) }).Config()
	if _, _, err := i.dial(config, pair); err == nil {
		t.Error("a server's certificate lets a client in")
	}
}

// The authorities of clients change with their file, and stay where that has a
// fault; the pool is another one after each change, and only then.
func TestAuthoritiesOfClientsThatChange(t *testing.T) {
	i, other := install(t), install(t)
	file := filepath.Join(t.TempDir(), "clients.pem")
	put := func(text []byte, at time.Time) {
		t.Helper()
		i.check(os.WriteFile(file, text, 0o600))
		i.check(os.Chtimes(file, at, at))
	}
	ours, err := os.ReadFile(filepath.Join(i.dir, pki.CACertFile))
	i.check(err)
	theirs, err := os.ReadFile(filepath.Join(other.dir, pki.CACertFile))
	i.check(err)
	start := time.Now().Add(-time.Hour)
	put(ours, start)
	c := i.open(func(o *pki.Options) { o.ClientCAFile = file })
	config := c.Config()
	client := func(a *pki.Authority) tls.Certificate {
		cert, key := filepath.Join(t.TempDir(), "c.pem"), filepath.Join(t.TempDir(), "k.pem")
		i.check(a.Client("gpu-1", cert, key))
		pair, err := tls.LoadX509KeyPair(cert, key)
		i.check(err)
		return pair
	}
	mine, foreign := client(i.authority), client(other.authority)
	in := func(pair tls.Certificate) bool {
		_, _, err := i.dial(config, pair)
		return err == nil
	}
	before := c.ClientCAs()
	i.check(c.Reload())
	if c.ClientCAs() != before || !in(mine) || in(foreign) {
		t.Error("nothing changed, and there are other authorities")
	}
	i.check(os.Chtimes(i.cert, start, start))
	i.check(c.Reload())
	if c.ClientCAs() != before {
		t.Error("only the certificate was written, and there are other authorities")
	}
	put([]byte("rubbish"), start.Add(time.Minute))
	for range 2 { // it is read again each time
		if err := c.Reload(); err == nil || c.ClientCAs() != before || !in(mine) {
			t.Errorf("rubbish: %v", err)
		}
	}
	if c.Failures() != 2 {
		t.Errorf("%d failures are counted", c.Failures())
	}
	put(theirs, start.Add(2*time.Minute))
	i.check(c.Reload())
	if c.ClientCAs() == before || in(mine) || !in(foreign) {
		t.Error("the authorities of before still sign for clients")
	}
}

// A certificate that ends while it is served goes on being served: clients say
// what is wrong with it, better than a connection that is refused.
func TestACertificateThatEndsIsServedOn(t *testing.T) {
	i := install(t)
	now := time.Now()
	c := i.open(func(o *pki.Options) { o.Now = func() time.Time { return now } })
	if !c.NotAfter().Equal(i.read(i.cert).NotAfter) || !c.Covers("localhost") || c.Covers("example.org") {
		t.Errorf("until %s", c.NotAfter())
	}
	now = c.NotAfter().Add(time.Second)
	touched := time.Now().Add(time.Hour)
	i.check(os.Chtimes(i.cert, touched, touched))
	if err := c.Reload(); err != nil {
		t.Errorf("%v", err)
	}
}

// Old versions of TLS are refused, and ACME serves the names that it is for only.
func TestWhatAListenerNeeds(t *testing.T) {
	i := install(t)
	if config := i.open(nil).Config(); config.MinVersion != tls.VersionTLS12 || !slices.Contains(config.NextProtos, "h2") || config.ClientAuth != tls.NoClientCert {
		t.Errorf("%+v", config)
	}
	c := i.open(func(o *pki.Options) {
		o.CertFile, o.KeyFile, o.ACME = "", "", pki.ACME{Hosts: []string{"headway.example"}, CacheDir: t.TempDir(), Directory: "http://127.0.0.1:1/"}
	})
	config := c.Config()
	if !slices.Contains(config.NextProtos, acme.ALPNProto) || !c.Covers("Headway.example") || c.Covers("other.example") || !c.NotAfter().IsZero() {
		t.Errorf("%v", config.NextProtos)
	}
	if _, err := config.GetCertificate(&tls.ClientHelloInfo{ServerName: "other.example"}); err == nil || !strings.Contains(err.Error(), "not configured") {
		t.Errorf("another name: %v", err)
	}
}

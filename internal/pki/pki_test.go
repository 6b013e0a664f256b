package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/pki"
)

// installation is an authority with a certificate for localhost.
type installation struct {
	testing.TB
	dir       string
	authority *pki.Authority
	cert, key string
}

func install(t testing.TB) *installation {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	a, created, err := pki.OpenAuthority(dir, time.Now())
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	i := &installation{t, dir, a, filepath.Join(dir, pki.ServerCertFile), filepath.Join(dir, pki.ServerKeyFile)}
	i.check(a.Server([]string{"localhost", "127.0.0.1"}, i.cert, i.key))
	return i
}

func (i *installation) check(err error) {
	i.Helper()
	if err != nil {
		i.Fatal(err)
	}
}

func (i *installation) open(change func(*pki.Options)) *pki.Certificates {
	i.Helper()
	o := pki.Options{CertFile: i.cert, KeyFile: i.key, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
	if change != nil {
		change(&o)
	}
	c, err := pki.Open(o)
	i.check(err)
	return c
}

// dial makes one connection between the server's and a client's configuration
// and returns what each saw of the other.
func (i *installation) dial(server *tls.Config, certs ...tls.Certificate) (seen, shown *x509.Certificate, err error) {
	i.Helper()
	ca, err := os.ReadFile(filepath.Join(i.dir, pki.CACertFile))
	i.check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	i.check(err)
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	i.check(err)
	defer b.Close()
	a, err := l.Accept()
	i.check(err)
	defer a.Close()
	for _, end := range []net.Conn{a, b} {
		i.check(end.SetDeadline(time.Now().Add(10 * time.Second)))
	}
	s, c := tls.Server(a, server), tls.Client(b, &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: certs})
	failed := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err != nil {
			_ = a.Close()
		}
		failed <- err
	}()
	err = c.Handshake()
	if err = errors.Join(err, <-failed); err != nil {
		return nil, nil, err
	}
	if peers := s.ConnectionState().PeerCertificates; len(peers) > 0 {
		shown = peers[0]
	}
	return c.ConnectionState().PeerCertificates[0], shown, nil
}

func TestAnAuthoritySignsForTheServer(t *testing.T) {
	i := install(t)
	seen, _, err := i.dial(i.open(nil).Config())
	i.check(err)
	if seen.VerifyHostname("127.0.0.1") != nil || seen.VerifyHostname("localhost") != nil || seen.VerifyHostname("example.org") == nil {
		t.Errorf("the certificate is for %v and %v", seen.DNSNames, seen.IPAddresses)
	}
	if _, created, err := pki.OpenAuthority(i.dir, time.Now()); created || err != nil {
		t.Errorf("opened again: created %v, %v", created, err)
	}
	if err := i.authority.Server([]string{"localhost"}, i.cert, i.key); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a key that is there: %v; want a refusal", err)
	}
	for _, f := range []string{"ca-key.pem", pki.ServerKeyFile} {
		if info, err := os.Stat(filepath.Join(i.dir, f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v; want 0600", f, info.Mode(), err)
		}
	}
	i.check(os.Remove(filepath.Join(i.dir, pki.CACertFile)))
	if _, _, err := pki.OpenAuthority(i.dir, time.Now()); err == nil || !strings.Contains(err.Error(), "without its other half") {
		t.Errorf("a key without its certificate: %v", err)
	}
}

func TestClientsShowACertificateOfTheAuthority(t *testing.T) {
	i := install(t)
	config := i.open(func(o *pki.Options) { o.ClientCAFile = filepath.Join(i.dir, pki.CACertFile) }).Config()
	if _, shown, err := i.dial(config); err != nil || shown != nil {
		t.Errorf("a client without a certificate: %v, %v; want it let in", shown, err)
	}
	const name = "spiffe://fleet.example/gpu-1"
	client := func(a *pki.Authority) tls.Certificate {
		cert, key := filepath.Join(t.TempDir(), "c.pem"), filepath.Join(t.TempDir(), "k.pem")
		i.check(a.Client(name, cert, key))
		pair, err := tls.LoadX509KeyPair(cert, key)
		i.check(err)
		return pair
	}
	_, shown, err := i.dial(config, client(i.authority))
	if err != nil || shown == nil || len(shown.URIs) != 1 || shown.URIs[0].String() != name {
		t.Errorf("a client of ours: %+v, %v", shown, err)
	}
	if _, _, err := i.dial(config, client(install(t).authority)); err == nil {
		t.Error("a client of another authority was let in")
	}
}

func TestFilesThatChange(t *testing.T) {
	i := install(t)
	c := i.open(nil)
	config := c.Config() // made once, as a listener does
	before, _, err := i.dial(config)
	i.check(err)
	i.check(c.Reload())
	if again, _, _ := i.dial(config); !again.Equal(before) {
		t.Error("nothing changed, and another certificate is served")
	}
	i.check(os.Remove(i.cert))
	if err := c.Reload(); !errors.Is(err, fs.ErrNotExist) || c.Failures() != 1 {
		t.Errorf("without its file: %v, %d failures", err, c.Failures())
	}
	i.check(os.WriteFile(i.cert, []byte("rubbish"), 0o600))
	if err := c.Reload(); err == nil {
		t.Error("rubbish was read as a certificate")
	}
	if again, _, err := i.dial(config); err != nil || !again.Equal(before) {
		t.Errorf("after files that could not be read: %v; want the certificate of before", err)
	}
	i.check(os.Remove(i.cert))
	i.check(os.Remove(i.key))
	i.check(i.authority.Server([]string{"localhost"}, i.cert, i.key))
	i.check(c.Reload())
	if after, _, err := i.dial(config); err != nil || after.Equal(before) {
		t.Errorf("the new certificate is not served: %v", err)
	}
}

func TestWhatCannotBeServedIsRefused(t *testing.T) {
	i := install(t)
	old := filepath.Join(t.TempDir(), "tls")
	a, _, err := pki.OpenAuthority(old, time.Now().AddDate(-3, 0, 0))
	i.check(err)
	oldCert, oldKey := filepath.Join(old, "s.pem"), filepath.Join(old, "k.pem")
	i.check(a.Server([]string{"localhost"}, oldCert, oldKey))
	for want, o := range map[string]pki.Options{
		"set both":                      {CertFile: i.cert},
		"not both":                      {CertFile: i.cert, KeyFile: i.key, ACME: pki.ACME{Hosts: []string{"example.org"}}},
		"does not match":                {CertFile: i.cert, KeyFile: oldKey},
		"no such file":                  {CertFile: i.cert, KeyFile: i.key + "x"},
		"no certificate":                {CertFile: i.cert, KeyFile: i.key, ClientCAFile: i.key},
		"ended at":                      {CertFile: oldCert, KeyFile: oldKey},
		"Log and Metrics are required*": {CertFile: i.cert, KeyFile: i.key},
	} {
		if !strings.HasSuffix(want, "*") {
			o.Metrics = prometheus.NewRegistry()
			o.Log = slog.New(slog.DiscardHandler)
		}
		if _, err := pki.Open(o); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(want, "*")) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

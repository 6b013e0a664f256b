package access_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/pki"
)

// mutual is a server of ours that knows the certificates of one authority.
type mutual struct {
	testing.TB
	config    *tls.Config
	authority tls.Certificate
	roots     *x509.CertPool
}

func newMutual(t testing.TB) *mutual {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	a, _, err := pki.OpenAuthority(dir, time.Now())
	m := &mutual{TB: t, roots: x509.NewCertPool()}
	m.must(err)
	file := func(name string) string { return filepath.Join(dir, name) }
	m.must(a.Server([]string{"localhost"}, file(pki.ServerCertFile), file(pki.ServerKeyFile)))
	m.authority, err = tls.LoadX509KeyPair(file(pki.CACertFile), file("ca-key.pem"))
	m.must(err)
	m.roots.AddCert(m.authority.Leaf)
	certs, err := pki.Open(pki.Options{
		CertFile: file(pki.ServerCertFile), KeyFile: file(pki.ServerKeyFile), ClientCAFile: file(pki.CACertFile), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	m.must(err)
	m.config = certs.Config()
	return m
}

func (m *mutual) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// sign makes a certificate that is good for clients until change changes it.
func (m *mutual) sign(by tls.Certificate, change func(*x509.Certificate)) tls.Certificate {
	m.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(template)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	m.must(err)
	parent, signer := by.Leaf, by.PrivateKey
	if by.Leaf == nil { // by itself
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	m.must(err)
	leaf, err := x509.ParseCertificate(raw)
	m.must(err)
	return tls.Certificate{Certificate: append([][]byte{raw}, by.Certificate...), PrivateKey: key, Leaf: leaf}
}

// shake connects and returns what the server knows of the client.
func (m *mutual) shake(client tls.Certificate) (tls.ConnectionState, error) {
	m.Helper()
	a, b := net.Pipe()
	defer a.Close()
	m.must(a.SetDeadline(time.Now().Add(time.Minute)))
	s := tls.Server(a, m.config)
	// This is shown for any request of the server.
	c := tls.Client(b, &tls.Config{RootCAs: m.roots, ServerName: "localhost", GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil }})
	var reading sync.WaitGroup
	defer reading.Wait()
	defer b.Close()
	reading.Go(func() { _, _ = io.Copy(io.Discard, c) }) // which shakes hands first
	err := s.Handshake()
	return s.ConnectionState(), err
}

func TestCertificatesOfClients(t *testing.T) {
	m := newMutual(t)
	named := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for _, n := range names {
				kind, name, _ := strings.Cut(n, ":")
				switch kind {
				case "cn":
					c.Subject = pkix.Name{CommonName: name}
				case "dns":
					c.DNSNames = append(c.DNSNames, name)
				case "uri":
					u, err := url.Parse(name)
					m.must(err)
					c.URIs = append(c.URIs, u)
				case "mail":
					c.EmailAddresses = append(c.EmailAddresses, name)
				}
			}
		}
	}
	and := func(changes ...func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for _, change := range changes {
				change(c)
			}
		}
	}
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	notYet := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }
	forServers := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	asAuthority := func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	}
	other := newMutual(t).authority
	var itself tls.Certificate
	leaf := m.sign(m.authority, named("cn:ops-leaf"))

	d := open(t, access.Options{Failures: 1e6, Certificates: []access.Holder{
		{Name: "ops-*", Role: access.RoleAdmin},
		{Name: "spiffe://fleet/head/*", Role: access.RoleHead, Heads: []string{"gpu-*"}, Regions: []string{"eu-*"}},
		{Name: "a*b", Role: access.RoleClient},
		{Name: "*", Role: access.RoleViewer},
	}})
	d.now = time.Now()
	for name, c := range map[string]struct {
		client tls.Certificate
		id     string // "": it has no principal
		role   access.Role
		cut    string // what the handshake fails with
	}{
		"a common name":                  {m.sign(m.authority, named("cn:ops-1")), "ops-1", access.RoleAdmin, ""},
		"a head":                         {m.sign(m.authority, named("uri:spiffe://fleet/head/gpu-1")), "spiffe://fleet/head/gpu-1", access.RoleHead, ""},
		"a name that only begins so":     {m.sign(m.authority, named("dns:ops.example")), "ops.example", access.RoleViewer, ""},
		"a pattern's name, not its text": {m.sign(m.authority, named("dns:xops-1")), "xops-1", access.RoleViewer, ""},
		"no character for a star":        {m.sign(m.authority, named("dns:ab")), "ab", access.RoleClient, ""},
		"several names: the first line":  {m.sign(m.authority, named("dns:x.example", "dns:ops-2", "uri:spiffe://fleet/head/gpu-1")), "ops-2", access.RoleAdmin, ""},
		"a common name beside others":    {m.sign(m.authority, named("cn:ops-1", "dns:x.example")), "x.example", access.RoleViewer, ""},
		"no name":                        {m.sign(m.authority, named()), "", "", ""},
		"an empty common name":           {m.sign(m.authority, named("cn:")), "", "", ""},
		"a mail address only":            {m.sign(m.authority, named("mail:ops-1@example.com")), "", "", ""},
		"a name with a line end":         {m.sign(m.authority, named("cn:ops-1\nops-2")), "", "", ""},
		"expired":                        {m.sign(m.authority, and(named("cn:ops-1"), expired)), "", "", "expired"},
		"not yet":                        {m.sign(m.authority, and(named("cn:ops-1"), notYet)), "", "", "expired or is not yet valid"},
		"for servers":                    {m.sign(m.authority, and(named("cn:ops-1"), forServers)), "", "", "incompatible key usage"},
		"of another authority":           {m.sign(other, named("cn:ops-1")), "", "", "unknown authority"},
		"of itself":                      {m.sign(itself, named("cn:ops-1")), "", "", "unknown authority"},
		"of itself, as an authority":     {m.sign(itself, and(named("cn:Headway authority"), asAuthority)), "", "", "unknown authority"},
		"of one that is no authority":    {m.sign(leaf, named("cn:ops-1")), "", "", "certificate"},
	} {
		state, err := m.shake(c.client)
		if c.cut != "" {
			if err == nil || !strings.Contains(err.Error(), c.cut) {
				t.Errorf("%s: the handshake ends with %v; want %q", name, err, c.cut)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r := ask(far)
		r.TLS = &state
		p, err := d.guard.Authenticate(r)
		switch {
		case c.id == "" && !errors.Is(err, access.ErrNoCredential):
			t.Errorf("%s: %+v, %v; want none", name, p, err)
		case c.id != "" && (err != nil || p.ID != c.id || p.Role != c.role || p.Type != "certificate"):
			t.Errorf("%s: %+v, %v; want %s as %s", name, p, err, c.id, c.role)
		case c.role == access.RoleHead && (p.RequireHead("gpu-1") != nil || p.RequireHead("cpu-1") == nil || p.RequireRegion("eu-west") != nil || p.RequireRegion("us-east") == nil):
			t.Errorf("%s: %+v", name, p)
		}
	}

	// A credential in a header comes before the certificate, and its faults are
	// not made good by it.
	state, err := m.shake(m.sign(m.authority, named("cn:ops-1")))
	m.must(err)
	r := ask(far, "Authorization", "Bearer hw_000000000000_guess")
	r.TLS = &state
	if p, err := d.guard.Authenticate(r); !errors.Is(err, access.ErrUnknown) {
		t.Errorf("with a wrong key beside it: %+v, %v", p, err)
	}
}

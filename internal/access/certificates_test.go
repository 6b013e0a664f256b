package access_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/pki"
)

// client is what a client of an authority shows, which is new, and a pool with
// the authority.
func client(t *testing.T, now time.Time) (shown []*x509.Certificate, authorities *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	a, _, err := pki.OpenAuthority(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	if err := a.Client("gpu-1", cert, key); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	authorities = x509.NewCertPool()
	for _, raw := range pair.Certificate {
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, c)
	}
	authorities.AddCert(shown[len(shown)-1])
	return shown, authorities
}

// A certificate is accepted as long as it lasts and as long as who signed it is an
// authority; what the handshake of the connection found does not count.
func TestACertificateLastsAsLongAsItsAuthority(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	shown, ours := client(t, now)
	_, others := client(t, now)
	holders := []access.Holder{{Name: "gpu-*", Role: access.RoleHead, Heads: []string{"gpu-*"}}}
	authorities := ours
	d := open(t, access.Options{Certificates: holders, Authorities: func() *x509.CertPool { return authorities }})
	request := func() *http.Request {
		r := ask(far)
		r.TLS = &tls.ConnectionState{PeerCertificates: shown, VerifiedChains: [][]*x509.Certificate{shown}}
		return r
	}
	in := func() (*access.Principal, error) { return d.guard.Authenticate(request()) }
	p, err := in()
	if err != nil || p.Role != access.RoleHead || p.ID != "gpu-1" || !p.Expires.Equal(shown[0].NotAfter) || d.guard.Ended(p) != nil {
		t.Fatalf("%+v, %v; want one until %s", p, err, shown[0].NotAfter)
	}

	authorities = others
	changed := d.guard.Changed()
	d.guard.AuthoritiesChanged()
	<-changed
	for range 2 { // the second time it is remembered
		if _, err := in(); !errors.Is(err, access.ErrUntrusted) || d.guard.Ended(p) == nil {
			t.Errorf("with other authorities: %v", err)
		}
	}
	both := ours.Clone()
	both.AddCert(shown[0])
	authorities = both
	if _, err := in(); err != nil || d.guard.Ended(p) != nil {
		t.Errorf("with the authority back: %v", err)
	}

	d.now = shown[0].NotAfter
	if _, err := in(); !errors.Is(err, access.ErrExpired) || !errors.Is(d.guard.Ended(p), access.ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
}

package access_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"testing"
	"time"

	"headway/internal/access"
)

// Wrong credentials of connections are bounded by an allowance of their own:
// neither does a flood of them refuse good keys over HTTP, nor the other way
// round.
func TestFailuresOfConnectionsAreBoundedByThemselves(t *testing.T) {
	d := open(t, access.Options{Failures: 1})
	secret := d.key(access.Request{Name: "first", Role: "admin"})
	address := netip.MustParseAddr("192.0.2.1")
	guess := func() error {
		_, err := d.guard.AuthenticateConnection(t.Context(), "hw_000000000000_guess", nil, address)
		return err
	}
	for i := range 5 {
		if err := guess(); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("guess %d: %v", i, err)
		}
	}
	limited, ok := errors.AsType[*access.LimitedError](guess())
	if !ok || limited.Limit != "failures" || limited.RetryAfter <= 0 || limited.RetryAfter > time.Second {
		t.Errorf("the sixth guess: %+v", limited)
	}
	if _, err := d.guard.AuthenticateConnection(t.Context(), secret, nil, address); err != nil {
		t.Errorf("a good key of the address that guesses: %v", err)
	}
	_, err := d.guard.Authenticate(ask("192.0.2.1:7", "Authorization", "Bearer hw_000000000000_guess"))
	if !errors.Is(err, access.ErrUnknown) {
		t.Errorf("a guess over HTTP: %v; want one that is looked at", err)
	}
	d.now = d.now.Add(time.Second)
	if err := guess(); !errors.Is(err, access.ErrUnknown) {
		t.Errorf("a second later: %v", err)
	}
	for range 100 {
		_, _ = d.guard.Authenticate(ask("192.0.2.3:7", "Authorization", "Bearer hw_000000000000_guess"))
	}
	address = netip.MustParseAddr("192.0.2.3")
	if err := guess(); !errors.Is(err, access.ErrUnknown) {
		t.Errorf("after guesses over HTTP: %v", err)
	}
}

// A connection is authenticated by its token or, without one, by its certificate.
func TestWhoOpensAConnection(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	shown, _ := client(t, now)
	d := open(t, access.Options{Certificates: []access.Holder{{Name: "gpu-*", Role: access.RoleHead, Heads: []string{"gpu-*"}}}})
	secret := d.key(access.Request{Name: "first", Role: "admin"})
	address := netip.MustParseAddr("127.0.0.1")
	verified := &tls.ConnectionState{PeerCertificates: shown, VerifiedChains: [][]*x509.Certificate{shown}}
	for what, c := range map[string]struct {
		token string
		state *tls.ConnectionState
		want  string
		err   error
	}{
		"a certificate":                 {"", verified, "certificate", nil},
		"a certificate and a key":       {secret, verified, "key", nil},
		"a certificate and a wrong key": {"hw_000000000000_guess", verified, "", access.ErrUnknown},
		"a certificate not verified":    {"", &tls.ConnectionState{PeerCertificates: shown}, "", access.ErrNoCredential},
		"nothing":                       {"", nil, "", access.ErrNoCredential},
	} {
		p, err := d.guard.AuthenticateConnection(t.Context(), c.token, c.state, address)
		if !errors.Is(err, c.err) || (p != nil) != (c.want != "") || p != nil && p.Type != c.want {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
	free := open(t, access.Options{})
	if p, err := free.guard.AuthenticateConnection(t.Context(), "", nil, address); err != nil || p.Type != "anonymous" {
		t.Errorf("while no credential is needed: %+v, %v", p, err)
	}
	if _, err := free.guard.AuthenticateConnection(t.Context(), "", nil, netip.MustParseAddr("192.0.2.1")); !errors.Is(err, access.ErrNoCredential) {
		t.Errorf("while no credential is needed, from elsewhere: %v", err)
	}
}

package access_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"headway/internal/access"
)

// A key that has expired administers nothing.
func TestAnExpiredAdministratorDoesNotCount(t *testing.T) {
	d := open(t, access.Options{})
	d.key(access.Request{Name: "short", Role: "admin", ExpiresIn: time.Hour})
	last := strings.Split(d.key(access.Request{Name: "last", Role: "admin"}), "_")[1]
	d.key(access.Request{Name: "viewer", Role: "viewer"})
	d.now = d.now.Add(2 * time.Hour)
	if err := d.keys.Revoke(t.Context(), last); !errors.Is(err, access.ErrLastAdmin) {
		t.Errorf("the last one that lasts: %v", err)
	}
}

// A site of IPv6 has 2^64 addresses, and shares the limit of one.
func TestASiteSharesItsLimits(t *testing.T) {
	d := open(t, access.Options{PerAddress: 1, Failures: 1})
	d.key(access.Request{Name: "first", Role: "admin"})
	limit := func(from, credential string) string {
		_, err := d.guard.Authenticate(ask(from, "Authorization", "Bearer "+credential))
		if limited, ok := errors.AsType[*access.LimitedError](err); ok {
			return limited.Limit
		}
		return ""
	}
	for n := range 5 {
		if got := limit(fmt.Sprintf("[2001:db8:0:1::%x]:1", n), "hw_000000000000_guess"); got != "" {
			t.Fatalf("request %d: limit of %s", n, got)
		}
	}
	d.now = d.now.Add(999 * time.Millisecond)
	for from, want := range map[string]string{"[2001:db8:0:1:ffff::]:1": "address", "[2001:db8:0:1::1%eth0]:1": "address", "[2001:db8:0:2::]:1": "", "192.0.2.1:1": ""} {
		if got := limit(from, "hw_000000000000_guess"); got != want {
			t.Errorf("from %s: limit %q; want %q", from, got, want)
		}
	}
}

// An address that asks now is remembered, however many others come; one that
// has not asked for long makes room.
func TestTheAddressThatAskedLongestAgoMakesRoom(t *testing.T) {
	d := open(t, access.Options{PerAddress: 0.001})
	from := func(n int) string { return fmt.Sprintf("10.%d.%d.%d:1", n>>16, n>>8&255, n&255) }
	for n := range 10_000 {
		_, _ = d.guard.Authenticate(ask(from(n)))
	}
	begin := d.now
	busy := func() error { _, err := d.guard.Authenticate(ask("192.0.2.1:1")); return err }
	d.now = begin.Add(time.Second)
	for range 5 {
		_ = busy()
	}
	d.now = begin
	for n := range 5_000 {
		_, _ = d.guard.Authenticate(ask(from(20_000 + n)))
	}
	d.now = begin.Add(time.Second)
	if _, limited := errors.AsType[*access.LimitedError](busy()); !limited {
		t.Error("an address that had asked all it may is forgotten, and asks again")
	}
	if n := d.labelled()["addresses"]; n != 5001 {
		t.Errorf("%v addresses were forgotten; want 5001", n)
	}
}

// A certificate without an authority has no principal.
func TestACertificateThatWasNotVerified(t *testing.T) {
	shown, authorities := client(t, time.Now())
	d := open(t, access.Options{
		Certificates: []access.Holder{{Name: "*", Role: access.RoleAdmin}},
		Authorities:  func() *x509.CertPool { return authorities },
	})
	r := ask(far)
	r.TLS = &tls.ConnectionState{PeerCertificates: shown}
	if p, err := d.guard.Authenticate(r); !errors.Is(err, access.ErrNoCredential) {
		t.Errorf("%+v, %v", p, err)
	}
}

// What is refused without a look at a credential costs an address nothing, since
// a foreign page can make a browser send it.
func TestWhatIsNoGuessCostsNothing(t *testing.T) {
	d := open(t, access.Options{Failures: 1})
	secret := d.key(access.Request{Name: "first", Role: "admin"})
	for range 100 {
		r := ask(near)
		r.RequestURI, r.URL.RawQuery = "/livez?token=x", "token=x"
		if err := d.guard.CheckURL(r); !errors.Is(err, access.ErrInURL) {
			t.Fatal(err)
		}
		for want, headers := range map[error][]string{
			access.ErrNoCredential: nil,
			access.ErrMalformed:    {"Authorization", "Basic eDp5"},
			access.ErrSeveral:      {"Authorization", "Bearer x", "Authorization", "Bearer y"},
			access.ErrElsewhere:    {"X-Api-Key", "x"},
		} {
			if _, err := d.guard.Authenticate(ask(near, headers...)); !errors.Is(err, want) {
				t.Fatalf("%v: %v", headers, err)
			}
		}
	}
	for n := range 5 { // the whole allowance is there
		if _, err := d.guard.Authenticate(ask(near, "Authorization", "Bearer "+secret+"x")); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("guess %d: %v", n, err)
		}
	}
}

// A credential that comes otherwise than in a header has the same limits.
func TestFailuresOfTokensThatComeOtherwise(t *testing.T) {
	d := open(t, access.Options{Failures: 1})
	secret := d.key(access.Request{Name: "first", Role: "admin"})
	from := d.guard.Address(ask(far))
	limited := 0
	for range 100 {
		if _, err := d.guard.AuthenticateToken(t.Context(), "hw_000000000000_guess", from); !errors.Is(err, access.ErrUnknown) {
			limited++
		}
	}
	if limited != 95 {
		t.Errorf("%d of 100 were beyond the limit; want 95", limited)
	}
	if _, err := d.guard.AuthenticateToken(t.Context(), secret, from); err != nil {
		t.Errorf("a good key: %v", err)
	}
}

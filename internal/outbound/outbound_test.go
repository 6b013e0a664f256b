package outbound_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/outbound"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counted is the counters of calls, and what they say.
type counted struct {
	*outbound.Calls
	testing.TB
	metrics *prometheus.Registry
}

func newCounted(t *testing.T) *counted {
	t.Helper()
	metrics := prometheus.NewRegistry()
	return &counted{outbound.NewCalls(metrics), t, metrics}
}

// counts are the calls of the service oidc.
func (c *counted) counts() (success, failed int) {
	families, err := c.metrics.Gather()
	if err != nil {
		c.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		switch l := m.GetLabel(); {
		case l[0].GetValue() != "oidc":
		case l[1].GetValue() == "success":
			success = int(m.GetCounter().GetValue())
		default:
			failed = int(m.GetCounter().GetValue())
		}
	}
	return success, failed
}

// resolver answers every question for an IPv4 address with one.
func resolver(t *testing.T, answer netip.Addr) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = server.Close(); <-ended })
	go func() {
		defer close(ended)
		buffer := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			end := 12 // of the header (RFC 1035), then of the question
			for end < n && buffer[end] != 0 {
				end += int(buffer[end]) + 1
			}
			end += 5
			m := append([]byte{}, buffer[:end]...)
			m[2], m[3] = 0x81, 0x80                       // an answer, without error
			copy(m[6:12], []byte{0, 0, 0, 0, 0, 0})       // no records
			if buffer[end-4] == 0 && buffer[end-3] == 1 { // of type A
				m[7] = 1
				m = append(m, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
				m = append(m, answer.AsSlice()...)
			}
			_, _ = server.WriteTo(m, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// A name is checked by the address that it has when it is dialed.
func TestNamesAreCheckedWhenTheyAreDialed(t *testing.T) {
	for _, c := range []struct {
		answer    string
		allow     bool
		forbidden bool
	}{{"169.254.169.254", false, true}, {"100.100.100.200", false, true}, {"0.0.0.0", true, true}, {"127.0.0.1", false, false}} {
		calls := newCounted(t)
		d := outbound.NewDialer(outbound.Options{Timeout: time.Minute, AllowLinkLocal: c.allow, Count: calls.OIDC})
		d.Resolve(resolver(t, netip.MustParseAddr(c.answer)))
		conn, err := d.DialContext(t.Context(), "tcp4", "rebound.test:1")
		if err == nil {
			_ = conn.Close()
		}
		wrong, forbidden := errors.AsType[*outbound.ForbiddenError](err)
		if forbidden != c.forbidden || forbidden && wrong.Addr.String() != c.answer {
			t.Errorf("a name with the address %s: %v", c.answer, err)
		}
		if success, failed := calls.counts(); success != 0 || failed != 1 {
			t.Errorf("counted %d and %d", success, failed)
		}
	}
}

// A redirect leads to no forbidden address either.
func TestRedirectsAreChecked(t *testing.T) {
	calls := newCounted(t)
	elsewhere := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, elsewhere, http.StatusTemporaryRedirect)
		}
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	c := outbound.NewClient(outbound.Options{Timeout: time.Minute, Count: calls.OIDC})
	defer c.CloseIdleConnections()
	get := func(path string) error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.Do(r)
		if err == nil {
			_ = answer.Body.Close()
		}
		return err
	}
	for _, elsewhere = range []string{"http://169.254.169.254/latest", "http://[::a9fe:a9fe]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[fe80::1]/", "http://[fd00:ec2::254]/"} {
		if _, forbidden := errors.AsType[*outbound.ForbiddenError](get("/away")); !forbidden {
			t.Errorf("a redirect to %s was followed", elsewhere)
		}
	}
	if success, failed := calls.counts(); success != 5 || failed != 5 {
		t.Errorf("five redirects to forbidden addresses: counted %d and %d", success, failed)
	}
	err := get("/")
	if success, failed := calls.counts(); err != nil || success != 6 || failed != 5 {
		t.Errorf("%v; counted %d and %d", err, success, failed)
	}
	err = get("/missing")
	if success, failed := calls.counts(); err != nil || success != 6 || failed != 6 {
		t.Errorf("an answer of 404: %v; counted %d and %d", err, success, failed)
	}
}

// What the setting allows is dialed.
func TestTheSettingAllowsDialing(t *testing.T) {
	for _, allow := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		conn, err := outbound.NewDialer(outbound.Options{Timeout: time.Second, AllowLinkLocal: allow, Setting: "x.allow"}).DialContext(ctx, "tcp", "169.254.169.254:9")
		cancel()
		if err == nil {
			_ = conn.Close()
		}
		if _, forbidden := errors.AsType[*outbound.ForbiddenError](err); forbidden == allow {
			t.Errorf("allowed %v: %v", allow, err)
		}
	}
}

package access_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/memstore"
	"headway/internal/strict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// door is a guard with what stands around it.
type door struct {
	testing.TB
	audit.Unrecorded

	store   *memstore.Store
	keys    *access.Keys
	guard   *access.Guard
	metrics *prometheus.Registry
	now     time.Time
	trail   []string // action and outcome
	refuse  error    // of the trail
}

var owner = &access.Principal{Type: "local", ID: "local", Role: access.RoleAdmin}

func open(t testing.TB, o access.Options) *door {
	t.Helper()
	d := &door{TB: t, store: memstore.New(), metrics: prometheus.NewRegistry(), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	d.load(o, 0)
	return d
}

// load opens the keys that are stored.
func (d *door) load(o access.Options, perKey float64) {
	d.Helper()
	var err error
	if d.keys, err = access.OpenKeys(d.Context(), access.KeysOptions{Store: d.store, Audit: d, Rate: perKey, Now: d.clock}); err != nil {
		d.Fatal(err)
	}
	d.metrics = prometheus.NewRegistry()
	o.Keys, o.Metrics, o.Now = d.keys, d.metrics, d.clock
	if d.guard, err = access.New(o); err != nil {
		d.Fatal(err)
	}
}

// stored are the keys that are stored.
func (d *door) stored() []access.Key {
	d.Helper()
	keys, _, err := d.store.Keys(d.Context())
	if err != nil {
		d.Fatal(err)
	}
	return keys
}

func (d *door) clock() time.Time { return d.now }

func (d *door) Begin(_ context.Context, e audit.Entry) (audit.EndFunc, error) {
	if d.refuse != nil {
		return nil, d.refuse
	}
	d.trail = append(d.trail, e.Action)
	return func(o audit.Outcome, _ string, _ json.RawMessage) { d.trail = append(d.trail, e.Action+" "+string(o)) }, nil
}

// labelled are the counters with a label, by its value.
func (d *door) labelled() map[string]float64 {
	d.Helper()
	families, err := d.metrics.Gather()
	if err != nil {
		d.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				counted[l.GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return counted
}

// key makes a key and returns its secret.
func (d *door) key(r access.Request) string {
	d.Helper()
	_, secret, err := d.keys.Create(d.Context(), owner, r)
	if err != nil {
		d.Fatalf("%+v: %v", r, err)
	}
	return secret
}

// ask is a request of an address with headers: name, value, name, value.
func ask(address string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/heads", nil)
	r.RemoteAddr = address
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

const (
	near = "127.0.0.1:4000"
	far  = "192.0.2.7:4000"
)

// The table of docs/access.md.
func TestRoles(t *testing.T) {
	table := map[access.Role]string{
		access.RoleViewer:   "read",
		access.RoleOperator: "read operate decide head",
		access.RoleAdmin:    "read operate decide head admin",
		access.RoleHead:     "head",
		access.RoleClient:   "decide",
		"none":              "",
	}
	for role, allowed := range table {
		for _, p := range access.Permissions() {
			want := slices.Contains(strings.Fields(allowed), string(p))
			if got := (&access.Principal{Role: role}).May(p); got != want {
				t.Errorf("%s may %s: %v; want %v", role, p, got, want)
			}
		}
	}
	var none *access.Principal
	if none.May(access.Read) || none.Require(access.Read) == nil || none.RequireHead("x") == nil || none.RequireRegion("x") == nil {
		t.Error("no principal has a permission")
	}
}

// Without keys any caller from loopback may do all, and no other is accepted;
// with the first key all need one.
func TestOpenUntilTheFirstKey(t *testing.T) {
	d := open(t, access.Options{})
	if p, err := d.guard.Authenticate(ask(near)); err != nil || p.Role != access.RoleAdmin || p.Type != "anonymous" {
		t.Errorf("by loopback: %+v, %v", p, err)
	}
	for _, from := range []string{far, "[2001:db8::1]:4", "@", ""} {
		if _, err := d.guard.Authenticate(ask(from)); !errors.Is(err, access.ErrNoCredential) {
			t.Errorf("from %q: %v", from, err)
		}
	}
	secret := d.key(access.Request{Name: "first", Role: "admin"})
	if _, err := d.guard.Authenticate(ask(near)); !errors.Is(err, access.ErrNoCredential) {
		t.Errorf("without a key: %v", err)
	}
	if p, err := d.guard.Authenticate(ask(far, "Authorization", "Bearer "+secret)); err != nil || p.Name != "first" {
		t.Errorf("with the key: %+v, %v", p, err)
	}
}

// No key can be read from what is stored, and keys outlast a restart.
func TestOnlyHashesAreStored(t *testing.T) {
	d := open(t, access.Options{})
	secret := d.key(access.Request{Name: "first", Role: "admin"})
	if parts := strings.Split(secret, "_"); len(parts) < 3 || len(secret) < 3+12+1+43 {
		t.Errorf("%d characters; want an id and 256 random bits", len(secret))
	}
	stored, err := json.Marshal(d.stored())
	if err != nil || strings.Contains(string(stored), secret[16:]) {
		t.Errorf("stored: %s, %v", stored, err)
	}
	d.load(access.Options{}, 0)
	if _, err := d.guard.Authenticate(ask(far, "Authorization", "Bearer "+secret)); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if list := d.keys.List(); len(list) != 1 || !list[0].LastUsed.Equal(d.now) {
		t.Errorf("listed as %+v", list)
	}
}

// When a key was used last shows after its end as well.
func TestARevokedKeyShowsItsLastUse(t *testing.T) {
	d := open(t, access.Options{})
	secret := d.key(access.Request{Name: "first", Role: "admin"})
	if _, err := d.keys.Look(secret); err != nil {
		t.Fatal(err)
	}
	used := d.now
	d.now = d.now.Add(time.Minute)
	if err := d.keys.Revoke(t.Context(), strings.Split(secret, "_")[1]); err != nil {
		t.Fatal(err)
	}
	if list := d.keys.List(); len(list) != 1 || !list[0].LastUsed.Equal(used) {
		t.Errorf("listed as %+v; want its last use at %v", list, used)
	}
}

// A revoked key stops working with the call that revokes it, also for those
// that ask at the same time.
func TestARevokedKeyStopsAtOnce(t *testing.T) {
	d := open(t, access.Options{})
	d.key(access.Request{Name: "other", Role: "admin"})
	for range 50 {
		secret := d.key(access.Request{Name: "x", Role: "viewer"})
		id := strings.Split(secret, "_")[1]
		stop, revoked := make(chan struct{}), make(chan struct{})
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for {
					select {
					case <-revoked:
						// A request after Revoke returned is refused.
						if _, err := d.guard.Authenticate(ask(far, "Authorization", "Bearer "+secret)); !errors.Is(err, access.ErrRevoked) {
							t.Errorf("revoked, and %v", err)
						}
						return
					default:
					}
					_, _ = d.guard.Authenticate(ask(far, "Authorization", "Bearer "+secret))
				}
			})
		}
		if err := d.keys.Revoke(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		close(revoked)
		asking.Wait()
		close(stop)
	}
}

// A caller that waits for a change, as a stream does, is woken once the key is
// revoked and not before, and by each other change of the keys.
func TestAChangeOfTheKeysWakesAllWhoWait(t *testing.T) {
	d := open(t, access.Options{})
	closed := func(changed <-chan struct{}) bool {
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
	changed := d.guard.Changed()
	d.key(access.Request{Name: "first", Role: "admin"})
	if !closed(changed) || d.guard.Ended(d.guard.Anonymous()) == nil {
		t.Error("the first key closes the service, and no one is notified")
	}
	secret := d.key(access.Request{Name: "x", Role: "viewer"})
	p, err := d.keys.Look(secret)
	if err != nil {
		t.Fatal(err)
	}
	changed = d.guard.Changed()
	if closed(changed) || d.guard.Ended(p) != nil {
		t.Error("nothing has changed, and callers are notified")
	}
	woken := make(chan bool)
	go func() {
		<-changed
		woken <- d.guard.Ended(p) != nil
	}()
	if err := d.keys.Revoke(t.Context(), strings.Split(secret, "_")[1]); err != nil {
		t.Fatal(err)
	}
	if !<-woken {
		t.Error("the caller that is woken still finds the key good")
	}
	d.store.Inject(memstore.Fault{Err: errors.New("no")})
	changed = d.guard.Changed()
	if _, _, err := d.keys.Create(t.Context(), owner, access.Request{Name: "y", Role: "viewer"}); err == nil || closed(changed) {
		t.Errorf("%v; a change that failed is notified", err)
	}
}

// What cannot be recorded or stored does not happen.
func TestAChangeThatFailsChangesNothing(t *testing.T) {
	d := open(t, access.Options{})
	secret := d.key(access.Request{Name: "first", Role: "admin"})
	id := strings.Split(secret, "_")[1]
	d.key(access.Request{Name: "second", Role: "admin"})
	for _, what := range []string{"trail", "store"} {
		wrong := errors.New("the " + what + " is full")
		d.refuse = nil
		d.store.Inject(memstore.Fault{})
		if what == "trail" {
			d.refuse = wrong
		} else {
			d.store.Inject(memstore.Fault{Err: wrong})
		}
		if _, secret, err := d.keys.Create(t.Context(), owner, access.Request{Name: "third", Role: "viewer"}); !errors.Is(err, wrong) || secret != "" {
			t.Errorf("%s: %v", what, err)
		}
		if err := d.keys.Revoke(t.Context(), id); !errors.Is(err, wrong) {
			t.Errorf("%s: %v", what, err)
		}
		if len(d.keys.List()) != 2 {
			t.Errorf("%s: there are %d keys", what, len(d.keys.List()))
		}
		if _, err := d.guard.Authenticate(ask(far, "Authorization", "Bearer "+secret)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if last := d.trail[len(d.trail)-1]; last != "key.revoke failure" {
		t.Errorf("the trail ends with %q", last)
	}
}

func TestTheLastAdministratorStays(t *testing.T) {
	d := open(t, access.Options{})
	id := func(secret string) string { return strings.Split(secret, "_")[1] }
	first := id(d.key(access.Request{Name: "first", Role: "admin"}))
	d.key(access.Request{Name: "viewer", Role: "viewer"})
	d.key(access.Request{Name: "narrow", Role: "admin", Scopes: []string{"read"}})
	short := id(d.key(access.Request{Name: "short", Role: "admin", ExpiresIn: time.Hour}))
	if err := d.keys.Revoke(t.Context(), short); err != nil {
		t.Fatal(err)
	}
	if err := d.keys.Revoke(t.Context(), first); !errors.Is(err, access.ErrLastAdmin) {
		t.Errorf("the last one: %v", err)
	}
	if err := d.keys.Revoke(t.Context(), "000000000000"); !errors.Is(err, access.ErrKeyNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestKeysThatAreNotMade(t *testing.T) {
	d := open(t, access.Options{})
	if _, _, err := d.keys.Create(t.Context(), owner, access.Request{Name: "x", Role: "viewer"}); err == nil {
		t.Error("the first key locks everybody out")
	}
	d.key(access.Request{Name: "first", Role: "admin"})
	head := access.Request{Name: "x", Role: "head", Heads: []string{"gpu-*"}}
	with := func(change func(*access.Request)) access.Request {
		r := head
		change(&r)
		return r
	}
	for pointer, r := range map[string]access.Request{
		"/name":               with(func(r *access.Request) { r.Name = "" }),
		"/name ":              with(func(r *access.Request) { r.Name = "a\nb" }),
		"/role":               with(func(r *access.Request) { r.Role = "root" }),
		"/heads":              with(func(r *access.Request) { r.Heads = nil }),
		"/heads/0":            with(func(r *access.Request) { r.Heads = []string{"../x"} }),
		"/regions/0":          with(func(r *access.Request) { r.Regions = []string{""} }),
		"/scopes/0":           with(func(r *access.Request) { r.Scopes = []string{"admin"} }),
		"/scopes/1":           {Name: "x", Role: "admin", Scopes: []string{"read", "read"}},
		"/heads ":             {Name: "x", Role: "client", Heads: []string{"a"}},
		"/expires_in_seconds": with(func(r *access.Request) { r.ExpiresIn = time.Second }),
	} {
		_, secret, err := d.keys.Create(t.Context(), owner, r)
		invalid, ok := errors.AsType[*strict.InvalidError](err)
		if !ok || secret != "" || invalid.Faults[0].Pointer != strings.TrimSpace(pointer) {
			t.Errorf("%+v: %v; want a fault at %s", r, err, pointer)
		}
	}
}

// No caller makes a key with a permission that it lacks itself.
func TestKeysOnlyNarrow(t *testing.T) {
	d := open(t, access.Options{})
	d.key(access.Request{Name: "first", Role: "admin"})
	roles := rapid.SampledFrom(access.Roles())
	scopes := rapid.SliceOfNDistinct(rapid.SampledFrom(access.Permissions()), 0, 3, rapid.ID[access.Permission])
	patterns := rapid.SliceOfN(rapid.SampledFrom([]string{"*", "gpu-*", "gpu-1", "gpu-1*", "cpu", "*-1", "g*1"}), 0, 3)
	ids := []string{"gpu-1", "gpu-12", "gpu-x-1", "cpu", "x-1", ""}
	rapid.Check(t, func(t *rapid.T) {
		by := &access.Principal{Type: "key", Role: roles.Draw(t, "role"), Scopes: scopes.Draw(t, "scopes")}
		if by.Role == access.RoleHead {
			by.Heads, by.Regions = patterns.Draw(t, "heads"), patterns.Draw(t, "regions")
		}
		if rapid.Bool().Draw(t, "ends") {
			by.Expires = d.now.Add(time.Hour)
		}
		r := access.Request{Name: "x", Role: string(roles.Draw(t, "its role")), Heads: patterns.Draw(t, "its heads"), Regions: patterns.Draw(t, "its regions")}
		for _, s := range scopes.Draw(t, "its scopes") {
			r.Scopes = append(r.Scopes, string(s))
		}
		r.ExpiresIn = rapid.SampledFrom([]time.Duration{0, time.Minute, 2 * time.Hour}).Draw(t, "lasts")
		key, secret, err := d.keys.Create(context.Background(), by, r)
		if err != nil {
			return
		}
		made, err := d.keys.Look(secret)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range access.Permissions() {
			if made.May(p) && !by.May(p) {
				t.Fatalf("%+v made %+v, which may %s", by, key, p)
			}
		}
		for _, id := range ids {
			if made.Role == access.RoleHead && by.Role == access.RoleHead && (made.RequireHead(id) == nil && by.RequireHead(id) != nil || made.RequireRegion(id) == nil && by.RequireRegion(id) != nil) {
				t.Fatalf("%+v made %+v, which may be %q", by, key, id)
			}
		}
		if !by.Expires.IsZero() && (made.Expires.IsZero() || made.Expires.After(by.Expires)) {
			t.Fatalf("%+v made %+v, which outlives it", by, key)
		}
		if err := d.keys.Revoke(context.Background(), key.ID); err != nil && !errors.Is(err, access.ErrLastAdmin) {
			t.Fatal(err)
		}
	})
}

// The credential of the service's own user counts by loopback only, and is
// another one at each start.
func TestTheLocalCredential(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	d := open(t, access.Options{LocalToken: file})
	d.key(access.Request{Name: "first", Role: "admin"})
	read := func() string {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(raw))
	}
	token := read()
	if p, err := d.guard.Authenticate(ask(near, "Authorization", "Bearer "+token)); err != nil || p.Type != "local" || p.Role != access.RoleAdmin {
		t.Errorf("by loopback: %+v, %v", p, err)
	}
	for from, credential := range map[string]string{far: token, near: token + "A", "127.0.0.1:1": token[:len(token)-1]} {
		if _, err := d.guard.Authenticate(ask(from, "Authorization", "Bearer "+credential)); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("from %s: %v", from, err)
		}
	}
	d.load(access.Options{LocalToken: file}, 0)
	if _, err := d.guard.Authenticate(ask(near, "Authorization", "Bearer "+token)); !errors.Is(err, access.ErrUnknown) || read() == token {
		t.Errorf("the credential of before: %v", err)
	}
}

// A proxy counts only where it is trusted, and only as far as it was
// there to see.
func TestWhoAsksBehindProxies(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, c := range []struct {
		name, from, forwarded, want string
		behind                      bool
	}{
		{"no proxy", "10.0.0.1:4", "192.0.2.1", "10.0.0.1", false},
		{"one", "10.0.0.1:4", "192.0.2.1", "192.0.2.1", true},
		{"not trusted", "192.0.2.9:4", "192.0.2.1", "192.0.2.9", true},
		{"the caller lies", "10.0.0.1:4", "127.0.0.1, 192.0.2.1", "192.0.2.1", true},
		{"two of ours", "10.0.0.1:4", "203.0.113.5, 192.0.2.1, 10.0.0.2", "192.0.2.1", true},
		{"with a port", "10.0.0.1:4", "[2001:db8::1]:443", "2001:db8::1", true},
		{"nonsense", "10.0.0.1:4", "x, unknown", "10.0.0.1", true},
		{"nothing", "10.0.0.1:4", "", "10.0.0.1", true},
		{"mapped", "[::ffff:10.0.0.1]:4", "192.0.2.1", "192.0.2.1", true},
	} {
		d := open(t, access.Options{BehindProxy: c.behind, TrustedProxies: trusted})
		r := ask(c.from)
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := d.guard.Address(r); got.String() != c.want {
			t.Errorf("%s: %s; want %s", c.name, got, c.want)
		}
	}
	// A header that names this machine does not count, behind a proxy or not.
	d := open(t, access.Options{BehindProxy: true, TrustedProxies: trusted})
	if _, err := d.guard.Authenticate(ask("10.0.0.1:4", "X-Forwarded-For", "127.0.0.1")); !errors.Is(err, access.ErrNoCredential) {
		t.Errorf("a caller that calls itself 127.0.0.1: %v", err)
	}
}

func TestLimits(t *testing.T) {
	retry := func(err error) time.Duration {
		limited, ok := errors.AsType[*access.LimitedError](err)
		if !ok {
			return 0
		}
		return limited.RetryAfter
	}
	t.Run("of an address", func(t *testing.T) {
		d := open(t, access.Options{PerAddress: 2})
		allowed := 0
		for range 100 {
			if _, err := d.guard.Authenticate(ask(near)); err == nil {
				allowed++
			} else if wait := retry(err); wait <= 0 || wait > 500*time.Millisecond {
				t.Fatalf("%v, ask again in %s", err, wait)
			}
		}
		if allowed != 10 {
			t.Errorf("%d at once; want five seconds' worth, 10", allowed)
		}
		if _, err := d.guard.Authenticate(ask("127.0.0.2:1")); err != nil {
			t.Errorf("another address: %v", err)
		}
		d.now = d.now.Add(time.Second)
		if _, err := d.guard.Authenticate(ask(near)); err != nil {
			t.Errorf("a second later: %v", err)
		}
	})
	t.Run("of a key", func(t *testing.T) {
		d := open(t, access.Options{})
		d.load(access.Options{}, 1)
		secret := d.key(access.Request{Name: "first", Role: "admin"})
		allowed := 0
		for i := range 100 { // from many addresses
			if _, err := d.guard.Authenticate(ask(fmt.Sprintf("192.0.2.%d:1", i), "Authorization", "Bearer "+secret)); err == nil {
				allowed++
			} else if retry(err) <= 0 {
				t.Fatal(err)
			}
		}
		if allowed != 5 {
			t.Errorf("%d at once; want 5", allowed)
		}
	})
	t.Run("of guesses", func(t *testing.T) {
		d := open(t, access.Options{Failures: 1})
		secret := d.key(access.Request{Name: "first", Role: "admin"})
		guesses := 0
		for range 100 {
			if _, err := d.guard.Authenticate(ask(far, "Authorization", "Bearer hw_000000000000_guess")); errors.Is(err, access.ErrUnknown) {
				guesses++
			}
		}
		if guesses != 5 {
			t.Errorf("%d guesses; want 5", guesses)
		}
		if _, err := d.guard.Authenticate(ask(far, "Authorization", "Bearer "+secret)); err != nil {
			t.Errorf("a good key of the address that guesses: %v", err)
		}
		if _, err := d.guard.Authenticate(ask("192.0.2.8:1", "Authorization", "Bearer "+secret)); err != nil {
			t.Errorf("from elsewhere: %v", err)
		}
		counted := d.labelled()
		if len(counted) != 18 || counted["unknown"] != 5 || counted["failures"] != 95 {
			t.Errorf("counted are %v; want each reason, limit and cache from the start, 5 guesses and 95 beyond the limit", counted)
		}
	})
	t.Run("of a hundred thousand addresses", func(t *testing.T) {
		d := open(t, access.Options{PerAddress: 1, Failures: 1})
		for i := range 100_000 {
			_, _ = d.guard.Authenticate(ask(fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>16, i&0xffff), "Authorization", "Bearer x"))
		}
		if n := d.guard.RememberedAddresses(); n > 2*10_000 {
			t.Errorf("%d addresses are remembered", n)
		}
	})
}

func TestHoldersOfCertificates(t *testing.T) {
	for text, want := range map[string]access.Holder{
		"ops-*=operator":                     {Name: "ops-*", Role: access.RoleOperator},
		"spiffe://x/a=b=viewer":              {Name: "spiffe://x/a=b", Role: access.RoleViewer},
		"gpu.internal=head:gpu-1|gpu-2:eu-*": {Name: "gpu.internal", Role: access.RoleHead, Heads: []string{"gpu-1", "gpu-2"}, Regions: []string{"eu-*"}},
		"spiffe://fleet/head/*=head:gpu-*":   {Name: "spiffe://fleet/head/*", Role: access.RoleHead, Heads: []string{"gpu-*"}},
	} {
		got, err := access.ParseHolder(text)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "=admin", "x=root", "x=admin:gpu", "x=head", "x=head:", "x=head:a/b", "x=head:a:"} {
		if h, err := access.ParseHolder(text); err == nil && text != "x=head:a:" {
			t.Errorf("%q is taken for %+v", text, h)
		}
	}
}

// No text in a header is a credential unless it is one.
func FuzzCredential(f *testing.F) {
	d := open(f, access.Options{})
	secret := d.key(access.Request{Name: "first", Role: "admin"})
	for _, s := range []string{"", "Bearer", "Bearer ", "Bearer " + secret, "bearer " + secret, "Basic x", "Bearer hw__", "Bearer hw_a_b_c", "Bearer a.b.c", "Bearer \x00"} {
		f.Add(s, "")
	}
	for _, query := range []string{"token=" + secret, "a=%zz&x=" + secret, "%68w" + secret[2:]} {
		f.Add("", query)
	}
	f.Fuzz(func(t *testing.T, header, query string) {
		r := ask(far, "Authorization", header)
		r.URL.RawQuery, r.RequestURI = query, "/api/v1/heads?"+query
		p, err := d.guard.Authenticate(r)
		scheme, token, _ := strings.Cut(header, " ")
		good := strings.EqualFold(scheme, "Bearer") && token == secret
		if err == nil && !good || p != nil && err != nil {
			t.Fatalf("%q, %q: %+v, %v", header, query, p, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Fatalf("the error tells the key: %v", err)
		}
		plain, bad := url.QueryUnescape(query)
		if err := d.guard.CheckURL(r); err == nil && (strings.Contains(query, secret) || bad == nil && strings.Contains(plain, secret)) {
			t.Fatalf("%q: the key is not found in it", query)
		}
	})
}

// BenchmarkCheckURL is what the search for keys costs a request.
func BenchmarkCheckURL(b *testing.B) {
	d := open(b, access.Options{})
	for _, target := range []string{"/api/v1/heads/gpu-0001/status", "/api/v1/heads?region=eu%2Dwest&limit=100"} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		b.Run(target, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := d.guard.CheckURL(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAuthenticate is what a key costs a request.
func BenchmarkAuthenticate(b *testing.B) {
	for _, limits := range []float64{0, 1e9} {
		d := open(b, access.Options{PerAddress: limits, Failures: 10})
		d.load(access.Options{PerAddress: limits, Failures: 10}, limits)
		secret := d.key(access.Request{Name: "first", Role: "admin"})
		r := ask(far, "Authorization", "Bearer "+secret)
		b.Run(fmt.Sprintf("limits=%v", limits > 0), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.guard.Authenticate(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

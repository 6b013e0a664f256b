package access_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/internal/access"
)

// issued is a door that trusts an issuer whose roles are ours.
type issued struct {
	*door
	issuer *issuer
}

// plainClient asks an issuer and keeps no connection.
func plainClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

func newIssued(t testing.TB, o access.Options) *issued {
	i := &issued{issuer: newIssuer(t)}
	issuer, err := access.NewOIDC(access.OIDCOptions{
		Issuer: i.issuer.url, Audience: "headway", RolesClaim: "roles", HeadsClaim: "heads", RegionsClaim: "regions",
		Client: plainClient(), Now: func() time.Time { return i.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	o.OIDC = issuer
	i.door = open(t, o)
	return i
}

// token is one of the issuer's, with a header and claims beside the usual ones.
func (i *issued) token(header, claims map[string]any) string {
	c := map[string]any{"iss": i.issuer.url, "aud": "headway", "sub": "ana", "exp": i.now.Add(24 * time.Hour).Unix(), "roles": "viewer"}
	maps.Copy(c, claims)
	return i.issuer.sign(header, c)
}

func (i *issued) try(token string) (*access.Principal, error) {
	return i.guard.Authenticate(ask(near, "Authorization", "Bearer "+token))
}

// An issuer that makes new keys and goes away cannot be asked for them. That is
// no failure of the callers: the error says so, and no one is locked out.
func TestAnIssuerThatRotatesItsKeysAndIsAway(t *testing.T) {
	i := newIssued(t, access.Options{Failures: 1})
	key := i.key(access.Request{Name: "first", Role: "admin"})
	before := i.token(nil, nil)
	if _, err := i.try(before); err != nil {
		t.Fatal(err)
	}
	i.issuer.rotate("2")
	i.issuer.away.Store(true)
	for n := range 100 {
		i.now = i.now.Add(time.Second)
		if _, err := i.try(i.token(nil, map[string]any{"jti": n})); !errors.Is(err, access.ErrIssuerAway) {
			t.Fatalf("token %d with the new key: %v", n, err)
		}
	}
	if asked := i.issuer.asked.Load(); asked > 2+2*100/5 {
		t.Errorf("the issuer was asked %d times in 100 s", asked)
	}
	if _, err := i.try(key); err != nil {
		t.Errorf("a key of the same address: %v", err)
	}
	asked := i.issuer.asked.Load()
	if _, err := i.try(i.token(map[string]any{"kid": "1"}, nil)); !errors.Is(err, access.ErrUntrusted) {
		t.Errorf("a token that the known key has not signed: %v", err)
	}
	if n := i.issuer.asked.Load(); n != asked {
		t.Errorf("a bad signature of a known key made %d requests", n-asked)
	}
	i.now = i.now.Add(time.Hour)
	i.issuer.rotate("1") // another of the same name
	i.issuer.away.Store(false)
	if _, err := i.try(i.token(nil, nil)); err != nil {
		t.Errorf("when the issuer is back: %v", err)
	}
	if _, err := i.try(before); !errors.Is(err, access.ErrUntrusted) {
		t.Errorf("with a key that the issuer took away: %v", err)
	}
}

// While the issuer is away its last keys are good.
func TestKnownKeysOutlastTheirIssuer(t *testing.T) {
	i := newIssued(t, access.Options{Failures: 1})
	if _, err := i.try(i.token(nil, nil)); err != nil {
		t.Fatal(err)
	}
	i.issuer.away.Store(true)
	for n := range 10 {
		i.now = i.now.Add(time.Hour)
		if _, err := i.try(i.token(nil, map[string]any{"jti": n})); err != nil {
			t.Errorf("%d hours later: %v", n+1, err)
		}
	}
	if asked := i.issuer.asked.Load(); asked < 3 {
		t.Errorf("the issuer was asked %d times; want it asked again now and then", asked)
	}
}

// A key that the issuer took away is accepted for a while, and then no more.
func TestAKeyThatTheIssuerTookAwayEnds(t *testing.T) {
	i := newIssued(t, access.Options{Failures: 1e6})
	if _, err := i.try(i.token(nil, nil)); err != nil {
		t.Fatal(err)
	}
	stolen := i.token(nil, map[string]any{"jti": 1})
	i.issuer.rotate("2")
	i.now = i.now.Add(16 * time.Minute)
	if _, err := i.try(stolen); !errors.Is(err, access.ErrUntrusted) {
		t.Errorf("16 minutes later: %v", err)
	}
}

// Tokens that name invented keys make no request each, and those beyond the rate
// cost their sender nothing, since they may be of a new key.
func TestUnknownKeysDoNotFloodTheIssuer(t *testing.T) {
	i := newIssued(t, access.Options{Failures: 1e6})
	if _, err := i.try(i.token(nil, nil)); err != nil {
		t.Fatal(err)
	}
	untrusted := 0
	for n := range 1000 {
		i.now = i.now.Add(10 * time.Millisecond)
		_, err := i.try(i.token(map[string]any{"kid": fmt.Sprint("x", n)}, nil))
		if errors.Is(err, access.ErrUntrusted) {
			untrusted++
		} else if !errors.Is(err, access.ErrKeyUnknown) {
			t.Fatalf("%d: %v", n, err)
		}
	}
	asked := i.issuer.asked.Load()
	if asked > 2+5+1 {
		t.Errorf("a thousand unknown keys in 10 s made %d requests", asked)
	}
	if untrusted != int(asked)-2 {
		t.Errorf("%d of a thousand are not trusted after %d requests; want those for which the issuer was asked", untrusted, asked)
	}
	i.issuer.rotate("2")
	i.now = i.now.Add(10 * time.Second)
	if _, err := i.try(i.token(nil, nil)); err != nil {
		t.Errorf("a new key 10 s later: %v", err)
	}
}

// Tokens with invented keys do not make the tokens of a new key failures of
// those who send them: until the issuer may be asked again they cannot be
// checked, at any door. They take from an allowance of their own, and all that is
// known passes when that is used up.
func TestInventedKeysDoNotMakeNewOnesFailures(t *testing.T) {
	for name, way := range map[string]func(*issued, string) error{
		"a header": func(i *issued, token string) error { _, err := i.try(token); return err },
		"a message": func(i *issued, token string) error {
			_, err := i.guard.AuthenticateToken(t.Context(), token, netip.MustParseAddrPort(far).Addr())
			return err
		},
		"a connection": func(i *issued, token string) error {
			_, err := i.guard.AuthenticateConnection(t.Context(), token, nil, netip.MustParseAddrPort(far).Addr())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssued(t, access.Options{Failures: 1})
			if _, err := i.try(i.token(nil, nil)); err != nil {
				t.Fatal(err)
			}
			key := i.key(access.Request{Name: "first", Role: "admin"})
			known := i.token(nil, map[string]any{"jti": "known"})
			eve := newIssuer(t)
			for n := range 50 {
				forged := eve.sign(map[string]any{"kid": fmt.Sprint("x", n)}, map[string]any{"iss": i.issuer.url, "aud": "headway", "sub": "eve", "exp": i.now.Add(time.Hour).Unix(), "roles": "admin"})
				if _, err := i.guard.Authenticate(ask("192.0.2.66:1", "Authorization", "Bearer "+forged)); err == nil {
					t.Fatal("an invented key is good")
				}
			}
			asked := i.issuer.asked.Load()
			i.issuer.rotate("2")
			for n := range 100 {
				err := way(i, i.token(nil, map[string]any{"jti": n}))
				unchecked, is := errors.AsType[*access.UncheckedError](err)
				if n < 5 && is && unchecked.Why == access.ErrKeyUnknown && unchecked.RetryAfter > 0 && unchecked.RetryAfter <= 10*time.Second { //nolint:errorlint // it is one of two
					continue
				}
				limited, is := errors.AsType[*access.LimitedError](err)
				if n < 5 || !is || limited.Limit != "unknown_keys" || limited.RetryAfter <= 0 || limited.RetryAfter > 10*time.Second {
					t.Fatalf("token %d of the new key: %v", n, err)
				}
			}
			if err := way(i, key); err != nil {
				t.Errorf("a key: %v", err)
			}
			if n := i.issuer.asked.Load(); n != asked {
				t.Errorf("%d requests beyond the rate", n-asked)
			}
			if err := way(i, known); err != nil {
				t.Errorf("a token of the known key: %v", err)
			}
			i.now = i.now.Add(10 * time.Second)
			if err := way(i, i.token(nil, nil)); err != nil {
				t.Errorf("10 s later: %v", err)
			}
			// The allowance is whole: five at once are refused as what they are.
			wrong := func() error {
				return way(i, eve.sign(map[string]any{"kid": "2"}, map[string]any{"iss": i.issuer.url, "aud": "headway", "sub": "eve", "exp": i.now.Add(time.Hour).Unix(), "roles": "admin"}))
			}
			for n := range 5 {
				if err := wrong(); !errors.Is(err, access.ErrUntrusted) {
					t.Errorf("failure %d: %v", n, err)
				}
			}
			if _, is := errors.AsType[*access.LimitedError](wrong()); !is {
				t.Error("guesses at a known key have no bound")
			}
		})
	}
}

// A token that names no key may be of a new one, but it has us compute a
// signature: where the issuer may not be asked the answer is to come again, and
// takes from its address's allowance.
func TestTokensThatNameNoKey(t *testing.T) {
	i := newIssued(t, access.Options{Failures: 1})
	none := map[string]any{"kid": ""}
	if _, err := i.try(i.token(none, nil)); err != nil {
		t.Fatalf("of the only key: %v", err)
	}
	for n := range 20 {
		_, _ = i.guard.Authenticate(ask("192.0.2.66:1", "Authorization", "Bearer "+i.token(map[string]any{"kid": fmt.Sprint("x", n)}, nil)))
	}
	i.issuer.rotate("2")
	for n := range 5 {
		if _, err := i.try(i.token(none, map[string]any{"jti": n})); !errors.Is(err, access.ErrKeyUnknown) {
			t.Fatalf("of a new key, %d: %v", n, err)
		}
	}
	if _, is := errors.AsType[*access.LimitedError](func() error { _, err := i.try(i.token(none, map[string]any{"jti": 5})); return err }()); !is {
		t.Error("signatures are computed without a bound")
	}
	i.now = i.now.Add(10 * time.Second)
	if _, err := i.try(i.token(none, nil)); err != nil {
		t.Errorf("10 s later: %v", err)
	}
}

// All who need the keys wait for one fetch, except those whose caller leaves.
func TestOneFetchServesAll(t *testing.T) {
	i := newIssued(t, access.Options{Failures: 1e6})
	asked, answer := make(chan struct{}, 100), make(chan struct{})
	i.issuer.hold = func() { asked <- struct{}{}; <-answer }
	var all sync.WaitGroup
	for n := range 20 {
		token := i.token(nil, map[string]any{"jti": n})
		all.Go(func() {
			if _, err := i.try(token); err != nil {
				t.Errorf("token %d: %v", n, err)
			}
		})
	}
	<-asked
	left, leave := context.WithCancel(t.Context())
	leave()
	_, err := i.guard.Authenticate(ask(near, "Authorization", "Bearer "+i.token(nil, map[string]any{"jti": "left"})).WithContext(left))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left: %v", err)
	}
	close(answer)
	all.Wait()
	if n := i.issuer.asked.Load(); n != 2 {
		t.Errorf("the issuer was asked %d times; want once for where the keys are and once for them", n)
	}
}

// A fetch that was under way when a token came may be of before the issuer made
// the token's key, so that it says nothing of it.
func TestAFetchOfAnotherProvesNothing(t *testing.T) {
	i := newIssued(t, access.Options{Failures: 100})
	if _, err := i.try(i.token(nil, nil)); err != nil {
		t.Fatal(err)
	}
	invented := func(n int) error {
		_, err := i.try(i.token(map[string]any{"kid": fmt.Sprint("x", n)}, nil))
		return err
	}
	for n := range 3 { // of five at once
		if err := invented(n); !errors.Is(err, access.ErrUntrusted) {
			t.Fatal(err)
		}
	}
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	i.issuer.hold = func() { asked <- struct{}{}; <-answer }
	const others = 20
	errs := make(chan error, 1+others)
	go func() { errs <- invented(3) }()
	<-asked
	for n := range others {
		go func() { errs <- invented(4 + n) }()
	}
	stacks := make([]byte, 1<<20)
	for strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "issuerKeys).refresh(") < 1+others {
		runtime.Gosched()
	}
	close(answer)
	untrusted := 0
	for range 1 + others {
		if err := <-errs; errors.Is(err, access.ErrUntrusted) {
			untrusted++
		} else if !errors.Is(err, access.ErrKeyUnknown) {
			t.Error(err)
		}
	}
	if untrusted != 1 {
		t.Errorf("%d tokens are not trusted after one fetch; want the one that it was made for", untrusted)
	}
}

// What the issuer answers counts only as far as it is its own.
func TestAnswersThatAreNotTheIssuers(t *testing.T) {
	for name, answers := range map[string]map[string]string{
		"another's name":          {"/.well-known/openid-configuration": `{"issuer":"https://evil.example","jwks_uri":"URL/keys"}`},
		"keys in a file":          {"/.well-known/openid-configuration": `{"issuer":"URL","jwks_uri":"file:///etc/passwd"}`},
		"no keys named":           {"/.well-known/openid-configuration": `{"issuer":"URL"}`},
		"a page":                  {"/.well-known/openid-configuration": `<html>log in</html>`},
		"a set without keys":      {"/keys": `{"keys":[]}`},
		"only keys for others":    {"/keys": `{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"x"},7]}`},
		"too many keys":           {"/keys": `{"keys":[` + strings.Repeat(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},`, 200) + `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`},
		"keys that are too large": {"/keys": `{"keys":[{"kty":"RSA","e":"AQAB","n":"` + strings.Repeat("_", 3_000) + `"},{"kty":"RSA","e":"` + strings.Repeat("_", 1000) + `","n":"` + strings.Repeat("_", 342) + `"}]}`},
		"deep JSON":               {"/keys": `{"keys":` + strings.Repeat("[", 500_000)},
		"an answer without end":   {"/keys": `{"keys":[` + strings.Repeat(" ", 2<<20) + `]}`},
	} {
		i := newIssued(t, access.Options{Failures: 1})
		i.issuer.instead = answers
		if _, err := i.try(i.token(nil, nil)); !errors.Is(err, access.ErrIssuerAway) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A subject is who acts, in the trail and elsewhere: there must be one, and it
// must be what it looks like.
func TestATokenNamesItsBearer(t *testing.T) {
	i := newIssued(t, access.Options{Failures: 1e6})
	for _, sub := range []any{nil, "", 7, strings.Repeat("x", 256), "a\nb", "a\x1b[31m", "a\u202eb", []string{"ana"}} {
		if p, err := i.try(i.token(nil, map[string]any{"sub": sub})); !errors.Is(err, access.ErrUntrusted) {
			t.Errorf("sub %q: %+v, %v", sub, p, err)
		}
	}
	for _, sub := range []string{"ana", "auth0|5f7", "local", "büro@example.com", strings.Repeat("x", 255)} {
		p, err := i.try(i.token(nil, map[string]any{"sub": sub}))
		if err != nil || p.ID != sub || p.Type != "jwt" || p.Role != access.RoleViewer {
			t.Errorf("sub %q: %+v, %v", sub, p, err)
		}
	}
}

// A token that was good is remembered for no longer than it lasts, and not more
// of them than there is room for.
func TestRememberedTokens(t *testing.T) {
	i := newIssued(t, access.Options{Failures: 1e6})
	short := i.token(nil, map[string]any{"exp": i.now.Add(10 * time.Second).Unix()})
	for range 2 {
		if _, err := i.try(short); err != nil {
			t.Fatal(err)
		}
	}
	i.now = i.now.Add(10 * time.Second)
	if _, err := i.try(short); !errors.Is(err, access.ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
	p := &access.Principal{Expires: i.now.Add(time.Hour)}
	for n := range 25_000 {
		i.guard.Remember(fmt.Sprint(n), p, i.now)
	}
	if n := i.guard.RememberedTokens(); n > 10_000 {
		t.Errorf("%d tokens are remembered", n)
	}
}

// Wrong tokens of one address end the checks of tokens from there, and nothing
// else; wrong keys do not end them.
func TestFailuresOfTokensAndOfKeysAreCountedApart(t *testing.T) {
	i := newIssued(t, access.Options{Failures: 1})
	key := i.key(access.Request{Name: "first", Role: "admin"})
	good := i.token(nil, nil)
	for range 100 {
		_, _ = i.try("hw_000000000000_guess")
	}
	if _, err := i.try(good); err != nil {
		t.Fatalf("after wrong keys: %v", err)
	}
	forged := newIssuer(t).sign(map[string]any{"kid": "1"}, map[string]any{"sub": "eve"})
	limited := 0
	for range 100 {
		if _, err := i.try(forged); !errors.Is(err, access.ErrUntrusted) {
			if _, is := errors.AsType[*access.LimitedError](err); !is {
				t.Fatal(err)
			}
			limited++
		}
	}
	if limited != 95 {
		t.Errorf("%d of 100 wrong tokens were beyond the limit; want 95", limited)
	}
	for name, token := range map[string]string{"a key": key, "a token that was good lately": good} {
		if _, err := i.try(token); err != nil {
			t.Errorf("after wrong tokens, %s: %v", name, err)
		}
	}
	fresh := i.token(nil, map[string]any{"jti": 2})
	if _, err := i.try(fresh); err == nil {
		t.Error("after wrong tokens another is checked")
	}
	i.now = i.now.Add(time.Second)
	if _, err := i.try(fresh); err != nil {
		t.Errorf("a second later: %v", err)
	}
}

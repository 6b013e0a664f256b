package access_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headway/internal/access"
)

// issuer is an OpenID Connect issuer with one key at a time.
type issuer struct {
	testing.TB
	url   string
	away  atomic.Bool
	asked atomic.Int64
	hold  func() // called before each answer, if set

	instead map[string]string // answers by path; URL stands for the issuer's

	mu  sync.Mutex
	key *rsa.PrivateKey
	kid string
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{TB: t}
	i.rotate("1")
	mux := http.NewServeMux()
	answer := func(path string, v func() any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			i.asked.Add(1)
			if i.hold != nil {
				i.hold()
			}
			if i.away.Load() {
				http.Error(w, "away", http.StatusBadGateway)
				return
			}
			if text, ok := i.instead[path]; ok {
				_, _ = io.WriteString(w, strings.ReplaceAll(text, "URL", i.url))
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v())
		})
	}
	answer("/.well-known/openid-configuration", func() any {
		return map[string]any{"issuer": i.url, "jwks_uri": i.url + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"}}
	})
	answer("/keys", func() any {
		i.mu.Lock()
		defer i.mu.Unlock()
		return map[string]any{"keys": []any{
			map[string]any{"kty": "oct", "kid": "odd", "k": b64([]byte("secret"))}, // for others
			map[string]any{"kty": "from the future"},
			map[string]any{"kty": "RSA", "kid": i.kid, "use": "sig", "alg": "RS256", "n": b64(i.key.N.Bytes()), "e": b64(big.NewInt(int64(i.key.E)).Bytes())},
		}}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

// rotate has the issuer sign with a new key.
func (i *issuer) rotate(kid string) {
	i.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		i.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key, i.kid = key, kid
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func encoded(v any) string {
	b, _ := json.Marshal(v)
	return b64(b)
}

// sign makes a token, by default one that is good.
func (i *issuer) sign(header, claims map[string]any) string {
	h := map[string]any{"alg": "RS256", "kid": i.kid, "typ": "JWT"}
	maps.Copy(h, header)
	text := encoded(h) + "." + encoded(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		i.Fatal(err)
	}
	return text + "." + b64(signature)
}

func TestTokensOfAnIssuer(t *testing.T) {
	i := newIssuer(t)
	var d *door
	issued, err := access.NewOIDC(access.OIDCOptions{
		Issuer: i.url, Audience: "headway", RolesClaim: "groups", HeadsClaim: "heads", RegionsClaim: "regions",
		Roles:  map[string]access.Role{"ml-ops": access.RoleOperator, "ml-read": access.RoleViewer, "gpu": access.RoleHead},
		Client: plainClient(), Now: func() time.Time { return d.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	d = open(t, access.Options{OIDC: issued, Failures: 1e6})
	good := func(change map[string]any) map[string]any {
		c := map[string]any{"iss": i.url, "aud": "headway", "sub": "ana", "exp": d.now.Add(time.Hour).Unix(), "iat": d.now.Unix(), "groups": []string{"x", "ml-ops", "ml-read"}}
		maps.Copy(c, change)
		return c
	}
	try := func(token string) (*access.Principal, error) {
		return d.guard.Authenticate(ask(far, "Authorization", "Bearer "+token))
	}
	i.away.Store(true)
	if _, err := try(i.sign(nil, good(nil))); !errors.Is(err, access.ErrIssuerAway) {
		t.Errorf("while the issuer is away: %v", err)
	}
	i.away.Store(false)
	asked := i.asked.Load()
	if _, err := try(i.sign(nil, good(nil))); !errors.Is(err, access.ErrIssuerAway) || i.asked.Load() != asked {
		t.Errorf("at once again: %v; the issuer must not be flooded", err)
	}
	d.now = d.now.Add(10 * time.Second)

	p, err := try(i.sign(nil, good(nil)))
	if err != nil || p.Type != "jwt" || p.ID != "ana" || p.Role != access.RoleOperator {
		t.Fatalf("a good token: %+v, %v", p, err)
	}
	p, err = try(i.sign(nil, good(map[string]any{"groups": "gpu", "heads": []string{"gpu-*"}, "regions": "eu-west"})))
	if err != nil || p.RequireHead("gpu-1") != nil || p.RequireHead("cpu") == nil || p.RequireRegion("eu-west") != nil || p.RequireRegion("us") == nil {
		t.Fatalf("a head's token: %+v, %v", p, err)
	}

	token := i.sign(nil, good(nil))
	parts := strings.Split(token, ".")
	mac := hmac.New(sha256.New, i.key.N.Bytes())
	symmetric := encoded(map[string]any{"alg": "HS256", "kid": "1"}) + "." + parts[1]
	mac.Write([]byte(symmetric))
	other := newIssuer(t)
	for name, attack := range map[string]struct {
		token string
		want  error
	}{
		"no signature":            {encoded(map[string]any{"alg": "none"}) + "." + parts[1] + ".", access.ErrUntrusted},
		"signature taken off":     {parts[0] + "." + parts[1] + ".", access.ErrUntrusted},
		"public key as a secret":  {symmetric + "." + b64(mac.Sum(nil)), access.ErrUntrusted},
		"another's key":           {other.sign(nil, good(nil)), access.ErrUntrusted},
		"a key of its own":        {other.sign(map[string]any{"jwk": map[string]any{"kty": "RSA", "n": b64(other.key.N.Bytes()), "e": "AQAB"}}, good(nil)), access.ErrUntrusted},
		"a key from elsewhere":    {other.sign(map[string]any{"jku": other.url + "/keys"}, good(nil)), access.ErrUntrusted},
		"an unknown key":          {i.sign(map[string]any{"kid": "2"}, good(nil))[:20], access.ErrUnknown},
		"another algorithm named": {i.sign(map[string]any{"alg": "PS256"}, good(nil)), access.ErrUntrusted},
		"claims exchanged":        {parts[0] + "." + encoded(good(map[string]any{"groups": "admin"})) + "." + parts[2], access.ErrUntrusted},
		"another issuer":          {i.sign(nil, good(map[string]any{"iss": "https://evil.example"})), access.ErrUntrusted},
		"another audience":        {i.sign(nil, good(map[string]any{"aud": "other"})), access.ErrUntrusted},
		"no audience":             {i.sign(nil, good(map[string]any{"aud": nil})), access.ErrUntrusted},
		"expired":                 {i.sign(nil, good(map[string]any{"exp": d.now.Add(-time.Hour).Unix()})), access.ErrExpired},
		"no end":                  {i.sign(nil, good(map[string]any{"exp": nil})), access.ErrUntrusted},
		"not yet":                 {i.sign(nil, good(map[string]any{"nbf": d.now.Add(time.Hour).Unix()})), access.ErrUntrusted},
		"no role of ours":         {i.sign(nil, good(map[string]any{"groups": []string{"admin", "root"}})), access.ErrUntrusted},
		"a role in another form":  {i.sign(nil, good(map[string]any{"groups": map[string]any{"ml-ops": true}})), access.ErrUntrusted},
		"a head without ids":      {i.sign(nil, good(map[string]any{"groups": "gpu"})), access.ErrUntrusted},
		"no JSON":                 {"e30.e30.e30", access.ErrUntrusted},
		"five parts":              {token + ".a.b", access.ErrUnknown},
	} {
		if p, err := try(attack.token); !errors.Is(err, attack.want) {
			t.Errorf("%s: %+v, %v; want %v", name, p, err, attack.want)
		}
	}

	// A token that was good stays so without asking again, until it ends.
	i.away.Store(true)
	asked = i.asked.Load()
	for range 100 {
		if _, err := try(token); err != nil {
			t.Fatal(err)
		}
	}
	if i.asked.Load() != asked {
		t.Errorf("the issuer was asked %d times", i.asked.Load()-asked)
	}
	d.now = d.now.Add(2 * time.Hour)
	if _, err := try(token); !errors.Is(err, access.ErrExpired) {
		t.Errorf("two hours later: %v", err)
	}
}

// An issuer is no address that hands out credentials, in any form.
func TestIssuersThatAreRefused(t *testing.T) {
	for _, host := range []string{"169.254.169.254", "[::a9fe:a9fe]", "[::ffff:169.254.169.254]", "[fe80::1]", "2852039166", "metadata.google.internal", "[fe80::1%25eth0]"} {
		_, err := access.NewOIDC(access.OIDCOptions{Issuer: "https://" + host + "/realm", Audience: "headway", RolesClaim: "roles", Client: plainClient(), Now: time.Now})
		if err == nil || !strings.HasPrefix(err.Error(), "access.oidc.issuer ") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

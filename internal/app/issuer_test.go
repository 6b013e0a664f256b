package app_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"headway/api"
)

// signer is an issuer with one key at a time, and the name of it.
type signer struct {
	url string
	key atomic.Pointer[ed25519.PrivateKey]
	kid atomic.Pointer[string]
}

func newSigner(t *testing.T) *signer {
	s := &signer{}
	s.rotate(t, "1")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, s.url, s.url+"/keys")
			return
		}
		x := base64.RawURLEncoding.EncodeToString((*s.key.Load()).Public().(ed25519.PublicKey))
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}]}`, *s.kid.Load(), x)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *signer) rotate(t *testing.T, kid string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.key.Store(&key)
	s.kid.Store(&kid)
}

// token is one of an operator; each has another id.
func (s *signer) token(id int) string {
	part := func(v map[string]any) string {
		b, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]any{"alg": "EdDSA", "kid": *s.kid.Load()}) + "." + part(map[string]any{
		"iss": s.url, "aud": "headway", "sub": "ana", "jti": id, "exp": time.Now().Add(time.Hour).Unix(), "roles": "operator",
	})
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(*s.key.Load(), []byte(text)))
}

// Tokens that name invented keys use up what the issuer may be asked. When it
// rotates its keys then, valid tokens get 503 over HTTP and NATS,
// take from an allowance of their own, and shut neither to the tokens and keys
// that are known.
func TestInventedKeysLockNoCallerOut(t *testing.T) {
	issuer, eve := newSigner(t), newSigner(t)
	c := private(t)
	c.Queue.Listen = "127.0.0.1:0"
	c.Access.FailuresPerAddress = 0.1 // five at once, and five tokens of unknown keys
	c.Access.OIDC.Issuer, c.Access.OIDC.Audience, c.Access.OIDC.RolesClaim = issuer.url, "headway", "roles"
	serve(t, c)
	said, _ := announced(t, c)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	ask := func(token string) (status, retry int, problem api.Problem) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, said.URL+"/api/v1/heads", http.NoBody)
		done(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		retry, _ = strconv.Atoi(answer.Header.Get("Retry-After"))
		if answer.StatusCode != http.StatusOK {
			done(t, json.NewDecoder(answer.Body).Decode(&problem))
		}
		return answer.StatusCode, retry, problem
	}
	connect := func(token string) error {
		nc, err := nats.Connect(said.QueueURL, nats.Token(token), nats.NoReconnect(), nats.Timeout(time.Minute))
		if err == nil {
			nc.Close()
		}
		return err
	}
	if status, _, _ := ask(issuer.token(0)); status != http.StatusOK {
		t.Fatalf("a good token: %d", status)
	}
	known := []string{issuer.token(-1), issuer.token(-2)}
	eve.url = issuer.url // its tokens name the issuer, and keys of its own
	const invented = 8
	for n := range invented {
		kid := "x" + strconv.Itoa(n)
		eve.kid.Store(&kid)
		if status, _, _ := ask(eve.token(n)); status != http.StatusUnauthorized && status != http.StatusServiceUnavailable {
			t.Fatalf("an invented key: %d", status)
		}
	}
	issuer.rotate(t, "2")
	const failures = 60
	refused, unchecked := 0, 0
	for n := range failures {
		status, retry, problem := ask(issuer.token(n))
		switch {
		case status == http.StatusServiceUnavailable && retry >= 1 && retry <= 10 && strings.Contains(problem.Detail, "is not known so far") &&
			strings.Contains(problem.Detail, fmt.Sprintf("again in %d s", retry)):
			refused++
			unchecked++
		case status == http.StatusTooManyRequests && retry >= 1 && retry <= 100 && strings.Contains(problem.Detail, "key is not known"):
			refused++
		case status != http.StatusOK: // the next fetch is 10 s after the burst
			t.Fatalf("token %d of the new key: %d, Retry-After %d", n, status, retry)
		}
		if err := connect(issuer.token(-100 - n)); err != nil && !strings.Contains(err.Error(), "uthorization") {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Log("the machine is so slow that the issuer could be asked again at once; internal/access tests the same with a clock of its own")
	}
	if refused == failures { // the old key is known until the next fetch
		if unchecked > 4 { // the invented ones had some
			t.Errorf("%d of %d tokens of unknown keys get 503; want five at most, and 429 from then on", unchecked, failures)
		}
		limited := 0.0
		for _, m := range scrape(t, said.URL)["headway_rate_limited_total"].GetMetric() {
			if m.GetLabel()[0].GetValue() == "unknown_keys" {
				limited = m.GetCounter().GetValue()
			}
		}
		if http := failures - unchecked; limited < float64(http+failures-6) {
			t.Errorf("%g are counted as beyond the limit; want %d over HTTP and all but five over NATS", limited, http)
		}
		if status, _, _ := ask(known[0]); status != http.StatusOK {
			t.Errorf("a token of the known key: %d", status)
		}
		if err := connect(known[1]); err != nil {
			t.Errorf("a token of the known key over NATS: %v", err)
		}
	}
	eventually(t, "the next fetch", func() bool { status, _, _ := ask(issuer.token(1000)); return status == http.StatusOK })
	if err := connect(issuer.token(1001)); err != nil {
		t.Errorf("a token of the new key over NATS: %v", err)
	}
}

package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"headway/api"
	"headway/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is a router's side without a network, so that time is the test's.
type network func(*http.Request) (*http.Response, error)

func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return n(r)
}

// script answers the calls in order, with its last step again and again.
type script struct {
	mu    sync.Mutex
	steps []network
	calls []string
	times []time.Time
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	step := s.steps[min(len(s.calls), len(s.steps)-1)]
	s.calls = append(s.calls, r.Method+" "+r.URL.Path)
	s.times = append(s.times, time.Now())
	s.mu.Unlock()
	return step.RoundTrip(r)
}

func (s *script) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// respond answers with a status and a body; headers are name, value.
func respond(status int, body string, header ...string) network {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func refuse(status int, code string, header ...string) network {
	body := fmt.Sprintf(`{"code":%q,"status":%d,"detail":"because","request_id":"r1"}`, code, status)
	return respond(status, body, append(header, "Content-Type", "application/problem+json")...)
}

func fail(err error) network {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

var (
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	errReset   = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}
)

const (
	decisionBody = `{"decision_id":"d1","model_type":"m-1","head":{"id":"a","endpoint":"http://a"},"alternatives":[{"id":"b","endpoint":"http://b"},{"id":"c","endpoint":"http://c"}]}`
	headBody     = `{"id":"a"}`
)

func dial(t testing.TB, url string, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// over makes a client of a fake, which waits half of what chance may make it.
func over(t testing.TB, rt http.RoundTripper, opts ...client.Option) *client.Client {
	t.Helper()
	opts = append([]client.Option{
		client.WithHTTPClient(&http.Client{Transport: rt}), client.WithRandom(func() float64 { return 0.5 }),
	}, opts...)
	return dial(t, "http://router.example", opts...)
}

var (
	decide = func(ctx context.Context, c *client.Client) error {
		_, err := c.Decide(ctx, api.DecisionRequest{ModelType: "m"})
		return err
	}
	getHead = func(ctx context.Context, c *client.Client) error {
		_, err := c.Head(ctx, "a")
		return err
	}
	createKey = func(ctx context.Context, c *client.Client) error {
		_, err := c.CreateKey(ctx, api.KeyRequest{Name: "n", Role: "viewer"})
		return err
	}
)

func TestWhichCallsAreRepeated(t *testing.T) {
	for _, tt := range []struct {
		name  string
		call  func(context.Context, *client.Client) error
		first network
		calls int
		err   error // nil: the repeat succeeds
		any   bool  // the kind of the error does not matter
	}{
		{"nobody listens", decide, fail(errRefused), 2, nil, false},
		{"a decision may have been made", decide, fail(errReset), 1, client.ErrUnavailable, false},
		{"reading again is safe", getHead, fail(errReset), 2, nil, false},
		{"a key may have been made", createKey, fail(errReset), 1, client.ErrUnavailable, false},
		{"no head now, later perhaps", decide, refuse(503, api.CodeNoEligibleHead, "Retry-After", "2"), 2, nil, false},
		{"no head, and no word of later", decide, refuse(503, api.CodeNoEligibleHead), 1, client.ErrNoHead, false},
		{"too fast", decide, refuse(429, api.CodeRateLimited, "Retry-After", "1"), 2, nil, false},
		{"too fast to make a key", createKey, refuse(429, api.CodeRateLimited), 2, nil, false},
		{"a proxy without its router", getHead, respond(502, "<html>"), 2, nil, false},
		{"a proxy that may have sent it on", decide, respond(502, "<html>"), 1, client.ErrUnavailable, false},
		{"a wait that is too long", getHead, refuse(503, api.CodeOverloaded, "Retry-After", "31"), 1, client.ErrUnavailable, false},
		{"not found stays not found", getHead, refuse(404, api.CodeHeadNotFound), 1, client.ErrNotFound, false},
		{"a bug is not mended by asking again", getHead, refuse(500, api.CodeInternal), 1, errHead, true},
		{"what is no JSON", getHead, respond(200, "<html>"), 1, client.ErrAnswer, false},
		{"half a document", getHead, respond(200, `{"id":`), 1, client.ErrAnswer, false},
		{"a decision without a head", decide, respond(200, "{}"), 1, client.ErrAnswer, false},
		{"a status that means nothing here", getHead, respond(204, ""), 1, client.ErrAnswer, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := decisionBody
				if tt.name == "reading again is safe" {
					body = headBody
				}
				s := &script{steps: []network{tt.first, func(r *http.Request) (*http.Response, error) {
					if strings.HasSuffix(r.URL.Path, "/keys") {
						return respond(201, `{"id":"k"}`)(r)
					}
					return respond(200, body)(r)
				}}}
				err := tt.call(t.Context(), over(t, s))
				if s.called() != tt.calls || (err == nil) != (tt.err == nil) || tt.err != nil && !tt.any && !errors.Is(err, tt.err) {
					t.Errorf("%d calls, %v; want %d, %v", s.called(), err, tt.calls, tt.err)
				}
			})
		})
	}
}

func TestARepeatWaitsAsLongAsTheRouterAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []network{refuse(503, api.CodeNoEligibleHead, "Retry-After", "5"), respond(200, decisionBody)}}
		if err := decide(t.Context(), over(t, s)); err != nil {
			t.Fatal(err)
		}
		if gap := s.times[1].Sub(s.times[0]); gap < 5*time.Second || gap > 6*time.Second {
			t.Errorf("%v between the tries, want 5 s and some chance", gap)
		}
	})
}

func TestNoWaitBeyondTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []network{refuse(503, api.CodeNoEligibleHead, "Retry-After", "5")}}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		began := time.Now()
		err := decide(ctx, over(t, s))
		if !errors.Is(err, client.ErrNoHead) || time.Since(began) != 0 || s.called() != 1 {
			t.Errorf("%v after %v and %d calls, want the refusal at once", err, time.Since(began), s.called())
		}
	})
}

func TestRetriesAreBoundedByTheCallAndGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []network{fail(errRefused)}}
		err := getHead(t.Context(), over(t, s, client.WithRetries(5)))
		if !errors.Is(err, client.ErrUnavailable) || s.called() != 6 {
			t.Fatalf("%d calls, %v", s.called(), err)
		}
		want := 25 * time.Millisecond // half of the bound
		for i := 1; i < len(s.times); i++ {
			if gap := s.times[i].Sub(s.times[i-1]); gap != want {
				t.Errorf("wait %d is %v, want %v", i, gap, want)
			}
			want *= 2
		}
		if err := getHead(t.Context(), over(t, &script{steps: []network{fail(errRefused)}}, client.WithRetries(0))); err == nil {
			t.Error("no error without retries")
		}
	})
}

// However calls come, an outage multiplies them by 1.1 and adds a few.
func TestTheBudgetBoundsAllRepeats(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		gaps := rapid.SliceOfN(rapid.IntRange(0, 2000), 1, 200).Draw(rt, "gaps in ms")
		repeats := rapid.IntRange(0, 10).Draw(rt, "repeats")
		synctest.Test(t, func(t *testing.T) {
			s := &script{steps: []network{fail(errRefused)}}
			c := over(t, s, client.WithRetries(repeats))
			began := time.Now()
			for _, gap := range gaps {
				time.Sleep(time.Duration(gap) * time.Millisecond)
				_ = getHead(t.Context(), c)
			}
			most := client.MaxBudget + client.BudgetPerCall*float64(len(gaps)) + client.BudgetPerSecond*time.Since(began).Seconds()
			if extra := s.called() - len(gaps); extra > int(math.Ceil(most)) || extra > repeats*len(gaps) {
				t.Errorf("%d repeats of %d calls in %v, want at most %v", extra, len(gaps), time.Since(began), most)
			}
		})
	})
}

func TestATryHasATimeLimitOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []network{
			func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() },
			respond(200, headBody),
		}}
		began := time.Now()
		err := getHead(t.Context(), over(t, s, client.WithTimeout(time.Second)))
		if took := time.Since(began); err != nil || took < time.Second || took > 2*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestTheEndOfTheContextIsItsOwnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := network(func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := getHead(ctx, over(t, hang))
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrUnavailable) {
			t.Errorf("deadline: %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		if err := getHead(ctx, over(t, hang)); !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrUnavailable) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestErrorsMatchTheirSentinels(t *testing.T) {
	all := map[string]error{
		"invalid": client.ErrInvalid, "unauthorized": client.ErrUnauthorized, "forbidden": client.ErrForbidden,
		"not found": client.ErrNotFound, "unknown model": client.ErrUnknownModelType, "conflict": client.ErrConflict,
		"stale": client.ErrStale, "too large": client.ErrTooLarge, "rate limited": client.ErrRateLimited,
		"unavailable": client.ErrUnavailable, "no head": client.ErrNoHead, "answer": client.ErrAnswer,
	}
	for _, tt := range []struct {
		status int
		code   string
		is     string
	}{
		{400, api.CodeInvalidJSON, "invalid"},
		{401, api.CodeUnauthenticated, "unauthorized"},
		{403, api.CodeForbidden, "forbidden"},
		{403, api.CodeOverrideNotAllowed, "forbidden"},
		{404, api.CodeHeadNotFound, "not found"},
		{404, api.CodeUnknownModelType, "not found, unknown model"},
		{409, api.CodeConflict, "conflict"},
		{409, api.CodeStaleEpoch, "conflict, stale"},
		{409, api.CodeLastAdmin, "conflict"},
		{412, api.CodePreconditionFailed, "conflict, stale"},
		{413, api.CodeTooLarge, "too large"},
		{422, api.CodeInvalid, "invalid"},
		{428, api.CodePreconditionMissing, "invalid"},
		{429, api.CodeRateLimited, "rate limited"},
		{500, api.CodeInternal, ""},
		{503, api.CodeNoEligibleHead, "unavailable, no head"},
		{503, api.CodeAuditUnavailable, "unavailable"},
		{504, api.CodeTimeout, "unavailable"},
		{507, api.CodeFleetFull, "unavailable"},
	} {
		err := getHead(t.Context(), over(t, refuse(tt.status, tt.code), client.WithRetries(0)))
		var e *client.Error
		if !errors.As(err, &e) || e.Status != tt.status || e.Problem.Code != tt.code || e.Problem.RequestID != "r1" {
			t.Errorf("%s: %v", tt.code, err)
		}
		for name, sentinel := range all {
			if want := tt.is == name || strings.HasPrefix(tt.is, name+",") || strings.HasSuffix(tt.is, ", "+name); errors.Is(err, sentinel) != want {
				t.Errorf("%d %s is %q: %v, want %v", tt.status, tt.code, name, !want, want)
			}
		}
	}
}

func TestAnErrorSaysEverythingTheRouterSaid(t *testing.T) {
	body := `{"code":"invalid_request","status":422,"detail":"2 things are wrong.","request_id":"r7","errors":[{"pointer":"/id","reason":"is empty"},{"parameter":"limit","reason":"is 0"}]}`
	err := getHead(t.Context(), over(t, respond(422, body, "Content-Type", "application/problem+json")))
	want := "get head a: invalid_request (422): 2 things are wrong. /id: is empty. limit: is 0. [request r7]"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	err = getHead(t.Context(), over(t, respond(418, "<html>secret of a proxy", "Content-Type", "text/html")))
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "418") {
		t.Errorf("of another's page: %v", err)
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-1": 0, "1.5": 0, "99999999999": time.Hour, "18446744073709551615": time.Hour, "soon": 0,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:00:00 GMT": 0, "Fri, 02 Jan 2099 03:00:00 GMT": time.Hour,
	} {
		if got := client.RetryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// serve serves a handler on loopback until the test ends.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func TestAHugeAnswerIsNotRead(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		line := []byte(strings.Repeat(" ", 1<<20))
		for range client.MaxAnswer>>20 + 8 {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	if err := getHead(t.Context(), dial(t, s.URL)); !errors.Is(err, client.ErrTooLarge) || errors.Is(err, client.ErrUnavailable) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
}

// cut ends a connection in the middle of an answer, or before it.
func cut(w http.ResponseWriter, text string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte(text))
	if tcp, ok := conn.(*net.TCPConn); ok && text == "" {
		_ = tcp.SetLinger(0) // a reset
	}
	_ = conn.Close()
}

func TestACutConnectionIsTriedAgainWhereThatIsSafe(t *testing.T) {
	for name, text := range map[string]string{
		"reset": "", "half an answer": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"id\":",
	} {
		var calls atomic.Int64
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) == 1 {
				cut(w, text)
				return
			}
			_, _ = io.WriteString(w, headBody)
		})
		c := dial(t, s.URL, client.WithRandom(func() float64 { return 0 }))
		if err := getHead(t.Context(), c); err != nil || calls.Load() != 2 {
			t.Errorf("%s: %v after %d calls", name, err, calls.Load())
		}
		calls.Store(0)
		if err := decide(t.Context(), c); !errors.Is(err, client.ErrUnavailable) || calls.Load() != 1 {
			t.Errorf("%s of a decision: %v after %d calls", name, err, calls.Load())
		}
	}
}

func TestNoServerListens(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	var n int
	c := dial(t, s.URL, client.WithRandom(func() float64 { n++; return 0 }))
	if err := decide(t.Context(), c); !errors.Is(err, client.ErrUnavailable) || n != 3 {
		t.Errorf("%v after %d repeats", err, n)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case http.MethodPost:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		default:
			_, _ = io.WriteString(w, headBody)
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := dial(t, s.URL)
	for range 10 {
		if err := errors.Join(getHead(t.Context(), c), c.DeleteHead(t.Context(), "a")); err != nil {
			t.Fatal(err)
		}
		if err := decide(t.Context(), c); !errors.Is(err, client.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if opened.Load() != 1 {
		t.Errorf("%d connections for 30 calls", opened.Load())
	}
}

func TestATokenGoesToNoOtherHost(t *testing.T) {
	var stolen atomic.Bool
	other := serve(t, func(http.ResponseWriter, *http.Request) { stolen.Store(true) })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer s3cret":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/here/api/v1/heads/a":
			http.Redirect(w, r, "/moved", http.StatusPermanentRedirect)
		case r.URL.Path == "/moved":
			_, _ = io.WriteString(w, headBody)
		case strings.HasPrefix(r.URL.Path, "/loop"):
			http.Redirect(w, r, r.URL.Path, http.StatusPermanentRedirect)
		default:
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}
	})
	for path, ok := range map[string]bool{"/here": true, "/there": false, "/loop": false} {
		c := dial(t, s.URL+path+"/", client.WithToken("s3cret"))
		if err := getHead(t.Context(), c); (err == nil) != ok || errors.Is(err, client.ErrUnauthorized) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := decide(t.Context(), dial(t, s.URL+"/there", client.WithToken("s3cret"))); err == nil || stolen.Load() {
		t.Errorf("%v; the other host was called: %v", err, stolen.Load())
	}
}

func TestTheTokenIsReadAgainWhenItsFileChanged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	var got string
	write("one\n")
	c := over(t, network(func(r *http.Request) (*http.Response, error) {
		got = r.Header.Get("Authorization")
		return respond(200, headBody)(r)
	}), client.WithTokenFile(file))
	for _, want := range []string{"one", "two", "three"} {
		write(want + "\n")
		if err := getHead(t.Context(), c); err != nil || got != "Bearer "+want {
			t.Errorf("%q, %v; want %s", got, err, want)
		}
	}
	write("no token\n")
	got = ""
	if err := getHead(t.Context(), c); err == nil || got != "" || strings.Contains(err.Error(), "no token\n") {
		t.Errorf("a call was made with %q: %v", got, err)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for name, try := range map[string]func() (*client.Client, error){
		"no URL":       func() (*client.Client, error) { return client.New("") },
		"other scheme": func() (*client.Client, error) { return client.New("ftp://host") },
		"no host":      func() (*client.Client, error) { return client.New("http:///x") },
		"a password":   func() (*client.Client, error) { return client.New("http://u:hunter2@host") },
		"a query":      func() (*client.Client, error) { return client.New("http://host?x=1") },
		"empty token":  func() (*client.Client, error) { return client.New("http://host", client.WithToken("")) },
		"broken token": func() (*client.Client, error) { return client.New("http://host", client.WithToken("a\r\nX: y")) },
		"no token file": func() (*client.Client, error) {
			return client.New("http://host", client.WithTokenFile("/nowhere/token"))
		},
		"many retries":   func() (*client.Client, error) { return client.New("http://host", client.WithRetries(11)) },
		"no timeout":     func() (*client.Client, error) { return client.New("http://host", client.WithTimeout(0)) },
		"a broken agent": func() (*client.Client, error) { return client.New("http://host", client.WithUserAgent("a\nb")) },
		"no logger":      func() (*client.Client, error) { return client.New("http://host", client.WithLogger(nil)) },
		"two tokens": func() (*client.Client, error) {
			return client.New("http://host", client.WithToken("a"), client.WithToken("b"))
		},
		"TLS for another's client": func() (*client.Client, error) {
			return client.New("https://host", client.WithHTTPClient(&http.Client{}), client.WithTLSConfig(&tls.Config{}))
		},
	} {
		if _, err := try(); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTLSIsTheRoutersToProve(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, headBody) }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	if err := getHead(t.Context(), dial(t, s.URL, client.WithTLSConfig(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}))); err != nil {
		t.Errorf("of a certificate that is trusted: %v", err)
	}
	if err := getHead(t.Context(), dial(t, s.URL, client.WithRetries(0))); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("of a stranger: %v", err)
	}
}

func TestATokenInTheOpenIsWarnedOf(t *testing.T) {
	for url, warned := range map[string]bool{"http://router.example": true, "http://127.0.0.1:1": false, "http://[::1]:1": false, "https://router.example": false} {
		var log bytes.Buffer
		dial(t, url, client.WithLogger(slog.New(slog.NewTextHandler(&log, nil))), client.WithToken("s3cret"))
		if got := strings.Contains(log.String(), "unencrypted"); got != warned || strings.Contains(log.String(), "s3cret") {
			t.Errorf("%s: %q", url, log.String())
		}
	}
}

func TestADeletedHeadIsGoneHoweverTheAnswerGotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []network{fail(errReset), refuse(404, api.CodeHeadNotFound)}}
		c := over(t, s)
		if err := c.DeleteHead(t.Context(), "a"); err != nil {
			t.Errorf("after a lost answer: %v", err)
		}
		if err := c.DeleteHead(t.Context(), "a"); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("at once: %v, want ErrNotFound", err)
		}
	})
}

func TestAListWithoutAnEndIsNoList(t *testing.T) {
	s := &script{steps: []network{respond(200, `{"data":[{"id":"a"}],"next_cursor":"again"}`)}}
	heads, err := client.Collect(over(t, s).Heads(t.Context(), client.HeadQuery{}), 0)
	if !errors.Is(err, client.ErrAnswer) || len(heads) != 1 || s.called() != 2 {
		t.Errorf("%d heads, %v after %d calls", len(heads), err, s.called())
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(200, "application/json", decisionBody, "")
	f.Add(503, "application/problem+json", `{"code":"no_eligible_head","errors":[{}]}`, "1")
	f.Fuzz(func(t *testing.T, status int, kind, body, after string) {
		if status < 100 || status > 999 {
			return
		}
		c := over(t, respond(status, body, "Content-Type", kind, "Retry-After", after), client.WithRetries(0))
		d, err := c.Decide(t.Context(), api.DecisionRequest{ModelType: "m"})
		if (d == nil) == (err == nil) || err != nil && err.Error() == "" {
			t.Errorf("%v, %v", d, err)
		}
		if e, ok := errors.AsType[*client.Error](err); ok && (e.RetryAfter < 0 || e.RetryAfter > time.Hour) {
			t.Errorf("wait %v", e.RetryAfter)
		}
	})
}

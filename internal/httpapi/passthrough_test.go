package httpapi_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// An answer on /heads is the head's own, and what a caller asks for there puts no head
// out.
func TestAnswersThatPassThroughAreUntouched(t *testing.T) {
	p := newPlane(t)
	p.apply(`{"default_strategy":"least_loaded","aliases":{"al":"m"}}`)
	calls := 0
	p.script("a", func(w http.ResponseWriter, r *http.Request) {
		calls++
		h := w.Header()
		switch r.URL.Path {
		case "/same":
			h.Set("Etag", `"x"`)
			w.WriteHeader(http.StatusNotModified)
		case "/elsewhere":
			h.Set("Location", "http://192.0.2.1/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		case "/wrong":
			h.Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"model":"m","detail":"bad m"}`)
		case "/broken":
			h.Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"model":"m","detail":"no m"}`)
		case "/length":
			h.Set("Content-Length", "1000")
		}
	})
	for _, c := range []struct {
		method, path string
		status       int
		body, has    string
	}{
		{http.MethodGet, "same", 304, "", ""},
		{http.MethodGet, "elsewhere", 502, "", "head_redirected"},
		{http.MethodPost, "elsewhere", 502, "", "head_redirected"},
		{http.MethodPost, "wrong", 400, `{"model":"m","detail":"bad m"}`, ""},
		{http.MethodHead, "length", 200, "", ""},
	} {
		calls = 0
		a := p.send(c.method, "/heads/al/"+c.path, nil, "If-None-Match", `"x"`)
		if a.StatusCode != c.status || c.has == "" && string(a.body) != c.body || !strings.Contains(string(a.body), c.has) || calls != 1 {
			t.Errorf("%s %s: %d after %d calls, %s", c.method, c.path, a.StatusCode, calls, a.body)
		}
		if o, _ := p.decisionOf(a.Header).Outcome(); o.Blames() {
			t.Errorf("%s %s: the outcome is %+v", c.method, c.path, o)
		}
		if c.path == "same" && a.Header.Get("Etag") != `"x"` || c.path == "length" && a.Header.Get("Content-Length") != "1000" {
			t.Errorf("%s: the header is %v", c.path, a.Header)
		}
	}
	if a := p.send(http.MethodPost, "/heads/al/broken", nil); a.StatusCode != http.StatusServiceUnavailable || string(a.body) != `{"model":"m","detail":"no m"}` {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	p.settled()
}

// What is not idempotent is carried out at most once, however heads fail; what is, and
// what goes to /v1, is tried at another head.
func TestAPostThatPassesThroughIsCarriedOutAtMostOnce(t *testing.T) {
	for _, c := range []struct {
		what   string
		answer string // to a request that was read; "": none, the connection is closed
		reset  bool
		post   int64 // times that heads carry a request out
		put    int64
	}{
		{"closes", "", false, 1, 2},
		{"resets", "", true, 1, 2},
		{"breaks off in the header", "HTTP/1.1 200 O", false, 1, 2},
		{"is no HTTP", "what?\r\n\r\n", false, 1, 2},
		{"500", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", false, 1, 2},
		{"504", "HTTP/1.1 504 Late\r\nContent-Length: 0\r\n\r\n", false, 1, 2},
		{"breaks off in the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na", false, 1, 1},
		{"says that it did nothing", "HTTP/1.1 503 Full\r\nContent-Length: 0\r\n\r\n", false, 2, 2},
		{"says that it is too much", "HTTP/1.1 429 Full\r\nContent-Length: 0\r\n\r\n", false, 2, 2},
	} {
		for method, want := range map[string]int64{http.MethodPost: c.post, http.MethodPatch: c.post, "CREATE": c.post, http.MethodPut: c.put, http.MethodDelete: c.put, http.MethodGet: c.put} {
			t.Run(c.what+" "+method, func(t *testing.T) {
				p := newPlane(t)
				var carriedOut atomic.Int64
				for _, id := range []string{"a", "b"} {
					p.registered(id, rawHead(t, func(conn net.Conn, r *bufio.Reader) {
						q, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						_, _ = io.Copy(io.Discard, q.Body)
						carriedOut.Add(1)
						_, _ = io.WriteString(conn, c.answer)
						if c.reset {
							_ = conn.(*net.TCPConn).SetLinger(0)
						}
					}))
				}
				res, err := p.request(method, "/heads/m/x", strings.NewReader("a body"))
				if err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				p.settled()
				if n := carriedOut.Load(); n != want {
					t.Errorf("it was carried out %d times, want %d", n, want)
				}
			})
		}
	}
}

// A head that cannot be connected to has read nothing.
func TestAPostThatNoHeadHasReadGoesToAnother(t *testing.T) {
	p := newPlane(t)
	p.registered("a", "http://127.0.0.1:1")
	n := p.engine("b", "", nil, "m")
	for i := range int64(6) {
		if a := p.send(http.MethodPost, "/heads/m/x", strings.NewReader("a body")); a.StatusCode != http.StatusOK || n.Load() != i+1 {
			t.Errorf("%d %s, %d came through", a.StatusCode, a.body, n.Load())
		}
	}
	p.settled()
}

// rawHead serves each connection with a function.
func rawHead(t testing.TB, serve func(net.Conn, *bufio.Reader)) (endpoint string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c, bufio.NewReader(c))
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-served })
	return "http://" + l.Addr().String()
}

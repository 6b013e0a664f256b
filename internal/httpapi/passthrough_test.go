package httpapi_test

import (
	"io"
	"net/http"
	"strings"
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
	for range 10 { // as often as would eject the head, were it blamed
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
			if c.path == "same" && a.Header.Get("Etag") != `"x"` || c.path == "length" && a.Header.Get("Content-Length") != "1000" {
				t.Errorf("%s: the header is %v", c.path, a.Header)
			}
		}
	}
	p.settled()
	if n := p.fleet.Snapshot().Pools["m"].All.Routable(); n != 1 {
		t.Fatalf("%d of 1 heads take requests", n)
	}
	if a := p.send(http.MethodPost, "/heads/al/broken", nil); a.StatusCode != http.StatusServiceUnavailable || string(a.body) != `{"model":"m","detail":"no m"}` {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	p.settled()
}

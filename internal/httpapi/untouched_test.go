package httpapi_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"headway/internal/proxy"
)

// What heads answer below /heads is passed on as it is, of any status, length and
// framing, also where others were asked before.
func TestFailuresOfHeadsThatPassThroughAreUntouched(t *testing.T) {
	var status, size int
	var known bool
	script := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if known {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		w.WriteHeader(status)
		if r.Method == http.MethodHead {
			return
		}
		for left := size; left > 0; left -= 10 {
			_, _ = io.WriteString(w, "0123456789")
		}
		if !known {
			_ = http.NewResponseController(w).Flush()
		}
	}
	for _, status = range []int{429, 500, 501, 503} {
		for _, size = range []int{0, 100_000, 1_000_000} {
			for _, known = range []bool{true, false} {
				for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead} {
					p := newPlane(t)
					p.script("a", script)
					p.script("b", script)
					a := p.send(method, "/heads/m/x", nil)
					want := strings.Repeat("0123456789", size/10)
					if method == http.MethodHead {
						want = ""
					}
					if a.StatusCode != status || string(a.body) != want || a.Header.Get("Content-Type") != "text/html" {
						t.Errorf("%s %d, %d bytes, length known %v: %d %s, %d bytes %.80q", method, status, size, known, a.StatusCode, a.Header.Get("Content-Type"), len(a.body), a.body)
					}
					if method == http.MethodHead && known && size > 0 && a.ContentLength != int64(size) {
						t.Errorf("HEAD %d: the length %d is missing: %d", status, size, a.ContentLength)
					}
					p.settled()
				}
			}
		}
	}
}

// An answer without a type stays without one: a guess of ours could have a browser or a
// client's library take it for something else.
func TestNoTypeOfAnAnswerIsGuessed(t *testing.T) {
	for _, length := range []bool{true, false} {
		for _, path := range []string{"/heads/m/x", chatPath} {
			p := newPlane(t)
			p.script("a", func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				if !length {
					_ = http.NewResponseController(w).Flush()
				}
				_, _ = io.WriteString(w, "<html><script>")
			})
			a := p.answer(path, chatBody)
			if kind, given := a.Header["Content-Type"]; given || a.StatusCode != http.StatusOK || string(a.body) != "<html><script>" {
				t.Errorf("%s, length known %v: %d %q %q", path, length, a.StatusCode, kind, a.body)
			}
		}
	}
}

// A short key of a head may be a word, which whole answers may have; no error has it.
func TestNoErrorHasAShortKeyOfItsHead(t *testing.T) {
	const key = "s3cr3t-9"
	status, long := 0, false
	script := func(w http.ResponseWriter, r *http.Request) {
		kind := r.Header.Get("X-Kind")
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		if long {
			_, _ = io.WriteString(w, strings.Repeat(" ", 300<<10))
		}
		_, _ = io.WriteString(w, `{"error":"no `)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, key[:3])
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, key[3:]+`"}`)
	}
	for _, status = range []int{400, 404, 422, 500, 501} {
		for _, long = range []bool{false, true} {
			for _, path := range []string{"/heads/m/x", chatPath} {
				for _, kind := range []string{"application/json", "text/plain"} {
					p := newPlane(t, func(o *proxy.Options) { o.HeadKey = func(string) string { return key } })
					p.script("a", script)
					a := p.answer(path, chatBody, "X-Kind", kind)
					if a.StatusCode != status || strings.Contains(string(a.body), key) {
						t.Errorf("%s %d %s, long %v: %d %.80q", path, status, kind, long, a.StatusCode, a.body)
					}
				}
			}
		}
	}
}

package console_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"headway/internal/console"
)

func newConsole(t *testing.T) *console.Console {
	t.Helper()
	c, err := console.New(fstest.MapFS{"one.json": {Data: []byte(`{"title":"One"}`)}, "notes.txt": {Data: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ask(t *testing.T, c *console.Console, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w
}

// Links are relative to a path with a slash at its end, so that they hold below
// the prefix of a proxy.
func TestLinksHoldBelowAnyPrefix(t *testing.T) {
	c := newConsole(t)
	if w := ask(t, c, "/console"); w.Code != 308 || w.Header().Get("Location") != "console/" {
		t.Errorf("%d, Location %q", w.Code, w.Header().Get("Location"))
	}
	for _, page := range []string{"/console/", "/console/runbooks"} {
		if body := ask(t, c, page).Body.String(); strings.Contains(body, `="/`) {
			t.Errorf("%s has a link from the root", page)
		}
	}
}

func TestWhatIsServed(t *testing.T) {
	c := newConsole(t)
	for path, kind := range map[string]string{
		"/console/": "text/html", "/console/monitoring": "text/html",
		"/console/runbooks": "text/html", "/console/assets/main.js": "text/javascript", "/console/assets/style.css": "text/css",
		"/console/dashboards/one.json": "application/json",
	} {
		w := ask(t, c, path)
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || w.Body.Len() == 0 {
			t.Errorf("%s: %d %s; want %s", path, w.Code, w.Header().Get("Content-Type"), kind)
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe-eval") {
			t.Errorf("%s: Content-Security-Policy %q", path, csp)
		}
		if again := ask(t, c, path, "If-None-Match", w.Header().Get("ETag")); again.Code != 304 || again.Body.Len() != 0 {
			t.Errorf("%s asked again: %d with %d bytes", path, again.Code, again.Body.Len())
		}
		small := ask(t, c, path, "Accept-Encoding", "gzip, br")
		if got := small.Header().Get("Content-Encoding"); got != "gzip" {
			t.Errorf("%s by gzip is said to be %q", path, got)
		}
		unzipped, err := gzip.NewReader(small.Body)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(unzipped); err != nil || string(plain) != w.Body.String() {
			t.Errorf("%s by gzip is other than without: %v", path, err)
		}
	}
	if w := ask(t, c, "/console/heads/gpu-1"); w.Code != 302 || w.Header().Get("Location") != "../fleet" {
		t.Errorf("/console/heads/gpu-1: %d to %q", w.Code, w.Header().Get("Location"))
	}
	for _, page := range strings.Fields("monitoring alerts fleet decisions policy strategies audit keys queue") {
		if w := ask(t, c, "/console/"+page); w.Code != 200 || w.Body.String() != ask(t, c, "/console/").Body.String() {
			t.Errorf("/console/%s: %d; want the document that draws all pages", page, w.Code)
		}
	}
	for _, path := range []string{"/console/nonsense", "/console/monitor", "/console/monitoring/", "/console/Alerts", "/console/alerts/x", "/console/heads/", "/console/heads/a/b", "/console//", "/console/dashboards/notes.txt", "/console/dashboards/two.json", "/console/assets/index.html", "/console/../console.go", "/console/assets/../../x"} {
		if w := ask(t, c, path); w.Code != 404 {
			t.Errorf("%s: %d; want 404", path, w.Code)
		}
	}
}

// What a browser fetches for a first view, with the chart library.
func TestThePageIsSmall(t *testing.T) {
	c := newConsole(t)
	total := 0
	for _, path := range []string{"/console/monitoring", "/console/assets/main.js", "/console/assets/style.css"} {
		total += ask(t, c, path, "Accept-Encoding", "gzip").Body.Len()
	}
	if t.Logf("%d bytes", total); total > 45<<10 {
		t.Errorf("the page has %d bytes gzipped; at most 45 KiB", total)
	}
}

// Every answer says how it may be used and kept, and one to HEAD has all but the
// content.
func TestTheHeadersOfAnAnswer(t *testing.T) {
	c := newConsole(t)
	for path := range map[string]bool{"/console/": true, "/console/assets/main.js": true, "/console/dashboards/one.json": true} {
		whole := ask(t, c, path)
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache", "Vary": "Accept-Encoding", "Content-Encoding": "",
		} {
			if got := whole.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		for _, part := range []string{"script-src 'self';", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "connect-src 'self'"} {
			if csp := whole.Header().Get("Content-Security-Policy"); !strings.Contains(csp, part) {
				t.Errorf("%s: Content-Security-Policy %q lacks %s", path, csp, part)
			}
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodHead, path, nil)
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		if w.Body.Len() != 0 || w.Header().Get("Content-Length") != whole.Header().Get("Content-Length") || w.Header().Get("ETag") != whole.Header().Get("ETag") {
			t.Errorf("%s by HEAD: %d bytes, %v", path, w.Body.Len(), w.Header())
		}
		if got := whole.Header().Get("Content-Length"); got != strconv.Itoa(whole.Body.Len()) {
			t.Errorf("%s has %d bytes and says %s", path, whole.Body.Len(), got)
		}
	}
	if a, b := ask(t, c, "/console/assets/main.js").Header().Get("ETag"), ask(t, c, "/console/assets/style.css").Header().Get("ETag"); a == b {
		t.Errorf("two files have one ETag %s", a)
	}
}

// A console without a dashboard is a mistake of who builds it.
func TestAConsoleNeedsDashboards(t *testing.T) {
	if _, err := console.New(fstest.MapFS{"notes.txt": {Data: []byte("x")}}); err == nil || !strings.Contains(err.Error(), "dashboards/") {
		t.Errorf("without a dashboard: %v", err)
	}
}

package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"headway/internal/httpapi"
)

// Metrics are compressed for callers that take gzip, and for no others.
func TestMetricsAreCompressed(t *testing.T) {
	w := newWorld(t)
	for accept, want := range map[string]bool{
		"":                          false,
		"identity":                  false,
		"deflate, br":               false,
		"gzip":                      true,
		"deflate, GZIP;q=0.5, br":   true,
		"gzip; q=1":                 true,
		"gzip;q=0":                  false,
		"gzip; q=0.000, identity":   false,
		"zstd,gzip":                 true,
		"x-gzip-and-more, identity": false,
	} {
		a := w.must(http.StatusOK, "GET", "/metrics", "", "Accept-Encoding", accept)
		if got := a.header.Get("Content-Encoding") == "gzip"; got != want {
			t.Errorf("Accept-Encoding %q: compressed %v", accept, got)
		}
		if vary := strings.Join(a.header["Vary"], ","); !strings.Contains(vary, "Accept-Encoding") {
			t.Errorf("Accept-Encoding %q: the answer varies by %q", accept, vary)
		}
		body := a.body
		if want {
			body = unzipped(t, body)
		}
		if !bytes.Contains(body, []byte("\nactive_heads ")) {
			t.Errorf("Accept-Encoding %q: the metrics are %.100q", accept, body)
		}
	}
}

func unzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// An error is not compressed: http.Error takes the header away that says so.
func TestErrorsAreNotCompressed(t *testing.T) {
	answer := func(h http.HandlerFunc) *http.Response {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		httpapi.Compressed(h).ServeHTTP(w, r)
		return w.Result()
	}
	failed := answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "too many", http.StatusServiceUnavailable) })
	defer failed.Body.Close()
	if body, err := io.ReadAll(failed.Body); err != nil || string(body) != "too many\n" || failed.Header.Get("Content-Encoding") != "" {
		t.Errorf("an error is %q, %v, with %v", body, err, failed.Header)
	}
	for range 3 { // the second has the writer of the first
		fine := answer(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("metric ", 1000))
		})
		body, err := io.ReadAll(fine.Body)
		if plain := unzipped(t, body); err != nil || len(plain) != 7000 || len(body) > 700 {
			t.Errorf("%d bytes are compressed to %d", len(plain), len(body))
		}
		_ = fine.Body.Close()
	}
}

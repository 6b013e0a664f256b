package httpapi_test

import (
	"fmt"
	"net/http"
	"testing"
)

// BenchmarkScrape is a scrape of /metrics, compressed as Prometheus asks for it,
// with 1,000 heads of 50 model types in 20 regions.
func BenchmarkScrape(b *testing.B) {
	w := newWorld(b)
	for i := range 1000 {
		a := w.do(http.MethodPost, "/api/v1/heads", fmt.Sprintf(
			`{"id":"head-%d","endpoint":"http://10.0.0.1:8000","model_types":["model-%d"],"region":"region-%d","status":"active"}`, i, i%50, i%20))
		if a.status != http.StatusCreated {
			b.Fatalf("%d %s", a.status, a.body)
		}
	}
	for i := range 1000 {
		w.decide(fmt.Sprintf(`{"model_type":"model-%d","region":"region-%d"}`, i%50, i%20))
	}
	plain := len(w.do(http.MethodGet, "/metrics", "").body)
	for b.Loop() {
		if a := w.do(http.MethodGet, "/metrics", "", "Accept-Encoding: gzip"); a.status != http.StatusOK {
			b.Fatal(a.status)
		}
	}
	b.ReportMetric(float64(plain), "bytes")
}

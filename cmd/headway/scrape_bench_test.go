package main

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"headway/internal/strategy"
)

// BenchmarkScrape is a scrape of /metrics of the whole service, compressed as
// Prometheus asks for it, with 1,000 heads that are of as many pairs of 50 model
// types and 20 regions, each of which had decisions by every strategy.
func BenchmarkScrape(b *testing.B) {
	const heads, models, regions = 1000, 50, 20
	p := serve(b, b.TempDir(), "--lease-base-interval", "1m", "--decisions-reservation-ttl", "1s")
	for i := range heads {
		p.must(201, "POST", "/api/v1/heads", fmt.Sprintf(
			`{"id":"head-%d","endpoint":"http://10.0.0.1:8000","model_types":["model-%d"],"region":"region-%d","status":"active"}`, i, i%models, i/models%regions))
	}
	for i := range heads {
		for _, s := range strategy.Specs() {
			p.must(200, "POST", "/api/v1/decisions", fmt.Sprintf(`{"model_type":"model-%d","region":"region-%d","strategy":%q}`, i%models, i/models%regions, s.Name))
		}
	}
	scrape := func() (compressed int64) {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, p.url+"/metrics", nil)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3")
		req.Header.Set("Accept-Encoding", "gzip")
		res, err := p.client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		defer res.Body.Close()
		n, err := io.Copy(io.Discard, res.Body)
		if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Encoding") != "gzip" {
			b.Fatal(res.Status, res.Header, err)
		}
		return n
	}
	scrape()
	var compressed int64
	begin, n := p.cpuTime(), 0
	for b.Loop() {
		compressed = scrape()
		n++
	}
	b.ReportMetric(float64(p.cpuTime()-begin)/float64(n), "cpu-ns/scrape")
	b.ReportMetric(float64(len(p.must(200, "GET", "/metrics", ""))), "bytes")
	b.ReportMetric(float64(compressed), "gzipped-bytes")
}

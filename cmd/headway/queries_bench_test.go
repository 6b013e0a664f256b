package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkDecisionsBesideQueries asks for 300 decisions a second while so many
// clients ask for three hours of the service's latencies, second by second, one
// such query after the other. All are on this machine and take their part of its
// processors.
func BenchmarkDecisionsBesideQueries(b *testing.B) {
	dir := b.TempDir()
	source := withHeads(b, b.TempDir(), "--monitor-enabled=false")
	now := time.Now().Add(-3 * time.Hour)
	m := remembering(b, source, &now, filepath.Join(dir, "monitor.history"))
	for range 3*240 - 1 {
		now = now.Add(15 * time.Second)
		m.Step(b.Context())
	}
	ctx, stop := context.WithCancel(b.Context())
	stop()
	if err := m.Run(ctx); err != nil { // writes the history
		b.Fatal(err)
	}
	source.stop()
	p := withHeads(b, dir)
	query := "/prometheus/api/v1/query_range?" + url.Values{
		"query": {`sum by (endpoint) (rate(headway_http_request_duration_seconds_bucket{le=~"0[.]0.*"}[5m]))`}, "step": {"1"},
		"start": {fmt.Sprint(now.Add(-3 * time.Hour).Unix())}, "end": {fmt.Sprint(now.Unix())},
	}.Encode()
	for _, clients := range []int{0, 6} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			var asking sync.WaitGroup
			ctx, stop := context.WithCancel(b.Context())
			defer func() { stop(); asking.Wait() }()
			answered := make(chan int, 1000)
			for range clients {
				asking.Go(func() {
					for ctx.Err() == nil {
						answered <- p.ask(ctx, query)
					}
				})
			}
			for b.Loop() {
				p.paced(b, 3000, 300)
			}
			ok := 0
			for len(answered) > 0 {
				if <-answered == http.StatusOK {
					ok++
				}
			}
			if b.ReportMetric(float64(ok), "queries"); clients > 0 && ok == 0 {
				b.Error("no query was answered")
			}
		})
	}
}

// ask asks once and returns the status, or 0.
func (p *process) ask(ctx context.Context, path string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	if err != nil {
		return 0
	}
	res, err := p.client.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// paced asks for n decisions at a rate and reports how long they took, each
// counted from the moment that it was due.
func (p *process) paced(b *testing.B, n, rate int) {
	b.Helper()
	took := make([]time.Duration, n)
	begin := time.Now()
	var wait sync.WaitGroup
	const workers = 8
	for w := range workers {
		wait.Go(func() {
			for i := w; i < n; i += workers {
				due := begin.Add(time.Duration(i) * time.Second / time.Duration(rate))
				<-time.After(time.Until(due))
				if status, answer, err := p.do("POST", "/api/v1/decisions", `{"model_type":"m1"}`); err != nil || status != http.StatusOK {
					b.Errorf("%d %v %s", status, err, answer)
					return
				}
				took[i] = time.Since(due)
			}
		})
	}
	wait.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[n/2])/1e6, "p50-ms")
	b.ReportMetric(float64(took[n*99/100])/1e6, "p99-ms")
}

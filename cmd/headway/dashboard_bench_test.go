package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"headway/internal/monitor"
	rules "headway/prometheus"
)

// withHeads is a service with 40 heads, which stay, that has decided.
func withHeads(b *testing.B, dataDir string, args ...string) *process {
	b.Helper()
	p := serve(b, dataDir, append(args, "--lease-base-interval", "1m", "--decisions-reservation-ttl", "1s", "--queue-mode", "off")...)
	for i := range 40 {
		p.must(201, "POST", "/api/v1/heads", fmt.Sprintf(`{"id":"h%d","endpoint":"http://127.0.0.1:9","model_types":["m%d"],"region":"r%d","status":"active"}`, i, i%5, i%4))
	}
	for i := range 100 {
		p.must(200, "POST", "/api/v1/decisions", fmt.Sprintf(`{"model_type":"m%d"}`, i%5))
	}
	return p
}

// remembering is a monitor that finds at each step what the service says now.
func remembering(b *testing.B, p *process, now *time.Time, snapshot string) *monitor.Monitor {
	b.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bufio.NewReader(bytes.NewReader(p.must(200, "GET", "/metrics", ""))))
	if err != nil {
		b.Fatal(err)
	}
	m, err := monitor.New(monitor.Options{
		Gatherer: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
			return slices.Collect(maps.Values(families)), nil
		}),
		Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Rules: rules.RulesFor("http://localhost:8080"), Snapshot: snapshot,
		Instance: "localhost:8080", URL: &url.URL{Path: "/"}, Interval: 15 * time.Second, Retention: 24 * time.Hour, MaxSeries: 20_000,
		Now: func() time.Time { return *now },
	})
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// BenchmarkDashboard draws an hour of the enhanced dashboard: every query of its
// panels over what a service with 40 heads says, sampled every 15 s.
func BenchmarkDashboard(b *testing.B) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	m := remembering(b, withHeads(b, b.TempDir(), "--monitor-enabled=false"), &now, "")
	for range 250 {
		now = now.Add(15 * time.Second)
		m.Step(b.Context())
	}
	content, err := os.ReadFile("../../grafana/dashboards/routing-service-enhanced.json")
	if err != nil {
		b.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Targets []struct {
				Expr    string
				Instant bool
			}
		}
	}
	if err := json.Unmarshal(content, &d); err != nil {
		b.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "1m", `"$job"`, `".*"`, `"$instance"`, `".*"`, `"$model"`, `".*"`, `"$region"`, `".*"`)
	var queries []string
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			if target.Instant {
				queries = append(queries, "/prometheus/api/v1/query?"+url.Values{"query": {fill.Replace(target.Expr)}}.Encode())
				continue
			}
			queries = append(queries, "/prometheus/api/v1/query_range?"+url.Values{
				"query": {fill.Replace(target.Expr)}, "step": {"15"},
				"start": {fmt.Sprint(now.Add(-time.Hour).Unix())}, "end": {fmt.Sprint(now.Unix())},
			}.Encode())
		}
	}
	h := m.Handler("/prometheus")
	for b.Loop() {
		var next atomic.Int64
		var wait sync.WaitGroup
		for range 6 { // a browser's connections
			wait.Go(func() {
				for i := next.Add(1) - 1; i < int64(len(queries)); i = next.Add(1) - 1 {
					w := httptest.NewRecorder()
					h.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), "GET", queries[i], nil))
					if w.Code != 200 {
						b.Errorf("%s: %d %s", queries[i], w.Code, w.Body)
					}
				}
			})
		}
		wait.Wait()
	}
	b.ReportMetric(float64(len(queries)), "queries")
}

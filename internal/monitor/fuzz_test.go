package monitor_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/monitor"
)

// FuzzQuery asks anything of the query API: each answer is JSON with a status of
// the API, and comes within the limit of a query.
func FuzzQuery(f *testing.F) {
	w := newWorld(f, nil)
	w.pass(20, func(i int) { w.requests.WithLabelValues("200").Add(float64(i)); w.latency.Observe(0.3) })
	f.Add("query", `sum by (code) (rate(requests_total[1m])) / ignoring(x) group_left vector(1)`, "1700000300")
	f.Add("query", `histogram_quantile(0.9, latency_seconds_bucket) @ end() offset -1d`, "NaN")
	f.Add("query", `label_join(label_join(active_heads,"job","","job","job"),"job","","job","job")`, "")
	f.Add("query_range", `count_values("v", active_heads)[5m:1ms]`, "1e300")
	f.Add("series", `{__name__=~".+",code!~"(a|b){3}"}`, "2023-11-14T22:13:20Z")
	f.Add("labels", `{`, "-9223372036854775808")
	f.Fuzz(func(t *testing.T, call, expr, at string) {
		form := url.Values{"query": {expr}, "match[]": {expr}, "time": {at}, "start": {at}, "end": {"1700000300"}, "step": {"15"}}
		one := *w
		one.TB = t
		switch call {
		case "query", "query_range", "series", "labels", "rules", "alerts", "format_query", "metadata":
		default:
			call = "query"
		}
		began := time.Now()
		a := one.post("/api/v1/"+call, form)
		switch a.code {
		case http.StatusOK, http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusServiceUnavailable, http.StatusNotFound, http.StatusMethodNotAllowed:
		default:
			t.Fatalf("%s of %q at %q: %d %s", call, expr, at, a.code, a.Error)
		}
		if took := time.Since(began); took > monitor.QueryTimeout+30*time.Second {
			t.Fatalf("%s of %q at %q took %v", call, expr, at, took)
		}
	})
}

// FuzzRulesFile loads any rules: they are refused with an error, or evaluated
// without harm.
func FuzzRulesFile(f *testing.F) {
	f.Add([]byte(rules))
	f.Add([]byte("groups:\n- name: a\n  interval: 1ns\n  limit: -1\n  rules:\n  - {alert: A, expr: vector(1), for: 292y, keep_firing_for: 1ms, labels: {a: '{{ $value | humanize }}'}}\n"))
	f.Add([]byte("groups: [{name: x, rules: [{record: 'a:b', expr: 'vector(1)', labels: {__name__: y}}]}]"))
	f.Add([]byte("groups: &a [*a]"))
	f.Add([]byte("groups:\n- name: a\n  rules:\n  - {alert: A, expr: vector(1), annotations: {x: '{{ range $i, $e := query \"active_heads\" }}{{ template \"y\" }}{{ end }}'}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		now := start
		watched := prometheus.NewRegistry()
		m, err := monitor.New(monitor.Options{
			Gatherer: watched, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
			Instance: "here", URL: &url.URL{Path: "/"}, Interval: 15 * time.Second, Retention: 24 * time.Hour, MaxSeries: 20_000,
			Now: func() time.Time { return now }, Rules: text,
		})
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range 3 {
			m.Step(ctx)
			now = now.Add(15 * time.Second)
		}
		if ctx.Err() != nil {
			t.Fatalf("three steps take more than a minute with %q", text)
		}
	})
}

// FuzzSnapshot restores anything as the history: it costs at most the history.
func FuzzSnapshot(f *testing.F) {
	file := filepath.Join(f.TempDir(), "history")
	w := newWorld(f, func(o *monitor.Options) { o.Snapshot = file })
	w.pass(20, nil)
	ended, end := context.WithCancel(context.Background())
	end()
	if err := w.Run(ended); err != nil {
		f.Fatal(err)
	}
	zipped, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	in, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		f.Fatal(err)
	}
	var plain bytes.Buffer
	if _, err := plain.ReadFrom(in); err != nil {
		f.Fatal(err)
	}
	f.Add(plain.Bytes(), true)
	f.Add(plain.Bytes()[:plain.Len()/2], true)
	f.Add(zipped[:len(zipped)-4], false)
	f.Fuzz(func(t *testing.T, content []byte, pack bool) {
		if pack {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			if _, err := z.Write(content); err != nil || z.Close() != nil {
				t.Fatal(err)
			}
			content = b.Bytes()
		}
		file := filepath.Join(t.TempDir(), "history")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, func(o *monitor.Options) { o.Snapshot, o.MaxSeries = file, 10_000 })
		w.heads.Set(7)
		if err := w.Run(ended); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		w.pass(2, nil)
		if got := w.value("active_heads"); math.IsNaN(got) || got != 7 {
			t.Fatalf("active_heads is %v", got)
		}
	})
}

package monitor_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/monitor"
	shipped "headway/prometheus"
)

// PromQL is all that is linked of Prometheus: its storage, its scraping and
// what finds targets in clouds would make the binary ten times as large.
func TestOnlyPromQLIsLinked(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("the go command is needed: %v", err)
	}
	out, err := exec.CommandContext(t.Context(), tool, "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, out)
	}
	forbidden := []string{
		"prometheus/prometheus/tsdb\n", "prometheus/prometheus/rules\n", "prometheus/prometheus/scrape\n",
		"prometheus/prometheus/config\n", "prometheus/prometheus/web", "prometheus/prometheus/discovery",
		"aws", "azure", "k8s.io", "cloud.google.com", "google.golang.org/grpc",
	}
	for _, f := range forbidden {
		if strings.Contains(string(out), f) {
			t.Errorf("%s is linked", strings.TrimSpace(f))
		}
	}
	if !strings.Contains(string(out), "prometheus/prometheus/promql\n") {
		t.Error("nothing was listed")
	}
}

// day fills a monitor with a day of 2,000 series as the service has them under
// load. The shipped rules are evaluated from its end on.
func day(t testing.TB) *world {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.yml")
	write := func(rules []byte, at time.Time) {
		if err := errors.Join(os.WriteFile(file, rules, 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("groups: []\n"), start)
	w := newWorld(t, func(o *monitor.Options) { o.RulesFile = file })
	counter := func(name string, names ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: "x"}, names)
		w.watched.MustRegister(c)
		return c
	}
	gauge := func(name string, names ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: "x"}, names)
		w.watched.MustRegister(g)
		return g
	}
	decisions := counter("routing_decisions_total", "strategy", "model_type", "region")
	answers := counter("http_requests_total", "endpoint", "status")
	other := counter("work_total", "of")
	heads, inFlight := gauge("headway_heads", "model_type", "region", "status"), gauge("headway_head_in_flight", "head")
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "headway_http_request_duration_seconds", Help: "x",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"endpoint"})
	w.watched.MustRegister(latency)
	endpoints := []string{"/api/v1/decisions", "/api/v1/heads"}
	for i := len(endpoints); i < 30; i++ {
		endpoints = append(endpoints, fmt.Sprint("/api/v1/", i))
	}
	random := rand.New(rand.NewPCG(1, 1))
	w.pass(24*240, func(int) {
		for i := range 400 { // 4 strategies, 10 model types, 10 regions
			strategy := []string{"none", "power_of_two", "least_loaded", "round_robin"}[i%4]
			decisions.WithLabelValues(strategy, fmt.Sprint("model-", i/4%10), fmt.Sprint("region-", i/40)).Add(float64(random.IntN(100)))
		}
		for i, e := range endpoints {
			answers.WithLabelValues(e, "200").Add(float64(random.IntN(1000)))
			answers.WithLabelValues(e, "503").Add(float64(i % 2))
			for range 5 {
				latency.WithLabelValues(e).Observe(random.ExpFloat64() / 100)
			}
		}
		for i := range 300 { // 10 model types, 10 regions, 3 states
			heads.WithLabelValues(fmt.Sprint("model-", i%10), fmt.Sprint("region-", i/10%10), []string{"active", "held", "draining"}[i/100]).Set(float64(i % 7))
		}
		for i := range 200 {
			inFlight.WithLabelValues(fmt.Sprint("head-", i)).Set(float64(random.IntN(64)))
		}
		for i := range 430 {
			other.WithLabelValues(fmt.Sprint(i)).Add(float64(random.IntN(100)))
		}
	})
	write(shipped.RulesFor("http://localhost:8080"), w.now)
	return w
}

// BenchmarkDay reports what a day of 2,000 series takes: memory, and the time
// of a scrape and of a query over an hour.
func BenchmarkDay(b *testing.B) {
	before := heap()
	w := day(b)
	used := heap() - before
	now := w.now
	b.Run("step", func(b *testing.B) {
		w.Step(b.Context()) // reads the rules
		begin, steps := processorTime(b), 0
		for b.Loop() {
			for range 8 { // two minutes: all groups of rules were looked at
				w.now = w.now.Add(15 * time.Second)
				w.Step(b.Context())
				steps++
			}
		}
		b.ReportMetric(float64(processorTime(b)-begin)/float64(steps), "cpu-ns/step")
		b.ReportMetric(float64(used)/(1<<20), "MiB/day")
		b.ReportMetric(w.value(`count({__name__=~".+"})`), "series")
	})
	b.Run("range", func(b *testing.B) {
		params := url.Values{
			"query": {"sum by (le) (rate(headway_http_request_duration_seconds_bucket[1m]))"}, "step": {"15"},
			"start": {fmt.Sprint(now.Add(-time.Hour).Unix())}, "end": {fmt.Sprint(now.Unix())},
		}
		for b.Loop() {
			if r := w.get("/api/v1/query_range", params); r.Status != "success" {
				b.Fatal(r.Error)
			}
		}
	})
	runtime.KeepAlive(w)
}

// processorTime is what this process has used, in nanoseconds: on a machine that
// others share, time passes without it.
func processorTime(b *testing.B) int64 {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return used.Utime.Nano() + used.Stime.Nano()
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

package monitor_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/monitor"
	shipped "headway/prometheus"
)

// PromQL is all that is linked of Prometheus: its storage, its scraping and
// what finds targets in clouds would make the binary ten times as large.
func TestOnlyPromQLIsLinked(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "headway/"+"internal/monitor").Output()
	if err != nil {
		t.Skipf("the go command is needed: %v", err)
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

// day fills a monitor with a day of 2,000 series, most of which change as
// counters under load do, and with what the shipped rules make of them.
func day(t testing.TB) *world {
	t.Helper()
	w := newWorld(t, func(o *monitor.Options) { o.Rules = shipped.Rules })
	counters := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "work_total", Help: "Work."}, []string{"head"})
	gauges := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "load", Help: "Load."}, []string{"head"})
	w.watched.MustRegister(counters, gauges)
	random := rand.New(rand.NewPCG(1, 1))
	w.pass(24*240, func(int) {
		for i := range 1700 {
			counters.WithLabelValues(fmt.Sprint(i)).Add(float64(random.IntN(100)))
		}
		for i := range 290 {
			gauges.WithLabelValues(fmt.Sprint(i)).Set(float64(random.IntN(64)))
		}
	})
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
		for b.Loop() {
			w.now = w.now.Add(15 * time.Second)
			w.Step(b.Context())
		}
		b.ReportMetric(float64(used)/(1<<20), "MiB/day")
	})
	b.Run("range", func(b *testing.B) {
		params := url.Values{
			"query": {"sum(rate(work_total[1m]))"}, "step": {"15"},
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

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

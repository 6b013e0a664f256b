package app

import (
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// schedLatency is the time goroutines wait for a processor, the first sign of a
// machine that is too small.
var schedLatency = regexp.MustCompile(`^/sched/latencies:seconds$`)

// registerProcess registers the process metrics under Prometheus' usual names.
func registerProcess(metrics prometheus.Registerer, o Options) {
	promauto.With(metrics).NewGauge(prometheus.GaugeOpts{
		Name: "headway_build_info", Help: "Always 1; the labels name the version and commit.",
		ConstLabels: prometheus.Labels{"version": o.Version, "commit": o.Commit},
	}).Set(1)
	if o.LogLinesLost != nil {
		promauto.With(metrics).NewCounterFunc(prometheus.CounterOpts{
			Name: "headway_log_lines_lost_total", Help: "Lines of the log that could not be written, since its reader left or takes nothing, or its disk is full.",
		}, func() float64 { return float64(o.LogLinesLost()) })
	}
	metrics.MustRegister(
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: schedLatency})),
	)
}

package admission

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	waits                                             [priorities]prometheus.Observer
	requests, tokens, full, timeouts, dropped, misses prometheus.Counter
}

// Waits are seconds, up to the longest that makes sense for a person.
var buckets = []float64{.001, .005, .025, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120}

func newMetrics(a *Admission) *metrics {
	auto, m := promauto.With(a.o.Metrics), new(metrics)
	waits := auto.NewHistogramVec(prometheus.HistogramOpts{
		Name: "headway_admission_wait_seconds", Help: "Time that requests of the data plane waited for a place, however that ended, by priority.", Buckets: buckets,
	}, []string{"priority"})
	for p, name := range priorityNames {
		m.waits[p] = waits.WithLabelValues(name)
		auto.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "headway_admission_waiting", Help: "Requests of the data plane that wait for a place, by priority.",
			ConstLabels: prometheus.Labels{"priority": name},
		}, func() float64 { return float64(a.waiting[p].Load()) })
	}
	refused := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_admission_refused_total",
		Help: "Requests of the data plane that were refused before they were placed: for their caller's limit (requests, tokens) or for want of capacity (queue_full, queue_timeout).",
	}, []string{"reason"})
	m.requests, m.tokens = refused.WithLabelValues("requests"), refused.WithLabelValues("tokens")
	m.full, m.timeouts = refused.WithLabelValues("queue_full"), refused.WithLabelValues("queue_timeout")
	m.misses = auto.NewCounter(prometheus.CounterOpts{
		Name: "headway_admission_misses_total", Help: "Turns of waiting requests that found no place.",
	})
	m.dropped = auto.NewCounter(prometheus.CounterOpts{
		Name: "headway_admission_forgotten_total", Help: "Callers whose use of the current minute was forgotten to make room for others.",
	})
	return m
}

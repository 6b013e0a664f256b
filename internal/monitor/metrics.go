package monitor

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	failures     prometheus.Counter
	ruleFailures prometheus.Counter
	took         prometheus.Gauge
	errors       map[string]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, m *Monitor) (*metrics, error) {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_monitor_query_errors_total", Help: "Queries of the embedded monitor that got an error, by its type.",
	}, []string{"type"})
	told := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_monitor_notifications_total", Help: "Calls that told receivers of alerts, by status.",
	}, []string{"status"})
	m.notifier.sent, m.notifier.failed, m.notifier.dropped = told.WithLabelValues("sent"), told.WithLabelValues("failed"), told.WithLabelValues("dropped")
	x := &metrics{
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_monitor_scrape_failures_total", Help: "Scrapes of the embedded monitor that got not all metrics.",
		}),
		ruleFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_monitor_rule_load_failures_total", Help: "Times that the rule file changed and could not be used.",
		}),
		took: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headway_monitor_step_seconds", Help: "Time that the last scrape and the evaluation of the rules took.",
		}),
		errors: map[string]prometheus.Counter{},
	}
	for _, kind := range []string{badData, execution, queryTimedOut, canceled, unavailable, notFound} {
		x.errors[kind] = refused.WithLabelValues(kind)
	}
	usage := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	return x, errors.Join(
		reg.Register(refused), reg.Register(told), reg.Register(x.failures), reg.Register(x.ruleFailures), reg.Register(x.took),
		reg.Register(usage("headway_monitor_series", "Time series that the embedded monitor holds.", func() float64 {
			n, _, _ := m.store.Usage()
			return float64(n)
		})),
		reg.Register(usage("headway_monitor_bytes", "Bytes of samples that the embedded monitor holds.", func() float64 {
			_, b, _ := m.store.Usage()
			return float64(b)
		})),
		reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "headway_monitor_samples_refused_total", Help: "Samples of series beyond the most that the embedded monitor holds.",
		}, func() float64 {
			_, _, refused := m.store.Usage()
			return float64(refused)
		})),
	)
}

func (x *metrics) refused(kind string) {
	if c := x.errors[kind]; c != nil {
		c.Inc()
	}
}

// formatValue writes a value as Prometheus does in alerts.
func formatValue(v float64) string { return strconv.FormatFloat(v, 'e', -1, 64) }

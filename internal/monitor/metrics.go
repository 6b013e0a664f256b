package monitor

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/history"
)

type metrics struct {
	scrapeFailures, ruleFailures prometheus.Counter

	took    prometheus.Gauge
	refused map[string]prometheus.Counter // by the kind of error
}

func newMetrics(registerer prometheus.Registerer, store *history.Store) *metrics {
	with := promauto.With(registerer)
	refused := with.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_monitor_query_errors_total", Help: "Queries of the embedded monitor that got an error, by its type.",
	}, []string{"type"})
	x := &metrics{
		scrapeFailures: with.NewCounter(prometheus.CounterOpts{
			Name: "headway_monitor_scrape_failures_total", Help: "Scrapes of the embedded monitor that got not all metrics.",
		}),
		ruleFailures: with.NewCounter(prometheus.CounterOpts{
			Name: "headway_monitor_rule_load_failures_total", Help: "Times that the rule file changed and could not be used.",
		}),
		took: with.NewGauge(prometheus.GaugeOpts{
			Name: "headway_monitor_step_seconds", Help: "Time that the last scrape and the evaluation of the rules took.",
		}),
		refused: map[string]prometheus.Counter{},
	}
	for kind := range statuses {
		x.refused[kind] = refused.WithLabelValues(kind)
	}
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_monitor_series", Help: "Time series that the embedded monitor holds.",
	}, func() float64 { n, _, _ := store.Usage(); return float64(n) })
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_monitor_bytes", Help: "Bytes of samples that the embedded monitor holds.",
	}, func() float64 { _, b, _ := store.Usage(); return float64(b) })
	with.NewCounterFunc(prometheus.CounterOpts{
		Name: "headway_monitor_samples_refused_total", Help: "Samples of series beyond the most that the embedded monitor holds.",
	}, func() float64 { _, _, refused := store.Usage(); return float64(refused) })
	return x
}

// formatValue writes a value as Prometheus does in alerts.
func formatValue(v float64) string { return strconv.FormatFloat(v, 'e', -1, 64) }

package decisionlog

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	records   prometheus.Counter
	failed    prometheus.Counter
	unawaited prometheus.Counter
	disk      prometheus.Gauge
	drops     map[string]prometheus.Counter
}

func newMetrics(r prometheus.Registerer, l *Log) *metrics {
	m := &metrics{
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_decision_log_records_total", Help: "Decisions written to the decision log.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_decision_log_write_failures_total", Help: "Times that a part of the decision log could not be written to its files.",
		}),
		unawaited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_decision_log_unawaited_total", Help: "Decisions that were written to the decision log without their outcome as their reservation ended, since too many waited for one: a later outcome is not in it.",
		}),
		disk: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headway_decision_log_disk_bytes", Help: "Size of the files of the decision log.",
		}),
		drops: map[string]prometheus.Counter{},
	}
	drops := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_decision_log_dropped_total", Help: "Decisions that were to be in the decision log and are not: too many were under way (open), or too many ended at once (queue).",
	}, []string{"reason"})
	for _, reason := range []string{"open", "queue"} {
		m.drops[reason] = drops.WithLabelValues(reason)
	}
	memory := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_decision_log_memory_bytes", Help: "Size of the decision log in memory.",
	}, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(l.memory.bytes) + float64(len(l.memory.lines))
	})
	r.MustRegister(m.records, m.failed, m.unawaited, m.disk, drops, memory)
	return m
}

func (m *metrics) dropped(reason string) { m.drops[reason].Inc() }

package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/admission"
	"headway/internal/routing"
)

// waiting is the collector of what waits, by the model types of the fleet: of these
// alone, so that no caller makes a series.
type waiting struct {
	desc      *prometheus.Desc
	fleet     routing.Fleet
	admission *admission.Admission
}

func newWaiting(f routing.Fleet, a *admission.Admission) *waiting {
	return &waiting{prometheus.NewDesc("headway_admission_waiting_by_model",
		"Requests of the data plane that wait for a place, by model type.", []string{"model_type"}, nil), f, a}
}

// Describe implements prometheus.Collector.
func (w *waiting) Describe(ch chan<- *prometheus.Desc) { ch <- w.desc }

// Collect implements prometheus.Collector.
func (w *waiting) Collect(ch chan<- prometheus.Metric) {
	n := w.admission.Waiting()
	for model := range w.fleet.Snapshot().Pools {
		ch <- prometheus.MustNewConstMetric(w.desc, prometheus.GaugeValue, float64(n[model]), model)
	}
}

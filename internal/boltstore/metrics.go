package boltstore

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/feed"
	"headway/internal/policy"
)

// The operations that metrics tell apart.
const (
	opLoad        = "load"
	opSave        = "save"
	opGrantEpochs = "grant_epochs"
	opWatch       = "watch"
)

// metrics count the calls of heads, policies and keys alike.
type metrics struct {
	seconds *prometheus.HistogramVec
	errors  *prometheus.CounterVec
}

// newMetrics registers the metrics; nil: nowhere.
func newMetrics(to prometheus.Registerer) *metrics {
	m := &metrics{
		seconds: promauto.With(to).NewHistogramVec(prometheus.HistogramOpts{
			Name: "headway_store_duration_seconds", Help: "Time that calls of the state store took, by operation.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"operation"}),
		errors: promauto.With(to).NewCounterVec(prometheus.CounterOpts{
			Name: "headway_store_errors_total", Help: "Failed calls of the state store, by operation.",
		}, []string{"operation"}),
	}
	for _, operation := range []string{opLoad, opSave, opGrantEpochs, opWatch} {
		m.seconds.WithLabelValues(operation)
		m.errors.WithLabelValues(operation)
	}
	return m
}

// ended counts a call that has ended. A conflict is no failure of the store.
func (m *metrics) ended(operation string, begin time.Time, err error) {
	m.seconds.WithLabelValues(operation).Observe(time.Since(begin).Seconds())
	if err != nil && !conflict(err) {
		m.errors.WithLabelValues(operation).Inc()
	}
}

func conflict(err error) bool {
	return errors.Is(err, feed.ErrConflict) || errors.Is(err, policy.ErrConflict)
}

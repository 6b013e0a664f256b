package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/upstream"
)

type metrics struct {
	retries     prometheus.Counter
	budgetSpent prometheus.Counter
	cut         prometheus.Counter
	calls       calls
}

// calls counts the exchanges with heads by how they ended.
type calls struct {
	byStatus [600]prometheus.Counter
	byKind   map[upstream.Kind]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		retries: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_proxy_retries_total", Help: "Further attempts of proxied requests at another head.",
		}),
		budgetSpent: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_proxy_retries_refused_total", Help: "Failed attempts that no other followed because the retry budget was used up.",
		}),
		cut: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_proxy_answers_cut_total", Help: "Answers that a head broke off after their first content, and that were cut.",
		}),
	}
	return m
}

func (c *calls) failed(upstream.Kind) {}

func (c *calls) answered(int) {}

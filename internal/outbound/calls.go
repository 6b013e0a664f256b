package outbound

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Calls counts the calls to external services.
type Calls struct{ ACME, Alertmanager, NATS, OIDC, Redis, Webhook *Counter }

// Counter counts the calls to one service. A nil one counts nothing.
type Counter struct{ success, failure prometheus.Counter }

// NewCalls makes the counters of all services, so that a rate includes the
// first error.
func NewCalls(metrics prometheus.Registerer) *Calls {
	vec := promauto.With(metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "external_service_calls_total",
		Help: "Calls to services outside of this process, by service and status: requests to acme, alertmanager, oidc and webhook, batches of records to an external redis, connections to an external nats. What is embedded does not count.",
	}, []string{"service", "status"})
	of := func(service string) *Counter {
		return &Counter{vec.WithLabelValues(service, "success"), vec.WithLabelValues(service, "error")}
	}
	return &Calls{of("acme"), of("alertmanager"), of("nats"), of("oidc"), of("redis"), of("webhook")}
}

// Add counts one call.
func (c *Counter) Add(success bool) {
	switch {
	case c == nil:
	case success:
		c.success.Inc()
	default:
		c.failure.Inc()
	}
}

package outbound

import (
	"github.com/prometheus/client_golang/prometheus"
)

// services are the labels of external services.
var services = []string{"acme", "alertmanager", "nats", "oidc", "redis", "webhook"}

// Calls counts the calls to external services.
type Calls struct{ of map[string]*Counter }

// Counter counts the calls to one service. A nil one counts nothing.
type Counter struct{ success, failure prometheus.Counter }

// NewCalls makes the counters of all services, so that a rate includes the
// first error.
func NewCalls(metrics prometheus.Registerer) (*Calls, error) {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "external_service_calls_total",
		Help: "Calls to services outside of this process, by service and status: requests to acme, alertmanager, oidc and webhook, batches of records to an external redis, connections to an external nats. What is embedded does not count.",
	}, []string{"service", "status"})
	c := &Calls{of: map[string]*Counter{}}
	for _, s := range services {
		c.of[s] = &Counter{vec.WithLabelValues(s, "success"), vec.WithLabelValues(s, "error")}
	}
	return c, metrics.Register(vec)
}

// Of is the counter of a service.
func (c *Calls) Of(service string) *Counter { return c.of[service] }

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

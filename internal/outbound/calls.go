package outbound

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Calls counts the calls to external services.
type Calls struct {
	ACME, Alertmanager, DNS, HeadProbe, NATS, OIDC, OTLP, Redis, Webhook *Counter

	Head *HeadCounter
}

// HeadStatus is how the call of a head ended.
type HeadStatus int

// The statuses of calls of heads: a closed list.
const (
	HeadSuccess   HeadStatus = iota // the whole answer came
	HeadError                       // the head failed, or could not be reached
	HeadRejected                    // it answered 4xx: to what was asked, or because it is full
	HeadCancelled                   // the caller left
	headStatuses
)

func (s HeadStatus) String() string {
	return [...]string{"success", "error", "rejected", "cancelled"}[s]
}

// HeadCounter counts the calls of heads. A nil one counts nothing.
type HeadCounter [headStatuses]prometheus.Counter

// Add counts one call.
func (c *HeadCounter) Add(s HeadStatus) {
	if c != nil {
		c[s].Inc()
	}
}

// Counter counts the calls to one service. A nil one counts nothing.
type Counter struct{ success, failure prometheus.Counter }

// NewCalls makes the counters of all services, so that a rate includes the
// first error.
func NewCalls(metrics prometheus.Registerer) *Calls {
	vec := promauto.With(metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "external_service_calls_total",
		Help: "Calls to services outside of this process, by service and status: requests to acme, alertmanager, oidc, otlp and webhook, lookups of discovery (dns), probes of the heads that the service itself registers (head_probe), batches of records to an external redis, connections to an external nats, and requests to a head (status rejected: it answered 4xx; cancelled: the caller left). What is embedded does not count.",
	}, []string{"service", "status"})
	of := func(service string) *Counter {
		return &Counter{vec.WithLabelValues(service, "success"), vec.WithLabelValues(service, "error")}
	}
	heads := new(HeadCounter)
	for s := range headStatuses {
		heads[s] = vec.WithLabelValues("head", s.String())
	}
	return &Calls{of("acme"), of("alertmanager"), of("dns"), of("head_probe"), of("nats"), of("oidc"), of("otlp"), of("redis"), of("webhook"), heads}
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

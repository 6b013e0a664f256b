package app

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/address"
	"headway/internal/monitor"
	"headway/internal/outbound"
)

// schedLatency adds the time that goroutines wait for a processor, which shows
// that the machine is too small before anything else does.
var schedLatency = regexp.MustCompile(`^/sched/latencies:seconds$`)

// The label values of message_queue_messages_total, a closed list.
var (
	queues = []string{
		"heads.register", "heads.status", "decisions.request", "decisions.outcome",
		"events", "audit", "dead_letters",
	}
	queueStatuses = []string{
		"published", "publish_failed", "received", "processed", "failed", "retried",
		"duplicate", "invalid", "dropped", "dead_lettered",
	}
)

// services are what the process calls, as external_service_calls_total has them.
var services = []string{"acme", monitor.Alertmanager, "nats", "oidc", "redis", "webhook"}

// outside counts the traffic with what is not of this process.
type outside struct {
	messages map[string]prometheus.Counter // by queue and status
	calls    *prometheus.CounterVec        // by service and status
}

// registerOutside registers the counters of traffic with the message queue and
// with external services. Every series exists from the first scrape on, since
// a rate over a series that appears with its first error misses that error.
func registerOutside(metrics prometheus.Registerer) (*outside, error) {
	messages := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "message_queue_messages_total",
		Help: "Messages of the message queue, by queue and status.",
	}, []string{"queue", "status"})
	o := &outside{messages: map[string]prometheus.Counter{}}
	for _, q := range queues {
		for _, s := range queueStatuses {
			o.messages[q+" "+s] = messages.WithLabelValues(q, s)
		}
	}
	o.calls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "external_service_calls_total",
		Help: "Calls to services outside of this process, by service and status: requests to acme, alertmanager, oidc and webhook, batches of records to an external redis, connections to an external nats. What is embedded does not count.",
	}, []string{"service", "status"})
	for _, service := range services {
		for _, status := range []string{"success", "error"} {
			o.calls.WithLabelValues(service, status)
		}
	}
	return o, errors.Join(metrics.Register(messages), metrics.Register(o.calls))
}

// counts is what counts the calls of a service by status.
func (o *outside) counts(service string) func(status string) {
	return func(status string) { o.calls.WithLabelValues(service, status).Inc() }
}

// client is for HTTP to a service, whose requests it counts.
func (a *App) client(service string, timeout time.Duration) *http.Client {
	c := outbound.NewClient(outbound.Options{Timeout: timeout, Count: a.outside.counts(service)})
	a.stops = append(a.stops, func() error { c.CloseIdleConnections(); return nil })
	return c
}

// message counts n messages of a queue.
func (o *outside) message(queue, status string, n uint64) {
	if c := o.messages[queue+" "+status]; c != nil {
		c.Add(float64(n))
	}
}

// mayCall refuses servers of a setting that must not be called. They may be
// private, since the operator names them, and no service of this kind has a
// link-local address. What a name resolves to, and what such a server names
// besides itself, is checked when it is dialed.
func mayCall(setting string, servers ...string) error {
	for _, server := range servers {
		u, err := url.Parse(strings.TrimSpace(server))
		if err != nil { // the configuration has checked it
			return fmt.Errorf("%s is not a URL", setting)
		}
		if wrong := address.CheckHost(u.Hostname(), false, ""); wrong != "" {
			return fmt.Errorf("%s %s", setting, wrong)
		}
	}
	return nil
}

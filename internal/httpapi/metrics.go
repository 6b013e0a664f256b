package httpapi

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/api"
)

// otherLabel is the endpoint of requests that match no route, and the method
// of those that have no standard one.
const otherLabel = "other"

// refusals are the codes that headway_http_requests_refused_total has: what is
// wrong with a request by itself, independent of the state of the fleet.
var refusals = []string{
	api.CodeForeignHost, api.CodeCrossOrigin, api.CodeTooLarge, api.CodeUnsupportedMedia,
	api.CodeRequestTimeout, api.CodeInvalidJSON, api.CodeInvalid, api.CodeForbidden, api.CodeOverrideNotAllowed,
}

// latencyBuckets reach from a decision to the longest answer, in seconds.
var latencyBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

type metrics struct {
	requests           *prometheus.CounterVec
	duration           prometheus.Histogram
	byEndpoint         *prometheus.HistogramVec
	panics             prometheus.Counter
	connections        atomic.Int64 // open
	connectionsRefused prometheus.Counter
	acceptErrors       prometheus.Counter
	handshakesFailed   prometheus.Counter
	refusals           map[string]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "http_requests_total",
			Help: "HTTP requests by method, endpoint (the route's template, other if none matches) and status. 499 is a client that left.",
		}, []string{"method", "endpoint", "status"}),
		duration: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "http_request_duration_seconds", Help: "Time from the request's header to the end of the answer; of streams, to its header; of what heads answer, the part that the service itself took.",
			Buckets: latencyBuckets,
		}),
		byEndpoint: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headway_http_request_duration_seconds", Help: "http_request_duration_seconds by endpoint.",
			Buckets: latencyBuckets,
		}, []string{"endpoint"}),
		panics: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_http_panics_total", Help: "Requests whose handler met a bug and panicked.",
		}),
		connectionsRefused: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_http_connections_refused_total", Help: "Connections closed at once because http.max_connections were open.",
		}),
		acceptErrors: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_http_accept_errors_total", Help: "Times that no connection could be accepted, as when no file descriptors are left.",
		}),
		handshakesFailed: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_tls_handshake_failures_total", Help: "HTTP connections whose TLS handshake failed or took too long, and those that came without TLS.",
		}),
		refusals: map[string]prometheus.Counter{},
	}
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_http_connections", Help: "Open HTTP connections.",
	}, func() float64 { return float64(m.connections.Load()) })
	refused := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_http_requests_refused_total", Help: "Requests refused for what they are, independent of the state of the fleet, by the code of the problem.",
	}, []string{"reason"})
	for _, code := range refusals {
		m.refusals[code] = refused.WithLabelValues(code)
	}
	return m
}

// refused counts a request that was answered with a problem, if it is one of
// the refusals.
func (m *metrics) refused(code string) {
	if c := m.refusals[code]; c != nil {
		c.Inc()
	}
}

// lastStatus is the highest status that HTTP has.
const lastStatus = 599

// counters are the held children of a route: looking one up by its labels for
// each request would cost a tenth of a decision.
type counters struct {
	endpoint string
	duration prometheus.Observer
	byStatus [lastStatus + 1]atomic.Pointer[prometheus.Counter]
}

// hold makes a route's series, so that they exist from the first scrape on.
func (m *metrics) hold(rt *route) {
	rt.counted.endpoint = rt.pattern
	if rt.pattern == indexPattern {
		rt.counted.endpoint = "/"
	}
	rt.counted.duration = m.byEndpoint.WithLabelValues(rt.counted.endpoint)
	if rt.success != 0 {
		m.child(rt, rt.success)
	}
}

func (m *metrics) child(rt *route, status int) prometheus.Counter {
	if c := rt.counted.byStatus[status].Load(); c != nil {
		return *c
	}
	c := m.requests.WithLabelValues(rt.method, rt.counted.endpoint, strconv.Itoa(status))
	rt.counted.byStatus[status].Store(&c)
	return c
}

// answered counts and times one answer.
func (m *metrics) answered(rt *route, method string, status int, took time.Duration) {
	m.duration.Observe(took.Seconds())
	rt.counted.duration.Observe(took.Seconds())
	if rt.method == method && status <= lastStatus {
		m.child(rt, status).Inc()
		return
	}
	m.requests.WithLabelValues(knownMethod(method), rt.counted.endpoint, strconv.Itoa(status)).Inc()
}

// other counts an answer that net/http made itself.
func (m *metrics) other(status int) {
	m.requests.WithLabelValues(otherLabel, otherLabel, strconv.Itoa(status)).Inc()
}

func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method
	}
	return otherLabel
}

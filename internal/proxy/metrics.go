package proxy

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/openai"
	"headway/internal/outbound"
	"headway/internal/routing"
	"headway/internal/upstream"
)

// maxModels bounds the model types that have series of their own. They are those
// of registered heads, never what a caller asked for.
const maxModels = 100

// otherModel is the label of the model types beyond the bound.
const otherModel = "other"

// Buckets in seconds: of prompts of a few tokens and of hundreds of thousands, of
// tokens on fast and on crowded accelerators, and of what the service itself takes.
var (
	firstTokenBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
	intervalBuckets   = []float64{.001, .0025, .005, .01, .02, .03, .04, .05, .075, .1, .15, .25, .5, 1, 2.5, 10}
	overheadBuckets   = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
	durationBuckets   = []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600}
)

type metrics struct {
	retries     prometheus.Counter
	budgetSpent prometheus.Counter
	cut         prometheus.Counter
	overhead    prometheus.Histogram
	duration    prometheus.Histogram
	calls       *outbound.HeadCounter
	failures    map[string]prometheus.Counter

	firstToken, interval *prometheus.HistogramVec
	tokens               *prometheus.CounterVec
	models               atomic.Pointer[map[string]*modelMetrics]
	mu                   sync.Mutex // guards the making of models
}

// modelMetrics are the held children of one model type.
type modelMetrics struct {
	firstToken, interval  prometheus.Observer
	input, output, cached prometheus.Counter // as heads reported them
	estimatedInput        prometheus.Counter
	estimatedOutput       prometheus.Counter
}

// The reasons of headway_proxy_call_failures_total beside the kinds of upstream.
const (
	reasonStatus4xx    = "status_4xx"
	reasonStatus429    = "status_429"
	reasonStatus5xx    = "status_5xx"
	reasonUnauthorized = "unauthorized"
	reasonRedirect     = "redirect"
	reasonErrorInside  = "error_in_answer"
)

func newMetrics(reg prometheus.Registerer, calls *outbound.HeadCounter) *metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
	}
	m := &metrics{
		calls:       calls,
		retries:     counter("headway_proxy_retries_total", "Further attempts of proxied requests at another head."),
		budgetSpent: counter("headway_proxy_retries_refused_total", "Failed attempts that no other followed because the retry budget was used up."),
		cut:         counter("headway_proxy_answers_cut_total", "Answers that a head broke off after their first content, and that were cut."),
		overhead: auto.NewHistogram(histogram("headway_proxy_overhead_seconds",
			"Time from a proxied request to the header of its answer, without waiting for heads or for a place at one.", overheadBuckets)),
		duration: auto.NewHistogram(histogram("headway_proxy_request_duration_seconds",
			"Time from a proxied request to the end of its answer, all of a stream included.", durationBuckets)),
		firstToken: auto.NewHistogramVec(histogram("headway_proxy_first_token_seconds",
			"Time from a proxied request to the first content of its stream, waiting and failed attempts included, by the head's model type.", firstTokenBuckets), []string{"model_type"}),
		interval: auto.NewHistogramVec(histogram("headway_proxy_token_interval_seconds",
			"Time between two events with content of a stream. Most engines send one token in each.", intervalBuckets), []string{"model_type"}),
		tokens: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "headway_proxy_tokens_total", Help: "Tokens of proxied requests by the head's model type and kind: input, of which some were cached, and output; source says whether a head reported or the service estimated them.",
		}, []string{"model_type", "kind", "source"}),
		failures: map[string]prometheus.Counter{},
	}
	failures := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_proxy_call_failures_total",
		Help: "Calls of heads that brought no good answer, by reason: what upstream found, a status, or an error within an answer.",
	}, []string{"reason"})
	reasons := []string{reasonStatus4xx, reasonStatus429, reasonStatus5xx, reasonUnauthorized, reasonRedirect, reasonErrorInside}
	for _, k := range upstream.Kinds() {
		reasons = append(reasons, string(k))
	}
	for _, reason := range reasons {
		m.failures[reason] = failures.WithLabelValues(reason)
	}
	m.models.Store(&map[string]*modelMetrics{})
	m.model(otherModel)
	return m
}

// model returns where to count a model type. The map is replaced and never changed,
// so that reading it takes no lock.
func (m *metrics) model(name string) *modelMetrics {
	if of := (*m.models.Load())[name]; of != nil {
		return of
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.models.Load()
	if of := old[name]; of != nil {
		return of
	}
	if len(old) > maxModels {
		return old[otherModel]
	}
	next := maps.Clone(old)
	tokens := func(kind, source string) prometheus.Counter { return m.tokens.WithLabelValues(name, kind, source) }
	next[name] = &modelMetrics{
		m.firstToken.WithLabelValues(name), m.interval.WithLabelValues(name),
		tokens("input", "reported"), tokens("output", "reported"), tokens("cached", "reported"), tokens("input", "estimated"), tokens("output", "estimated"),
	}
	m.models.Store(&next)
	return next[name]
}

// used counts the tokens of an attempt: those that its head reported, and the
// estimates in the place of others.
func (m *modelMetrics) used(reported openai.Usage, o *routing.Outcome) {
	input, output := m.input, m.output
	if reported.Input < 0 {
		input = m.estimatedInput
	}
	if reported.Output < 0 {
		output = m.estimatedOutput
	}
	input.Add(float64(max(o.InputTokens, 0)))
	output.Add(float64(max(o.OutputTokens, 0)))
	m.cached.Add(float64(max(o.CachedTokens, 0)))
}

// failing notes why the call of a head brings no good answer.
func (a *attempt) failing(reason string) {
	a.fault = reason
	a.x.proxy.metrics.failures[reason].Inc()
}

// failingStatus notes a status that is no good answer.
func (a *attempt) failingStatus(status int) {
	switch {
	case status == 429:
		a.failing(reasonStatus429)
	case status == 401 || status == 407:
		a.failing(reasonUnauthorized)
	case status >= 500:
		a.failing(reasonStatus5xx)
	case status >= 400:
		a.failing(reasonStatus4xx)
	case status >= 300 || status < 200:
		a.failing(reasonRedirect)
	}
}

// called counts the end of a call of a head, and its tokens.
func (a *attempt) called(o *routing.Outcome) {
	o.Fault, o.Unhedged = a.fault, a.x.unhedged
	a.attempted(o)
	if a.recorded != nil {
		a.recorded(o)
		a.recorded = nil
	}
	m := a.x.proxy.metrics
	switch {
	case !a.dialed: // none was made
		return
	case o.Result == routing.ResultOK:
		m.calls.Add(outbound.HeadSuccess)
	case o.Result == routing.ResultCancelled:
		m.calls.Add(outbound.HeadCancelled)
	case o.StatusCode >= 400 && o.StatusCode < 500:
		m.calls.Add(outbound.HeadRejected)
	default:
		m.calls.Add(outbound.HeadError)
	}
	m.model(a.decision.ModelType).used(a.usage, o)
}

package routing

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// maxDecisionSeries bounds the series of routing_decisions_total; more
// combinations of strategy, model type and region count as other.
const maxDecisionSeries = 5000

// other stands for a label value that no head and no policy names, and for
// those beyond the bound.
const other = "other"

// strategyNone is the strategy of a decision that found no head.
const strategyNone = "none"

type decisionKey struct{ strategy, model, region string }

// metrics counts with held children: looking a child up by its labels costs
// more than the rest of a decision.
type metrics struct {
	decisions *prometheus.CounterVec
	children  atomic.Pointer[map[decisionKey]prometheus.Counter]
	mu        sync.Mutex // guards the making of children
	overflow  prometheus.Counter

	duration   prometheus.Histogram
	failures   map[Failure]prometheus.Counter
	outcomes   [ResultEvicted + 1]prometheus.Counter
	hits       prometheus.Counter
	misses     prometheus.Counter
	candidates lookups
	sessions   lookups
	strategies map[string]*strategyStats
}

type lookups struct{ hit, miss prometheus.Counter }

// strategyStats is how well a strategy did since the start.
type strategyStats struct {
	decisions atomic.Uint64
	results   [ResultEvicted + 1]atomic.Uint64
	ttfts     atomic.Uint64 // number of reported times to the first token
	ttftMs    atomic.Uint64 // their sum, in whole ms
}

// StrategyStat is how well a strategy did since the start of the process.
type StrategyStat struct {
	Decisions, OK, Errors, Cancelled, Expired uint64
	MeanTTFT                                  float64 // ms, NaN when none was reported
}

func newMetrics(reg prometheus.Registerer, r *Router) (*metrics, error) {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "routing_decisions_total",
			Help: "Routing decisions by the strategy that chose, the model type and the region of the chosen head. Decisions that found no head have strategy=\"none\" and the region that was asked for; a model type or region that no head and no policy names is \"other\".",
		}, []string{"strategy", "model_type", "region"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "headway_decision_duration_seconds",
			Help:    "Time from the start of a decision to its reservation, without HTTP.",
			Buckets: []float64{5e-7, 1e-6, 2e-6, 4e-6, 8e-6, 16e-6, 64e-6, 256e-6, 1e-3, 4e-3, 16e-3},
		}),
		failures:   map[Failure]prometheus.Counter{},
		strategies: map[string]*strategyStats{},
	}
	cs := []prometheus.Collector{m.decisions, m.duration}
	counter := func(name, help string, labels prometheus.Labels) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
		cs = append(cs, c)
		return c
	}
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) {
		cs = append(cs, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
	}
	m.overflow = counter("headway_decision_label_overflow_total",
		"Decisions counted under model_type and region \"other\" because routing_decisions_total has as many series as it may have.", nil)
	for _, f := range Failures() {
		m.failures[f] = counter("headway_decision_failures_total", "Decisions that found no head, by reason.",
			prometheus.Labels{"reason": string(f)})
	}
	for res := ResultOK; res <= ResultEvicted; res++ {
		m.outcomes[res] = counter("headway_decision_outcomes_total",
			"Reservations that ended, by result; expired ones had no outcome within their time, evicted ones made room for newer decisions.",
			prometheus.Labels{"result": res.String()})
	}
	m.hits = counter("cache_hits_total", "Look-ups of the routing cache that found a valid entry: candidates of a set of criteria, or the head of a session.", nil)
	m.misses = counter("cache_misses_total", "Look-ups of the routing cache that found none, or one that a change of a head or of the policy had made invalid.", nil)
	for name, l := range map[string]*lookups{"candidates": &m.candidates, "sessions": &m.sessions} {
		const n, help = "headway_cache_lookups_total", "Look-ups of the routing cache, by cache and result."
		l.hit = counter(n, help, prometheus.Labels{"cache": name, "result": "hit"})
		l.miss = counter(n, help, prometheus.Labels{"cache": name, "result": "miss"})
	}
	const entries, entriesHelp = "headway_cache_entries", "Entries of the routing cache; it holds at most 2,048 sets of candidates and 65,536 sessions."
	gauge(entries, entriesHelp, prometheus.Labels{"cache": "candidates"}, func() float64 { return float64(r.cache.entries.Load()) })
	gauge(entries, entriesHelp, prometheus.Labels{"cache": "sessions"}, func() float64 { return float64(r.sessions.count.Load()) })
	cs = append(cs, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "headway_cache_evictions_total", Help: "Sets of candidates that were forgotten to make room for others.",
	}, func() float64 { return float64(r.cache.evictions.Load()) }))
	gauge("headway_reservations_open", "Reservations that have neither an outcome nor expired.", nil, func() float64 { return float64(r.Open()) })
	gauge("headway_policy_revision", "Revision of the policy in force; 0 is the default in the binary.", nil, func() float64 { return float64(r.Policy().Revision) })

	m.children.Store(&map[decisionKey]prometheus.Counter{})
	m.child(decisionKey{strategyNone, other, other})
	for _, spec := range specs {
		m.child(decisionKey{spec.Name, other, other})
		m.strategies[spec.Name] = new(strategyStats)
	}
	var errs []error
	for _, c := range cs {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// child returns the counter of key, and other's once there are as many as may
// be. The map is replaced, never changed, so that reading it takes no lock.
func (m *metrics) child(key decisionKey) prometheus.Counter {
	if c := (*m.children.Load())[key]; c != nil {
		return c
	}
	if old := *m.children.Load(); len(old) >= maxDecisionSeries {
		m.overflow.Inc()
		return old[decisionKey{key.strategy, other, other}]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.children.Load()
	if c := old[key]; c != nil {
		return c
	}
	next := make(map[decisionKey]prometheus.Counter, len(old)+1)
	for k, c := range old {
		next[k] = c
	}
	c := m.decisions.WithLabelValues(key.strategy, key.model, key.region)
	next[key] = c
	m.children.Store(&next)
	return c
}

func (m *metrics) lookup(l *lookups, hit bool) {
	if hit {
		m.hits.Inc()
		l.hit.Inc()
	} else {
		m.misses.Inc()
		l.miss.Inc()
	}
}

func (m *metrics) decided(d *Decision) *strategyStats {
	m.child(decisionKey{d.Strategy, d.ModelType, d.Head.Region}).Inc()
	s := m.strategies[d.Strategy]
	s.decisions.Add(1)
	return s
}

// failed counts a decision that found no head; model and region are canonical
// or "".
func (m *metrics) failed(f Failure, model, region string) {
	if model == "" {
		model = other
	}
	if region == "" {
		region = other
	}
	m.failures[f].Inc()
	m.child(decisionKey{strategyNone, model, region}).Inc()
}

func (m *metrics) ended(d *Decision, o *Outcome) {
	m.outcomes[o.Result].Inc()
	d.stats.results[o.Result].Add(1)
	if o.TTFT > 0 {
		d.stats.ttfts.Add(1)
		d.stats.ttftMs.Add(uint64(o.TTFT + 0.5))
	}
}

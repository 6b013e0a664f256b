package routing

import (
	"cmp"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"

	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/strategy"
)

// maxDecisionSeries bounds the series of routing_decisions_total; beyond it model
// type and region count as other.
const maxDecisionSeries = 5000

// other is the label of a value that no head and no policy names, and of those
// beyond the bound.
const other = "other"

// strategyNone is the strategy of a decision that found no head.
const strategyNone = "none"

type decisionKey struct{ strategy, model, region string }

// metrics counts with held children: a look-up by labels costs more than the rest
// of a decision.
type metrics struct {
	router    *Router
	decisions *prometheus.Desc
	tallies   atomic.Pointer[map[decisionKey]*tally]
	mu        sync.Mutex // guards the making of tallies
	ordered   []*tally   // as the library sorts metrics; replaced, never changed
	overflow  prometheus.Counter

	foreseen   atomic.Pointer[foreseen]
	duration   *durations
	failures   [FailTried]prometheus.Counter
	fallbacks  [FailTried + 1]prometheus.Counter // nil: never counted
	keyless    prometheus.Counter
	late       [ResultCancelled + 1]prometheus.Counter
	kept       prometheus.Counter
	astray     prometheus.Counter
	candidates lookups
	sessions   lookups
	strategies map[string]*strategyStats
}

// tally counts the decisions of one key. It is its own metric, with the labels made
// once: of thousands, they are half of a scrape.
type tally struct {
	decisionKey
	count  atomic.Uint64
	stats  *strategyStats // nil for the failed ones
	desc   *prometheus.Desc
	labels []*dto.LabelPair
}

// Desc implements prometheus.Metric.
func (t *tally) Desc() *prometheus.Desc { return t.desc }

// Write implements prometheus.Metric.
func (t *tally) Write(out *dto.Metric) error {
	out.Label, out.Counter = t.labels, &dto.Counter{Value: new(float64(t.count.Load()))}
	return nil
}

func (t *tally) compare(o *tally) int {
	return cmp.Or(cmp.Compare(t.model, o.model), cmp.Compare(t.region, o.region), cmp.Compare(t.strategy, o.strategy))
}

// lookups counts the look-ups of one cache.
type lookups struct{ hit, miss atomic.Uint64 }

func (l *lookups) count(hit bool) {
	if hit {
		l.hit.Add(1)
	} else {
		l.miss.Add(1)
	}
}

// strategyStats is how well a strategy did since the start.
type strategyStats struct {
	results [ResultEvicted + 1]atomic.Uint64
	refused atomic.Uint64 // requests
	ttfts   atomic.Uint64 // number of reported times to the first token
	ttftMs  atomic.Uint64 // their sum, in whole ms
}

// StrategyStat is how well a strategy did since the start of the process.
type StrategyStat struct {
	Decisions, OK, Errors, Cancelled, Expired uint64
	Refused                                   uint64  // requests that it refused; they are no decisions of it
	MeanTTFT                                  float64 // ms, NaN when none was reported
}

// StrategyStats is how well each strategy did since the start, by name.
func (r *Router) StrategyStats() map[string]StrategyStat {
	stats := make(map[string]StrategyStat, len(r.metrics.strategies))
	decisions := map[string]uint64{}
	for key, t := range *r.metrics.tallies.Load() {
		decisions[key.strategy] += t.count.Load()
	}
	for name, s := range r.metrics.strategies {
		stat := StrategyStat{
			Decisions: decisions[name],
			OK:        s.results[ResultOK].Load(), Errors: s.results[ResultError].Load(),
			Cancelled: s.results[ResultCancelled].Load(), Expired: s.results[ResultExpired].Load(),
			Refused: s.refused.Load(), MeanTTFT: math.NaN(),
		}
		if n := s.ttfts.Load(); n > 0 {
			stat.MeanTTFT = float64(s.ttftMs.Load()) / float64(n)
		}
		stats[name] = stat
	}
	return stats
}

func newMetrics(reg prometheus.Registerer, r *Router, sessions *strategy.Sessions) *metrics {
	m := &metrics{
		router: r,
		decisions: prometheus.NewDesc("routing_decisions_total",
			"Routing decisions by the strategy that chose, the model type and the region of the chosen head. Decisions that found no head have strategy=\"none\" and the region that was asked for; a model type or region that no head and no policy names is \"other\". What a strategy refused is not counted here but in headway_strategy_refused_total.",
			[]string{"strategy", "model_type", "region"}, nil),
		duration: newDurations("headway_decision_duration_seconds",
			"Time from the start of a decision to its reservation, without HTTP."),
		strategies: map[string]*strategyStats{},
	}
	reg.MustRegister(m, m.duration)
	of := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return of.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m.overflow = counter("headway_decision_label_overflow_total",
		"Decisions counted under model_type and region \"other\" because routing_decisions_total has as many series as it may have.")
	m.keyless = counter("headway_decisions_without_session_total",
		"Decisions by session_affinity for requests without a session key, which go by load instead.")
	m.astray = counter("headway_decisions_unknown_region_total",
		"Decisions that found a head for a request whose region no head and no policy knows: all regions count as equally far.")
	m.kept = counter("headway_reservations_kept_total",
		"Times that a reservation was kept although its time had run out, since its head reported that as many requests as are counted there still run.")
	late := of.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_decision_late_outcomes_total",
		Help: "Outcomes that came after their reservation had expired or was evicted, by result. They are among headway_decision_outcomes_total, which counted that end, too.",
	}, []string{"result"})
	for res := ResultOK; res <= ResultCancelled; res++ {
		m.late[res] = late.WithLabelValues(res.String())
	}
	failures := of.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_decision_failures_total",
		Help: "Decisions that found no head, by reason. unknown_model_type and unknown_region name what neither a head nor the policy knows, excluded and labels what the caller ruled out, objective_unreachable what the strategy slo refused; the rest is for the fleet to answer for.",
	}, []string{"reason"})
	for i, reason := range FailureReasons() {
		m.failures[int(FailUnknownModel)+i] = failures.WithLabelValues(reason)
	}
	fallbacks := of.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_decision_fallbacks_total",
		Help: "Decisions for another model type or region than requested, by the policy's fallbacks, by the reason why the requested one had no head; tried: each was tried before.",
	}, []string{"reason"})
	for _, f := range []Failure{FailNoHeads, FailRegion, FailUnroutable, FailLabels, FailExcluded, FailAtCapacity, FailPoolFull, FailPaused, FailObjective, FailTried} {
		m.fallbacks[f] = fallbacks.WithLabelValues(f.String())
	}
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) {
		of.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
	}
	gauge("headway_reservations_open", "Reservations that have neither an outcome nor expired.", nil, func() float64 { return float64(r.Open()) })
	gauge("headway_paused_heads", "Heads that asked for a pause by Retry-After, or by 429: the data plane sends them nothing meanwhile.", nil, func() float64 { return float64(r.paused()) })
	gauge("headway_policy_revision", "Revision of the policy in force; 0 is the default in the binary.", nil, func() float64 { return float64(r.Policy().Revision) })
	const entries = "Entries of the routing cache; it holds at most 2,048 sets of candidates and 65,536 sessions."
	gauge("headway_cache_entries", entries, prometheus.Labels{"cache": "candidates"}, func() float64 { return float64(r.cache.entries.Load()) })
	gauge("headway_cache_entries", entries, prometheus.Labels{"cache": "sessions"}, func() float64 { return float64(sessions.Len()) })

	m.tallies.Store(&map[decisionKey]*tally{})
	m.tally(decisionKey{strategyNone, other, other})
	for _, spec := range strategy.Specs() {
		m.strategies[spec.Name] = new(strategyStats)
		m.tally(decisionKey{spec.Name, other, other})
	}
	m.sums(of, r, sessions)
	return m
}

// sums makes the metrics that add up what is counted elsewhere.
func (m *metrics) sums(of promauto.Factory, r *Router, sessions *strategy.Sessions) {
	sum := func(name, help string, labels prometheus.Labels, counts ...*atomic.Uint64) {
		of.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() (sum float64) {
			for _, c := range counts {
				sum += float64(c.Load())
			}
			return sum
		})
	}
	c, s := &m.candidates, &m.sessions
	sum("cache_hits_total", "Look-ups of the routing cache that found a valid entry: candidates of a set of criteria, or the head of a session.", nil, &c.hit, &s.hit)
	sum("cache_misses_total", "Look-ups of the routing cache that found none, or one that a change of a head or of the policy had made invalid.", nil, &c.miss, &s.miss)
	for name, l := range map[string]*lookups{"candidates": c, "sessions": s} {
		const n, help = "headway_cache_lookups_total", "Look-ups of the routing cache, by cache and result."
		sum(n, help, prometheus.Labels{"cache": name, "result": "hit"}, &l.hit)
		sum(n, help, prometheus.Labels{"cache": name, "result": "miss"}, &l.miss)
	}
	sum("headway_cache_evictions_total", "Entries of the routing cache that were forgotten to make room for others: sets of candidates and sessions.", nil,
		&r.cache.evictions, &sessions.Evictions)
	for res := ResultOK; res <= ResultEvicted; res++ {
		var counts []*atomic.Uint64
		for _, stats := range m.strategies {
			counts = append(counts, &stats.results[res])
		}
		sum("headway_decision_outcomes_total", "Reservations that ended, by result; expired ones had no outcome within their time, evicted ones made room for newer decisions.",
			prometheus.Labels{"result": res.String()}, counts...)
	}
}

// tally returns where to count key, that of other beyond the bound. The map is
// replaced and never changed, so that reading it takes no lock.
func (m *metrics) tally(key decisionKey) *tally {
	if t := (*m.tallies.Load())[key]; t != nil {
		return t
	}
	if old := *m.tallies.Load(); len(old) >= maxDecisionSeries {
		m.overflow.Inc()
		return old[decisionKey{key.strategy, other, other}]
	}
	m.add(key)
	return (*m.tallies.Load())[key]
}

// add makes the tallies of keys that have none yet.
func (m *metrics) add(keys ...decisionKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.tallies.Load()
	next := make(map[decisionKey]*tally, len(old)+len(keys))
	maps.Copy(next, old)
	ordered := slices.Clone(m.ordered)
	for _, key := range keys {
		if next[key] != nil {
			continue
		}
		key.model, key.region = strings.Clone(key.model), strings.Clone(key.region) // of a request that is not kept
		next[key] = &tally{
			decisionKey: key,
			stats:       m.strategies[key.strategy],
			desc:        m.decisions,
			labels:      prometheus.MakeLabelPairs(m.decisions, []string{key.strategy, key.model, key.region}),
		}
		ordered = append(ordered, next[key])
	}
	slices.SortFunc(ordered, (*tally).compare)
	m.ordered = ordered
	m.tallies.Store(&next)
}

// maxForeseen bounds the series that are made before anything is counted there.
const maxForeseen = 2000

// foreseen is what the series of failures were made for last.
type foreseen struct {
	snapshot *fleet.Snapshot
	policy   *policy.Policy
}

// foresee makes the series of failures for the model types and regions that are
// known, so that a scrape has a 0 before the first: a rate does not see a series
// that begins at 1.
func (m *metrics) foresee(s *fleet.Snapshot, p *policy.Policy) {
	now := foreseen{s, p}
	if last := m.foreseen.Load(); last != nil && *last == now {
		return
	}
	m.foreseen.Store(&now)
	known := *m.tallies.Load()
	zeros := 0
	for key, t := range known {
		if key.strategy == strategyNone && t.count.Load() == 0 {
			zeros++
		}
	}
	var keys []decisionKey
	want := func(model, region string) {
		key := decisionKey{strategyNone, model, region}
		if known[key] == nil && zeros+len(keys) < maxForeseen && len(known)+len(keys) < maxDecisionSeries {
			keys = append(keys, key)
		}
	}
	regions := slices.Sorted(maps.Keys(s.Regions))
	for _, r := range slices.Sorted(p.Regions()) {
		if s.Regions[r] == 0 {
			regions = append(regions, r)
		}
	}
	models := slices.Sorted(maps.Keys(s.Pools))
	for _, name := range slices.Sorted(p.Models()) {
		if _, alias := p.Document.Aliases[name]; s.Pools[name] == nil && !alias {
			models = append(models, name)
		}
	}
	for _, model := range models {
		want(model, other)
	}
	for _, region := range regions {
		want(other, region)
		for _, model := range models {
			want(model, region)
		}
	}
	if len(keys) > 0 {
		m.add(keys...)
	}
}

// decided counts a decision. The set of candidates that it came from holds tallies,
// since a look-up by three names costs as much as all counting.
func (m *metrics) decided(set *candidates, d *Decision) *strategyStats {
	at := &set.tallies[tallyAt(d.Strategy, d.Head.Region)]
	t := at.Load()
	if t == nil || t.region != d.Head.Region || t.strategy != d.Strategy || t.model != d.ModelType {
		t = m.tally(decisionKey{d.Strategy, d.ModelType, d.Head.Region})
		at.Store(t)
	}
	t.count.Add(1)
	return t.stats
}

// tallyAt is a hash by the lengths of strategies and by the ends of regions, where
// names like eu-west-1 differ.
func tallyAt(strategy, region string) int {
	h := 5*len(strategy) + len(region)
	if region != "" {
		h += int(region[len(region)-1])
	}
	return h % heldTallies
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.decisions }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.foresee(m.router.o.Fleet.Snapshot(), m.router.Policy())
	m.mu.Lock()
	list := m.ordered
	m.mu.Unlock()
	for _, t := range list {
		ch <- t
	}
}

// noHead counts a decision that found no head. What a strategy refuses is an answer
// that the policy asks for, and no error of routing.
func (m *metrics) noHead(f Failure, model, region string) {
	m.failures[f].Inc()
	if f != FailObjective {
		m.tally(decisionKey{strategyNone, model, region}).count.Add(1)
	}
}

// ended counts the end of a reservation; late says that it had ended otherwise
// before.
func (m *metrics) ended(d *Decision, o *Outcome, late bool) {
	if late {
		m.late[o.Result].Inc()
	}
	d.stats.results[o.Result].Add(1)
	if ms, ok := o.FirstToken(); ok {
		d.stats.ttfts.Add(1)
		d.stats.ttftMs.Add(uint64(ms + 0.5))
	}
}

// durations is a histogram whose observation is two additions: bucket i counts
// the durations below 2^(i+firstBit) ns. The library's takes five, of which the
// sum is a loop, and doubles what a decision spends on counting.
type durations struct {
	desc    *prometheus.Desc
	buckets [16]atomic.Uint64 // the last has no upper bound
	sum     atomic.Uint64     // ns
}

// firstBit makes the first bucket's bound 512 ns and the last one's 8.4 ms.
const firstBit = 9

func newDurations(name, help string) *durations {
	return &durations{desc: prometheus.NewDesc(name, help, nil, nil)}
}

func (h *durations) observe(d time.Duration) {
	ns := uint64(max(d, 0))
	h.buckets[min(bits.Len64(ns>>firstBit), len(h.buckets)-1)].Add(1)
	h.sum.Add(ns)
}

// Describe implements prometheus.Collector.
func (h *durations) Describe(ch chan<- *prometheus.Desc) { ch <- h.desc }

// Collect implements prometheus.Collector.
func (h *durations) Collect(ch chan<- prometheus.Metric) {
	sum := h.sum.Load() // before the buckets: a mean is never above what was counted
	below := make(map[float64]uint64, len(h.buckets)-1)
	count := uint64(0)
	for i := range h.buckets {
		count += h.buckets[i].Load()
		if i < len(h.buckets)-1 {
			below[float64(uint64(1)<<(i+firstBit))/1e9] = count
		}
	}
	ch <- prometheus.MustNewConstHistogram(h.desc, count, float64(sum)/1e9, below)
}

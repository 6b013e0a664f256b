package registry

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/fleet"
)

// Reasons of headway_reports_dropped_total.
const (
	dropUnknownHead = "unknown_head"
	dropStaleEpoch  = "stale_epoch"
	dropOutOfOrder  = "out_of_order"
)

// maxNames bounds the model types, the regions and the pairs of both that
// metrics tell apart, maxSlots the heads of headway_head_in_flight.
const (
	maxNames = 1000
	maxSlots = 100
	other    = "other"
)

// remembered is how long a model type or region without heads keeps its series:
// as long as the alerts look back that tell of it.
const remembered = time.Hour

type metrics struct {
	registrations prometheus.Counter
	updates       prometheus.Counter
	removed       prometheus.Counter
	expirations   prometheus.Counter
	refused       prometheus.Counter
	dropped       map[string]prometheus.Counter
	inFlight      slots

	ejections        map[string]prometheus.Counter
	reinstatements   map[string]prometheus.Counter
	ejectionsRefused prometheus.Counter

	leftModels, leftRegions departures
	contested               map[string]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, r *Registry) (*metrics, error) {
	var cs []prometheus.Collector
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		cs = append(cs, c)
		return c
	}
	vec := func(name, help, label string, values ...string) map[string]prometheus.Counter {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		cs = append(cs, v)
		held := map[string]prometheus.Counter{}
		for _, value := range values {
			held[value] = v.WithLabelValues(value)
		}
		return held
	}
	m := &metrics{
		registrations: counter("head_registrations_total", "Head registrations, of new and of known ids."),
		updates:       counter("head_status_updates_total", "Status reports accepted from heads."),
		removed:       counter("headway_heads_removed_total", "Heads that deregistered or were removed after a long silence."),
		expirations:   counter("headway_lease_expirations_total", "Leases that ran out: the head takes no new requests until it reports again. Those of heads that were drained, in maintenance, or said that they drain or are offline do not count."),
		refused:       counter("headway_fleet_changes_refused_total", "Changes of heads refused because too many waited to be written."),
		dropped: vec("headway_reports_dropped_total", "Status reports whose load was not taken, by reason.", "reason",
			dropUnknownHead, dropStaleEpoch, dropOutOfOrder),
		ejections: vec("headway_ejections_total", "Heads that were taken out of rotation for failed requests, by reason.", "reason",
			ejectedForErrors, ejectedForShare, ejectedForTrial),
		reinstatements: vec("headway_reinstatements_total", "Ejections of heads that ended, by what ended them.", "reason",
			reinstatedByTrial, reinstatedByOperator, reinstatedByRegistration, reinstatedByPool, reinstatedBySilence),
		contested: vec("headway_heads_contested_total",
			"Registrations of an id from another endpoint than the one that holds its lease: refused, or taken over because they said so.", "outcome",
			contestRefused, contestTakenOver),
		ejectionsRefused: counter("headway_ejections_refused_total",
			"Times that a head at fault stayed in rotation because too many of its model types were ejected, or it was the last one."),

		leftModels: newDepartures(), leftRegions: newDepartures(),
	}
	cs = append(append(cs, r.gauges()...), newCollector(r, m))
	var errs []error
	for _, c := range cs {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// gauges are functions of what is known now.
func (r *Registry) gauges() (cs []prometheus.Collector) {
	gauge := func(name, help string, value func() float64) {
		cs = append(cs, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("active_heads", "Heads that take new requests: enabled, reporting active or degraded, with a lease that holds.",
		func() float64 { return float64(r.Snapshot().Active) })
	gauge("headway_held_heads", "Heads that take new requests though their lease ran out, since the mass-expiry guard holds them; active_heads leaves them out.",
		func() float64 { return float64(r.Ready().Held) })
	gauge("headway_flapping_heads", "Heads whose lease ran out more than twice in the last 15 minutes.",
		func() float64 { return float64(r.flapping()) })
	gauge("headway_fleet_guard_active", "Mass-expiry guards that hold heads now.", func() float64 {
		r.mu.Lock()
		defer r.mu.Unlock()
		return float64(len(r.guards))
	})
	gauge("headway_ejected_heads", "Heads that are out of rotation for failed requests now; not those that are drained or in maintenance as well.", func() float64 {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := 0
		for e := range r.ejected {
			if !e.head.Withdrawn() {
				n++
			}
		}
		return float64(n)
	})
	gauge("headway_heartbeat_interval_seconds", "Time between reports that heads are told, before jitter.", func() float64 {
		return r.interval(r.Snapshot().Heads).Seconds()
	})
	return cs
}

// slots hands out the places of the heads that headway_head_in_flight names.
type slots struct {
	mu    sync.Mutex
	heads [maxSlots]string // "": free
	taken int
}

// take returns a free slot, -1 if there is none.
func (s *slots) take(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == len(s.heads) {
		return -1
	}
	s.taken++
	i := slices.Index(s.heads[:], "")
	s.heads[i] = id
	return i
}

func (s *slots) give(slot int) {
	if slot >= 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heads[slot] = ""
		s.taken--
	}
}

// pair is a model type in a region.
type pair struct{ model, region string }

// collector derives gauges from the snapshot when somebody asks.
type collector struct {
	r       *Registry
	slots   *slots
	metrics *metrics

	mu      sync.Mutex
	models  named[string]
	regions named[string]
	pairs   named[pair]
	of      *fleet.Snapshot // that list is of
	list    []*fleet.Group
}

func newCollector(r *Registry, m *metrics) *collector {
	return &collector{
		r: r, slots: &m.inFlight, metrics: m,
		models: newNamed[string](maxNames, remembered), regions: newNamed[string](maxNames, remembered), pairs: newNamed[pair](maxNames, 0),
	}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	headsDesc = desc("headway_heads",
		"Registered heads by status, region and model type (a head that serves two counts in both). status is active or degraded for heads that take requests, else why they do not: pending, draining, offline, stale, ejected, maintenance; held ones take requests only because the mass-expiry guard keeps them. Pairs beyond 1,000 are summed as other.",
		"status", "region", "model_type")
	modelRegisteredDesc = desc("headway_model_registered_heads",
		"Registered heads by model type, 0 for an hour after the last unless that was deregistered or registered with others; model types beyond 1,000 are summed as other.", "model_type")
	modelRoutableDesc = desc("headway_model_routable_heads",
		"Heads that take requests by model type, held ones too; model types beyond 1,000 are summed as other.", "model_type")
	modelMissingDesc = desc("headway_model_missing_heads",
		"Heads that should take requests and do not, by model type: not those that drain by their own word or the operator's or are in maintenance, nor for 15 minutes those that have not reported since they registered for the first time, or with another model type or region. Heads that were lost, not deregistered, count as one for an hour or until a head takes requests; model types beyond 1,000 are summed as other.", "model_type")
	regionRegisteredDesc = desc("headway_region_registered_heads",
		"Registered heads by region, 0 for an hour after the last unless that was deregistered or registered with another; regions beyond 1,000 are summed as other.", "region")
	regionRoutableDesc = desc("headway_region_routable_heads",
		"Heads that take requests by region, held ones too; regions beyond 1,000 are summed as other.", "region")
	regionMissingDesc = desc("headway_region_missing_heads",
		"Heads that should take requests and do not, by region, as headway_model_missing_heads; regions beyond 1,000 are summed as other.", "region")
	inFlightDesc = desc("headway_head_in_flight",
		"Requests in flight by head, for the first 100 heads that registered; the rest is summed as other.", "head")
	ageDesc = desc("headway_signal_age_seconds",
		"Age of the last report of heads that take requests: the mean and the oldest. NaN when no such head has reported.", "stat")
	overflowDesc = desc("headway_label_overflow",
		"Model types, regions or pairs of both that are summed as other at this scrape, by metric.", "metric")
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		headsDesc, modelRegisteredDesc, modelRoutableDesc, modelMissingDesc, regionRegisteredDesc, regionRoutableDesc, regionMissingDesc,
		inFlightDesc, ageDesc, overflowDesc,
	} {
		ch <- d
	}
}

// state is the one word that says whether a head takes requests, or why not.
func state(h *fleet.Head) string {
	switch {
	case h.Admin == fleet.AdminMaintenance:
		return "maintenance"
	case h.Admin == fleet.AdminDraining || h.Status == fleet.StatusDraining:
		return "draining"
	case h.Health == fleet.HealthPending || h.Health == fleet.HealthStale || h.Health == fleet.HealthHeld || h.Health == fleet.HealthEjected:
		return h.Health.String()
	}
	return h.Status.String()
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.r.Snapshot()
	now := c.r.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s != c.of { // to sort them takes longer than to count their heads
		c.of, c.list = s, groups(s)
	}
	c.collectHeads(ch, now, c.list)
	c.collectRoutable(ch, now, c.list)
	collectAges(ch, now, c.list)
	c.collectInFlight(ch, s)
}

// groups lists the heads by model type and region, in the order of their names.
func groups(s *fleet.Snapshot) []*fleet.Group {
	var list []*fleet.Group
	for _, p := range s.Pools {
		for _, g := range p.Regions {
			list = append(list, g)
		}
	}
	slices.SortFunc(list, func(a, b *fleet.Group) int {
		return cmp.Or(strings.Compare(a.ModelType, b.ModelType), strings.Compare(a.Region, b.Region))
	})
	return list
}

func gaugeOf(ch chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

// collectHeads counts heads by state in each pair.
func (c *collector) collectHeads(ch chan<- prometheus.Metric, now time.Time, list []*fleet.Group) {
	present := make([]pair, 0, len(list))
	for _, g := range list {
		if p := (pair{g.ModelType, g.Region}); len(g.Heads) > 0 {
			present = append(present, p)
		}
	}
	gaugeOf(ch, overflowDesc, float64(c.pairs.update(now, present)), "headway_heads")
	show := func(p pair, counts []stateCount) {
		for _, n := range counts {
			gaugeOf(ch, headsDesc, float64(n.heads), n.state, p.region, p.model)
		}
	}
	sum := pair{other, other}
	var own, folded []stateCount
	for _, g := range list {
		own = own[:0]
		for _, h := range g.Heads {
			own = plus(own, stateCount{state(h), 1})
		}
		if p := (pair{g.ModelType, g.Region}); p != sum && c.pairs.has(p) {
			show(p, own)
			continue
		}
		for _, n := range own {
			folded = plus(folded, n)
		}
	}
	show(sum, folded)
}

// stateCount is how many heads are in a state. There are so few states that a
// list of them is faster than a map.
type stateCount struct {
	state string
	heads int
}

func plus(counts []stateCount, n stateCount) []stateCount {
	for i := range counts {
		if counts[i].state == n.state {
			counts[i].heads += n.heads
			return counts
		}
	}
	return append(counts, n)
}

// have is how many heads there are, how many of them take requests, and how many
// of the others should.
type have struct{ registered, routable, missing int }

func (a have) plus(h *fleet.Head, now time.Time) have {
	a.registered++
	switch {
	case h.Routable():
		a.routable++
	case !h.Withdrawn() && !loads(h, now):
		a.missing++
	}
	return a
}

func (a have) and(b have) have {
	return have{a.registered + b.registered, a.routable + b.routable, a.missing + b.missing}
}

// collectRoutable counts the heads of each model type and of each region.
func (c *collector) collectRoutable(ch chan<- prometheus.Metric, now time.Time, list []*fleet.Group) {
	models, regions := map[string]have{}, map[string]have{}
	for _, g := range list {
		for _, h := range g.Heads {
			models[g.ModelType] = models[g.ModelType].plus(h, now)
			if h.ModelTypes[0] == g.ModelType { // once, though it serves several
				regions[g.Region] = regions[g.Region].plus(h, now)
			}
		}
	}
	c.models.drop(c.metrics.leftModels.take(now, models))
	c.regions.drop(c.metrics.leftRegions.take(now, regions))
	each(ch, now, &c.models, models, "headway_model_routable_heads", modelRegisteredDesc, modelRoutableDesc, modelMissingDesc)
	each(ch, now, &c.regions, regions, "headway_region_routable_heads", regionRegisteredDesc, regionRoutableDesc, regionMissingDesc)
}

func each(ch chan<- prometheus.Metric, now time.Time, n *named[string], all map[string]have, metric string, registered, routable, missing *prometheus.Desc) {
	gaugeOf(ch, overflowDesc, float64(n.update(now, slices.Sorted(maps.Keys(all)))), metric)
	shown := map[string]have{}
	for name := range n.last {
		if _, there := all[name]; !there {
			shown[name] = have{missing: 1} // its heads went, and not on purpose
		}
	}
	for name, of := range all {
		if !n.has(name) {
			name = other
		}
		shown[name] = shown[name].and(of)
	}
	for name, of := range shown {
		gaugeOf(ch, registered, float64(of.registered), name)
		gaugeOf(ch, routable, float64(of.routable), name)
		gaugeOf(ch, missing, float64(of.missing), name)
	}
}

// collectAges looks how old the reports are that decisions rely on.
func collectAges(ch chan<- prometheus.Metric, now time.Time, list []*fleet.Group) {
	var ages, oldest time.Duration
	reported := 0
	for _, g := range list {
		for _, h := range g.Heads {
			if report := h.Live.Report(); report != nil && h.Routable() {
				age := now.Sub(report.At)
				ages += age
				oldest = max(oldest, age)
				reported++
			}
		}
	}
	mean := ages.Seconds() / float64(reported) // NaN without any
	high := oldest.Seconds()
	if reported == 0 {
		high = mean
	}
	gaugeOf(ch, ageDesc, mean, "mean")
	gaugeOf(ch, ageDesc, high, "max")
}

// collectInFlight tells of the heads that have slots, and of the others together.
func (c *collector) collectInFlight(ch chan<- prometheus.Metric, s *fleet.Snapshot) {
	c.slots.mu.Lock()
	named := make(map[string]bool, maxSlots)
	for _, id := range c.slots.heads {
		if id != "" {
			named[id] = true
		}
	}
	c.slots.mu.Unlock()
	rest := int64(0)
	for _, p := range s.Pools {
		for _, h := range p.All.Heads {
			switch {
			case h.ModelTypes[0] != p.ModelType: // counted with its first model type
			case named[h.ID] && h.ID != other: // a head of that name has no series beside the sum
				gaugeOf(ch, inFlightDesc, float64(h.Live.InFlight()), h.ID)
			default:
				rest += h.Live.InFlight()
			}
		}
	}
	gaugeOf(ch, inFlightDesc, float64(rest), other)
}

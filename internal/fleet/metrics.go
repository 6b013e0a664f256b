package fleet

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reasons of headway_reports_dropped_total.
const (
	dropUnknownHead = "unknown_head"
	dropStaleEpoch  = "stale_epoch"
	dropOutOfOrder  = "out_of_order"
)

// maxPairs bounds the (model type, region) pairs that headway_heads tells
// apart, maxSlots the heads of headway_head_in_flight.
const (
	maxPairs = 200
	maxSlots = 100
	other    = "other"
)

type metrics struct {
	registrations prometheus.Counter
	updates       prometheus.Counter
	removed       prometheus.Counter
	expirations   prometheus.Counter
	refused       prometheus.Counter
	dropped       map[string]prometheus.Counter
	storeTime     map[string]prometheus.Observer
	storeErrors   map[string]prometheus.Counter
	inFlight      slots
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
	gauge := func(name, help string, value func() float64) {
		cs = append(cs, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	operations := []string{"load", "save", "grant_epochs"}
	m := &metrics{
		registrations: counter("head_registrations_total", "Head registrations, of new and of known ids."),
		updates:       counter("head_status_updates_total", "Status reports accepted from heads."),
		removed:       counter("headway_heads_removed_total", "Heads that deregistered or were removed after a long silence."),
		expirations:   counter("headway_lease_expirations_total", "Leases that ran out: the head takes no new requests until it reports again."),
		refused:       counter("headway_fleet_changes_refused_total", "Changes of heads refused because too many waited to be written."),
		dropped: vec("headway_reports_dropped_total", "Status reports whose load was not taken, by reason.", "reason",
			dropUnknownHead, dropStaleEpoch, dropOutOfOrder),
		storeErrors: vec("headway_store_errors_total", "Failed calls of the state store, by operation.", "operation", operations...),
		storeTime:   map[string]prometheus.Observer{},
	}
	times := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "headway_store_duration_seconds", Help: "Time that calls of the state store took, by operation.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	}, []string{"operation"})
	cs = append(cs, times)
	for _, op := range operations {
		m.storeTime[op] = times.WithLabelValues(op)
	}
	gauge("active_heads", "Heads that take new requests: enabled, reporting active or degraded, with a lease that holds.",
		func() float64 { return float64(r.Snapshot().Active) })
	gauge("headway_fleet_guard_active", "Mass-expiry guards that hold heads now.", func() float64 {
		r.mu.Lock()
		defer r.mu.Unlock()
		return float64(len(r.guards))
	})
	gauge("headway_heartbeat_interval_seconds", "Time between reports that heads are told, before jitter.", func() float64 {
		return r.interval(r.Snapshot().Heads).Seconds()
	})
	cs = append(cs, &collector{r: r, slots: &m.inFlight})
	var errs []error
	for _, c := range cs {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// observe starts the clock of a store call; the result stops it.
func (m *metrics) observe(operation string) func() {
	begin := time.Now()
	return func() { m.storeTime[operation].Observe(time.Since(begin).Seconds()) }
}

// slots hands out the places of the heads that headway_head_in_flight names.
type slots struct {
	mu    sync.Mutex
	heads [maxSlots]string // "": free
}

// take returns a free slot, -1 if there is none.
func (s *slots) take(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range s.heads {
		if h == "" {
			s.heads[i] = id
			return i
		}
	}
	return -1
}

func (s *slots) give(slot int) {
	if slot >= 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heads[slot] = ""
	}
}

// collector derives gauges from the snapshot when somebody asks.
type collector struct {
	r     *Registry
	slots *slots
}

var (
	headsDesc = prometheus.NewDesc("headway_heads",
		"Registered heads by state, region and model type (a head that serves two counts in both). state is active or degraded for heads that take requests, else why they do not: pending, draining, offline, stale, maintenance; held ones take requests only because the mass-expiry guard keeps them. Pairs beyond 200 are summed as other.",
		[]string{"status", "region", "model_type"}, nil)
	inFlightDesc = prometheus.NewDesc("headway_head_in_flight",
		"Requests in flight by head, for the first 100 heads that registered; the rest is summed as other.", []string{"head"}, nil)
	ageDesc = prometheus.NewDesc("headway_signal_age_seconds",
		"Age of the last report of heads that take requests: the mean and the oldest. NaN when no such head has reported.", []string{"stat"}, nil)
	overflowDesc = prometheus.NewDesc("headway_label_overflow",
		"Label values that are summed as other at this scrape, by metric.", []string{"metric"}, nil)
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- headsDesc
	ch <- inFlightDesc
	ch <- ageDesc
	ch <- overflowDesc
}

// state is the one word that says whether a head takes requests, or why not.
func state(h *Head) string {
	switch {
	case h.Admin == AdminMaintenance:
		return "maintenance"
	case h.Admin == AdminDraining || h.Status == StatusDraining:
		return "draining"
	case h.Health == HealthPending || h.Health == HealthStale || h.Health == HealthHeld:
		return h.Health.String()
	}
	return h.Status.String()
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.r.Snapshot()
	now := c.r.now()
	type key struct{ state, region, model string }
	counts := map[key]int{}
	pairs, folded := 0, 0
	var ages, oldest time.Duration
	reported := 0
	for _, g := range groups(s) {
		model, region := g.ModelType, g.Region
		if pairs++; pairs > maxPairs {
			model, region = other, other
			folded++
		}
		for _, h := range g.Heads {
			counts[key{state(h), region, model}]++
			if report := h.Live.Report(); report != nil && h.Routable() {
				age := now.Sub(report.At)
				ages += age
				oldest = max(oldest, age)
				reported++
			}
		}
	}
	for k, n := range counts {
		ch <- prometheus.MustNewConstMetric(headsDesc, prometheus.GaugeValue, float64(n), k.state, k.region, k.model)
	}
	mean := ages.Seconds() / float64(reported) // NaN without any
	high := oldest.Seconds()
	if reported == 0 {
		high = mean
	}
	ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, mean, "mean")
	ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, high, "max")
	unnamed := c.collectInFlight(ch, s)
	ch <- prometheus.MustNewConstMetric(overflowDesc, prometheus.GaugeValue, float64(folded), "headway_heads")
	ch <- prometheus.MustNewConstMetric(overflowDesc, prometheus.GaugeValue, float64(unnamed), "headway_head_in_flight")
}

// groups lists the heads by model type and region, in the order of their names,
// so that each scrape names the same ones.
func groups(s *Snapshot) []*Group {
	var list []*Group
	for _, p := range s.Pools {
		for _, g := range p.Regions {
			list = append(list, g)
		}
	}
	slices.SortFunc(list, func(a, b *Group) int {
		return cmp.Or(strings.Compare(a.ModelType, b.ModelType), strings.Compare(a.Region, b.Region))
	})
	return list
}

// collectInFlight returns how many heads have no series of their own.
func (c *collector) collectInFlight(ch chan<- prometheus.Metric, s *Snapshot) (unnamed int) {
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
				ch <- prometheus.MustNewConstMetric(inFlightDesc, prometheus.GaugeValue, float64(h.Live.InFlight()), h.ID)
			default:
				rest += h.Live.InFlight()
				unnamed++
			}
		}
	}
	ch <- prometheus.MustNewConstMetric(inFlightDesc, prometheus.GaugeValue, float64(rest), other)
	return unnamed
}

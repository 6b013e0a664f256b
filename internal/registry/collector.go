package registry

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/fleet"
)

// pair is a model type in a region.
type pair struct{ model, region string }

func pairOf(g *fleet.Group) pair { return pair{g.ModelType, g.Region} }

// collector derives gauges from the snapshot at each scrape.
type collector struct {
	r       *Registry
	metrics *metrics

	mu    sync.Mutex
	pairs series[pair]
	of    *fleet.Snapshot // that list is of
	list  []*fleet.Group
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
		"Heads that should take requests and do not, by model type: not those that report that they drain, are drained by an operator or in maintenance, nor for 15 minutes those that have not reported since they registered for the first time, or with another model type or region. Heads that were lost, not deregistered, count as one for an hour or until a head takes requests; model types beyond 1,000 are summed as other.", "model_type")
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

func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

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
	now := c.r.o.Now()
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
	present := make([]pair, len(list))
	for i, g := range list {
		present[i] = pairOf(g)
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
		if p := pairOf(g); p != sum && c.pairs.has(p) {
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
	c.metrics.models.collect(ch, now, models)
	c.metrics.regions.collect(ch, now, regions)
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
	mean, high := math.NaN(), math.NaN()
	if reported > 0 {
		mean, high = ages.Seconds()/float64(reported), oldest.Seconds()
	}
	gaugeOf(ch, ageDesc, mean, "mean")
	gaugeOf(ch, ageDesc, high, "max")
}

// collectInFlight counts at each head that has a slot, and at the others together.
func (c *collector) collectInFlight(ch chan<- prometheus.Metric, s *fleet.Snapshot) {
	own := c.metrics.inFlight.ids()
	rest := int64(0)
	for _, p := range s.Pools {
		for _, h := range p.All.Heads {
			switch {
			case h.ModelTypes[0] != p.ModelType: // counted with its first model type
			case own[h.ID] && h.ID != other: // a head of that name has no series beside the sum
				gaugeOf(ch, inFlightDesc, float64(h.Live.InFlight()), h.ID)
			default:
				rest += h.Live.InFlight()
			}
		}
	}
	gaugeOf(ch, inFlightDesc, float64(rest), other)
}

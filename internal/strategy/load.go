package strategy

import (
	"math"
	"time"

	"headway/internal/fleet"
)

// reportLifetime is the age at which a report has lost 1-1/e of its worth: a few
// times what a request takes, after which other requests are there.
const reportLifetime = 2 * time.Second

// trust is what a report is worth by its age in steps of 2^trustStep ms, nothing
// past the last.
var trust = func() (t [64]float64) {
	for i := range t {
		t[i] = math.Exp(-float64(time.Duration(i)<<trustStep*time.Millisecond) / float64(reportLifetime))
	}
	return t
}()

const trustStep = 8

// reportWorth is the age from which a report is worth nothing.
const reportWorth = 64 << trustStep * time.Millisecond

// sums is what a scan adds up over heads. It is short, since a scan is most of a
// decision.
type sums struct {
	own    int64        // requests in flight that this router sent
	beyond uint64       // requests beyond those by the reports, in fleet.BeyondUnit
	all    fleet.Beyond // what all reports have: whether each has a count
}

func newSums() sums { return sums{all: math.MaxUint64} }

func (s *sums) add(inFlight int64, b fleet.Beyond) {
	s.own += inFlight
	s.beyond += b.Units()
	s.all &= b
}

// othersOf returns the mean and the share of others over the heads of r.
func (s *sums) othersOf(r *fleet.Ranked) (mean, share float64) {
	seen := r.Capacity
	if s.beyond != 0 && !s.all.Counted() {
		seen = 0
		for i, l := range r.Lives {
			if l.Beyond().Counted() {
				seen += 1 / r.PerLoad[i]
			}
		}
	}
	return s.othersFor(seen, r.Capacity)
}

// assumedOwn is what counts as ours beside what is there: two heads are compared
// as if each had the request already.
const assumedOwn = 2

// othersFor is othersOf for heads of so much capacity · weight, of which those
// with seen report.
func (s *sums) othersFor(seen, capacity float64) (mean, share float64) {
	if s.beyond == 0 || seen == 0 { // a report may have changed meanwhile
		return 0, 1
	}
	beyond := float64(s.beyond) / fleet.BeyondUnit
	own := float64(s.own + assumedOwn)
	return beyond / seen, own / (own + beyond*capacity/seen)
}

// others is the load that other routers put on the heads of a comparison.
type others struct {
	// mean is the requests beyond our own for each unit of capacity · weight. It
	// stands in for a report that is missing or old.
	mean float64
	// share is our part of the whole load. If each of ten routers evened out a
	// difference whole, the head that reported least would get ten times too much.
	share  float64
	clock  uint32
	dither uint64
}

// at estimates the requests of others at a head: what it reported, and the older
// that is, the more the mean.
func (f *others) at(b fleet.Beyond, perLoad float64) float64 {
	mean := f.mean / perLoad
	return mean + (b.Requests()-mean)*trustIn(b, f.clock)
}

// trustIn is what a report is worth by its age, 0 to 1.
func trustIn(b fleet.Beyond, clock uint32) float64 {
	if step := b.Age(clock) >> trustStep; b.Counted() && step < uint32(len(trust)) {
		return trust[step]
	}
	return 0
}

// dithered is our share of at, rounded up or down at random: heads that differ by
// less than a request share the traffic instead of taking turns at all of it.
func (f *others) dithered(b fleet.Beyond, perLoad float64) float64 {
	f.dither += 0x9e3779b97f4a7c15
	return float64(int64(f.share*f.at(b, perLoad) + float64(f.dither>>11)/(1<<53)))
}

// ownLoad is the load by our own count with one request more, relative to the
// head's capacity and weight.
func ownLoad(h *fleet.Head, now time.Time) float64 {
	return (float64(h.Live.InFlight()) + h.Live.SlowStart(now) + 1) / h.Capacity()
}

// reported estimates the requests at a head whose count is not ours: those of its
// last report, which came at, and our picks since.
func reported(l *fleet.Live, limit int64) (requests float64, at time.Time) {
	report := l.Report()
	if report == nil { // it registers again at this moment
		return float64(l.InFlight()), at
	}
	requests, _ = report.Everything(limit)
	return requests + float64(l.Picks()-report.Picks), report.At
}

// lighter returns the less loaded of two heads first, with the loads that it
// compared, each times its factor. Without outcomes it compares reports, and the older those are the more
// it leaves to chance: all who compare the same old reports choose the same head.
func lighter(in *Input, a, b *fleet.Head, ofA, ofB float64) (first, second Pick) {
	loads, worth := compareTwo(in, [2]*fleet.Head{a, b})
	loads[0], loads[1] = loads[0]*ofA, loads[1]*ofB
	first, second = Pick{a, loads[0]}, Pick{b, loads[1]}
	swap := loads[1] < loads[0] || loads[0] == loads[1] && in.Rand.Uint64()&1 == 0
	if worth < 1 && in.Rand.Float64() >= worth {
		swap = in.Rand.Float64()*(a.Capacity()+b.Capacity()) >= a.Capacity()
	}
	if swap {
		return second, first
	}
	return first, second
}

// compareTwo returns the loads of two heads by the best that is known of both, and
// what the comparison is worth.
func compareTwo(in *Input, pair [2]*fleet.Head) (loads [2]float64, worth float64) {
	total, seen := newSums(), 0.
	both := true
	for _, h := range pair {
		b := h.Live.Beyond()
		if total.add(h.Live.InFlight(), b); b.Counted() {
			seen += h.Capacity()
		}
		both = both && h.Live.OwnCounts()
	}
	f := in.others(total.othersFor(seen, pair[0].Capacity()+pair[1].Capacity()))
	var oldest time.Duration
	for i, h := range pair {
		perLoad := 1 / h.Capacity()
		var requests float64
		switch own := h.Live.OwnCounts(); {
		case both:
			requests = float64(h.Live.InFlight()) + f.dithered(h.Live.Beyond(), perLoad)
		case own: // against one that goes by its report, the whole counts
			requests = float64(h.Live.InFlight()) + f.at(h.Live.Beyond(), perLoad)
		default:
			var at time.Time
			requests, at = reported(h.Live, h.MaxInFlight)
			oldest = max(oldest, in.Now.Sub(at))
		}
		loads[i] = (requests + h.Live.SlowStart(in.Now) + 1) * perLoad
	}
	return loads, math.Exp(-float64(oldest) / float64(reportLifetime))
}

// bestLoads writes each head's load by the best that is known of it.
func bestLoads(in *Input, r *fleet.Ranked, scores []float64) {
	total := newSums()
	all := true
	for _, l := range r.Lives {
		total.add(l.InFlight(), l.Beyond())
		all = all && l.OwnCounts()
	}
	f := in.others(total.othersOf(r))
	if !all {
		f.share = 1
	}
	for i, h := range r.Heads {
		requests := float64(h.Live.InFlight()) + f.share*f.at(h.Live.Beyond(), r.PerLoad[i])
		if !h.Live.OwnCounts() {
			requests, _ = reported(h.Live, h.MaxInFlight)
		}
		if scores[i] = (requests + h.Live.SlowStart(in.Now) + 1) * r.PerLoad[i]; !in.Available(h) {
			scores[i] = math.Inf(1)
		}
	}
}

// compare ranks the available heads by our own count and what reports say beyond
// it. It returns false if our own count is not valid at some head. The mean of all
// heads is that of the scan before: one scan is half the work of two.
func (k *ranking) compare(in *Input, t *Tier) bool {
	r := &t.Ranked
	perLoad, limits := r.PerLoad[:len(r.Lives)], r.Limits[:len(r.Lives)]
	bounded := r.Limited || len(in.Exclude) > 0
	total := newSums()
	f := in.others(t.State.usual())
	odd := f.mean != 0 || in.FullOnly
	for i, l := range r.Lives {
		inFlight, exact := l.Exact()
		b := l.Beyond()
		total.add(inFlight, b)
		cost := float64(inFlight+1) * perLoad[i]
		if odd || !exact || b.Matters() {
			if !l.OwnCounts() {
				return false
			}
			cost = f.cost(in, l, inFlight, limits[i], perLoad[i])
		}
		if bounded && (limits[i] > 0 && inFlight >= limits[i] || in.Excluded(r.Heads[i])) || !k.wants(cost) {
			continue
		}
		k.add(&in.Rand, i, cost)
	}
	if in.shadow == 0 {
		t.State.learn(total.othersOf(r))
	}
	return true
}

// cost is the load of a head with one request more, +Inf if it is passed over.
func (f *others) cost(in *Input, l *fleet.Live, inFlight, limit int64, perLoad float64) float64 {
	b := l.Beyond()
	if !in.takes(l, b, inFlight, limit) {
		return math.Inf(1)
	}
	return (float64(inFlight+1) + l.SlowStart(in.Now) + f.dithered(b, perLoad)) * perLoad
}

package routing

import (
	"math"
	"slices"
	"time"

	"headway/internal/fleet"
)

// reportLifetime is the age at which a report has lost 1-1/e of its worth: a
// few times a request's stay at a head, after which other requests are there.
const reportLifetime = 2 * time.Second

// ownLoad is the load that we put on a head ourselves, relative to its
// capacity. It is exact where outcomes are reported.
func ownLoad(h *fleet.Head, now time.Time) float64 {
	return (float64(h.Live.InFlight()) + h.Live.SlowStart(now)) / h.Capacity()
}

// reportedLoad is the load by the head's last report and our picks since,
// relative to its capacity, and how old the report is; ok is false when the
// head reports no counts.
func reportedLoad(h *fleet.Head, now time.Time) (load float64, age time.Duration, ok bool) {
	report := h.Live.Report()
	if report == nil {
		return 0, 0, false
	}
	requests := report.Requests()
	if requests == fleet.Unknown {
		return 0, 0, false
	}
	own := float64(h.Live.Picks() - report.Picks)
	return (float64(requests) + own + h.Live.SlowStart(now)) / h.Capacity(), now.Sub(report.At), true
}

// lighter returns the less loaded of two heads, and the loads that it
// compared. Where outcomes are reported it compares what is in flight. Where
// they are not it compares reports, and the older those are the more it leaves
// to chance by weight: everybody who compares the same old reports runs to the
// same head.
func lighter(in *Input, a, b *fleet.Head) (first, second Pick) {
	la, lb := ownLoad(a, in.Now), ownLoad(b, in.Now)
	trust := 1.0
	if !a.Live.Tracked() || !b.Live.Tracked() {
		ra, ageA, okA := reportedLoad(a, in.Now)
		rb, ageB, okB := reportedLoad(b, in.Now)
		if okA && okB {
			la, lb = ra, rb
			trust = math.Exp(-float64(max(ageA, ageB)) / float64(reportLifetime))
		}
	}
	first, second = Pick{a, la}, Pick{b, lb}
	swap := lb < la || la == lb && in.Rand.Uint64()&1 == 0
	if trust < 1 && in.Rand.Float64() >= trust {
		swap = in.Rand.Float64()*(a.Weight+b.Weight) >= a.Weight
	}
	if swap {
		return second, first
	}
	return first, second
}

// bestLoads writes each head's load by what is known best, for explanations.
func bestLoads(in *Input, r *fleet.Ranked, scores []float64) {
	tracked := !slices.ContainsFunc(r.Lives, func(l *fleet.Live) bool { return !l.Tracked() })
	for i, h := range r.Heads {
		if !in.Available(h) {
			scores[i] = math.Inf(1)
			continue
		}
		scores[i] = ownLoad(h, in.Now)
		if load, _, ok := reportedLoad(h, in.Now); ok && !tracked {
			scores[i] = load
		}
	}
}

// ranking keeps the best heads while all are compared, best first. The first is
// random among equals: each of k equals leads with probability 1/k. Of m equals
// so far the next to take the lead is number ⌊m/u⌋+1 for a uniform u in (0, 1),
// so that equals cost a draw only when the lead changes.
//
// It keeps places instead of pointers: writing a pointer costs more than
// comparing a head.
type ranking struct {
	at    [1 + MaxAlternatives]int32
	cost  [1 + MaxAlternatives]float64
	n     int
	size  int     // how many are wanted
	lead  float64 // the lowest cost
	worst float64 // a cost that is not below it changes nothing, unless it is the lead's
	ties  uint64  // heads that share the lowest cost
	next  uint64  // the number of ties at which the lead changes
}

func rank(size int) ranking {
	return ranking{size: min(size, 1+MaxAlternatives), lead: math.Inf(-1), worst: math.MaxFloat64, next: math.MaxUint64}
}

// wants reports whether a head of this cost is to be added, and counts it if
// it is an equal of the first. Among busy heads every second may be an equal,
// which no branch predictor foresees, so that counting must not branch.
func (k *ranking) wants(cost float64) bool {
	tie := uint64(0)
	if cost == k.lead {
		tie = 1
	}
	k.ties += tie
	return cost < k.worst || k.ties >= k.next
}

// add takes head i, which is wanted.
func (k *ranking) add(r *Rand, i int, cost float64) {
	at := k.n
	switch {
	case cost != k.lead:
		for at > 0 && cost < k.cost[at-1] {
			at--
		}
		if at == 0 {
			k.lead, k.ties = cost, 1
			k.draw(r)
		}
	case k.ties >= k.next:
		at = 0
		k.draw(r)
	default:
		at = 1
	}
	if k.n < k.size {
		k.n++
	}
	for j := k.n - 1; j > at; j-- {
		k.at[j], k.cost[j] = k.at[j-1], k.cost[j-1]
	}
	k.at[at], k.cost[at] = int32(i), cost
	if k.n == k.size {
		k.worst = k.cost[k.n-1]
	}
}

// draw decides at which of the coming equals the lead changes.
func (k *ranking) draw(r *Rand) {
	next := float64(k.ties) / (1 - r.Float64())
	k.next = math.MaxUint64
	if next < 1<<62 {
		k.next = uint64(next) + 1
	}
}

// write writes the best heads into picks and returns how many.
func (k *ranking) write(heads []*fleet.Head, picks []Pick) int {
	for j := range k.n {
		picks[j] = Pick{heads[k.at[j]], k.cost[j]}
	}
	return k.n
}

// leastExact writes the available heads of the least load by our own count
// into picks, best first, and returns how many. ok is false when the places of
// some head end by their time, so that its count overstates.
func leastExact(in *Input, r *fleet.Ranked, picks []Pick) (n int, ok bool) {
	best := rank(len(picks))
	if !best.compare(in, r) {
		return 0, false
	}
	return best.write(r.Heads, picks), true
}

// compare ranks the available heads by our own count; false as of leastExact.
func (k *ranking) compare(in *Input, r *fleet.Ranked) bool {
	perLoad, limits := r.PerLoad[:len(r.Lives)], r.Limits[:len(r.Lives)]
	bounded := r.Limited || len(in.Request.Exclude) > 0
	for i, l := range r.Lives {
		inFlight, exact := l.Exact()
		cost := float64(inFlight) * perLoad[i]
		if !exact {
			if !l.Tracked() {
				return false
			}
			cost += l.SlowStart(in.Now) * perLoad[i]
		}
		if bounded && (limits[i] > 0 && inFlight >= limits[i] || in.excluded(r.Heads[i])) || !k.wants(cost) {
			continue
		}
		k.add(&in.Rand, i, cost)
	}
	return true
}

// draws is how often a random draw that hits a head without a place is
// repeated before all heads are looked at.
const draws = 8

// drawAvailable returns a random available head that is not among taken, or
// nil. It is uniform over the available ones.
func drawAvailable(in *Input, heads []*fleet.Head, taken []Pick) *fleet.Head {
	fits := func(h *fleet.Head) bool {
		for i := range taken {
			if taken[i].Head == h {
				return false
			}
		}
		return in.Available(h)
	}
	if len(heads) > 2*len(taken) {
		for range draws {
			if h := heads[in.Rand.IntN(len(heads))]; fits(h) {
				return h
			}
		}
	}
	var drawn *fleet.Head
	found := 0
	for _, h := range heads {
		if fits(h) {
			if found++; in.Rand.IntN(found) == 0 {
				drawn = h
			}
		}
	}
	return drawn
}

// fill adds random available heads to the n picks there are, as alternatives.
func fill(in *Input, heads []*fleet.Head, picks []Pick, n int) int {
	for n < len(picks) {
		h := drawAvailable(in, heads, picks[:n])
		if h == nil {
			break
		}
		picks[n] = Pick{h, math.NaN()}
		n++
	}
	return n
}

// noScores says that a strategy does not compare heads.
func noScores(in *Input, scores []float64) {
	for i, h := range in.Heads() {
		if scores[i] = math.NaN(); !in.Available(h) {
			scores[i] = math.Inf(1)
		}
	}
}

// signals lists what is known of a head at now and how old it is.
func signals(h *fleet.Head, now time.Time) []Signal {
	list := []Signal{{Name: "in_flight", Value: float64(h.Live.InFlight())}}
	if s := h.Live.SlowStart(now); s > 0 {
		list = append(list, Signal{Name: "slow_start", Value: s})
	}
	report := h.Live.Report()
	if report == nil {
		return list
	}
	age := now.Sub(report.At)
	count := func(name string, v int64) {
		if v != fleet.Unknown {
			list = append(list, Signal{name, float64(v), age})
		}
	}
	number := func(name string, v float64) {
		if !math.IsNaN(v) {
			list = append(list, Signal{name, v, age})
		}
	}
	count("reported_in_flight", report.Load.InFlight)
	count("reported_queued", report.Queued)
	count("pending_prompt_tokens", report.PendingPromptTokens)
	number("kv_cache_usage", report.KVCacheUsage)
	number("utilization", report.Utilization)
	number("tokens_per_second", report.TokensPerSecond)
	return list
}

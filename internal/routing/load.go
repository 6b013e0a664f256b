package routing

import (
	"math"
	"slices"
	"strings"
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

// exactLoads writes each head's load by our own count, +Inf for heads that are
// not available. It returns false, and the scores are not to be used, when
// places of some head end by their time, so that its count overstates.
func exactLoads(in *Input, r *fleet.Ranked, scores []float64) bool {
	limits, perLoad := r.Limits[:len(scores)], r.PerLoad[:len(scores)]
	for i, l := range r.Lives[:len(scores)] {
		n, exact := l.Exact()
		scores[i] = float64(n) * perLoad[i]
		if !exact {
			if !l.Tracked() {
				return false
			}
			scores[i] += l.SlowStart(in.Now) * perLoad[i]
		}
		if limits[i] > 0 && n >= limits[i] {
			scores[i] = math.Inf(1)
		}
	}
	exclude(in, r, scores)
	return true
}

// exclude marks heads that the caller excluded as not available.
func exclude(in *Input, r *fleet.Ranked, scores []float64) {
	for _, id := range in.Request.Exclude {
		at, found := slices.BinarySearchFunc(r.Heads, id, func(h *fleet.Head, id string) int { return strings.Compare(h.ID, id) })
		if found {
			scores[at] = math.Inf(1)
		}
	}
}

// bestLoads writes each head's load by what is known best, for explanations.
func bestLoads(in *Input, r *fleet.Ranked, scores []float64) {
	if exactLoads(in, r, scores) {
		return
	}
	for i, h := range r.Heads {
		if !in.Available(h) {
			scores[i] = math.Inf(1)
			continue
		}
		scores[i] = ownLoad(h, in.Now)
		if load, _, ok := reportedLoad(h, in.Now); ok {
			scores[i] = load
		}
	}
}

// least writes the heads of the lowest scores into picks, best first, and
// returns how many. The best is random among equals.
func least(in *Input, heads []*fleet.Head, scores []float64, picks []Pick) int {
	n, ties := 0, uint64(1)
	worst := math.MaxFloat64 // above it a score changes nothing
	for i, s := range scores {
		if s > worst {
			continue
		}
		at := n
		switch {
		case n > 0 && s == picks[0].Cost:
			// The k-th of equals takes the lead with probability 1/k.
			if ties++; in.Rand.IntN(int(ties)) == 0 { //nolint:gosec // at most the number of heads
				at = 0
			} else if at = 1; n == len(picks) {
				continue
			}
		case n == len(picks) && s >= picks[n-1].Cost:
			continue
		default:
			for at > 0 && s < picks[at-1].Cost {
				at--
			}
			if at == 0 {
				ties = 1
			}
		}
		if n < len(picks) {
			n++
		}
		if at < n {
			copy(picks[at+1:n], picks[at:n-1])
			picks[at] = Pick{heads[i], s}
		}
		if n == len(picks) {
			worst = picks[n-1].Cost
		}
	}
	return n
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

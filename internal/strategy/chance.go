package strategy

import (
	"cmp"
	"math"
	"slices"

	"headway/internal/fleet"
)

// Chancer is a Strategy that does not always choose a head of the lowest score.
type Chancer interface {
	// Chances writes how likely each of in.Heads() is to be chosen, of which Score
	// wrote the costs: NaN for all where that is not known. All have the same length.
	Chances(in *Input, costs, chances []float64)
}

// Chances writes how likely the strategy is to choose each of in.Heads(): 1 for all
// together, or 0 where none is available; NaN for all: it is not known. Where it is no
// Chancer, heads of the lowest cost are equally likely, and all are where it does not
// compare.
func Chances(s Strategy, in *Input, costs, chances []float64) {
	if c, ok := s.(Chancer); ok {
		c.Chances(in, costs, chances)
		return
	}
	cheapest(costs, chances)
}

// unknown says of no head how likely it is.
func unknown(chances []float64) {
	for i := range chances {
		chances[i] = math.NaN()
	}
}

// cheapest has heads of the lowest cost be equally likely.
func cheapest(costs, chances []float64) {
	least, n := math.Inf(1), 0.
	for _, c := range costs {
		if math.IsNaN(c) {
			c = 0
		}
		switch {
		case c < least:
			least, n = c, 1
		case c == least:
			n++
		}
	}
	for i, c := range costs {
		if math.IsNaN(c) {
			c = 0
		}
		if chances[i] = 0; c == least && !math.IsInf(c, 1) {
			chances[i] = 1 / n
		}
	}
}

// exactCounts reports whether requests are compared as they are. Counts that reports add to,
// or that are reports alone, are rounded at random, or left to chance by their age: how
// likely a choice is then, no formula says.
func exactCounts(in *Input) bool {
	for _, l := range in.Tier().Lives {
		if !l.OwnCounts() || l.Beyond().Matters() {
			return false
		}
	}
	return true
}

// Chances implements Chancer.
func (leastLoaded) Chances(in *Input, costs, chances []float64) {
	if exactCounts(in) {
		cheapest(costs, chances)
	} else {
		unknown(chances)
	}
}

// Chances implements Chancer: within a region as least_loaded.
func (geoPreferred) Chances(in *Input, costs, chances []float64) {
	leastLoaded{}.Chances(in, costs, chances)
}

// Chances implements Chancer: the head that served the session last comes before the
// nearest one.
func (s sessionAffinity) Chances(in *Input, costs, chances []float64) {
	if _, ok := in.Session(); !ok {
		leastLoaded{}.Chances(in, costs, chances)
		return
	}
	cheapest(costs, chances)
	if at := slices.Index(in.Heads(), in.Remembered()); at >= 0 && !math.IsInf(costs[at], 1) {
		clear(chances)
		chances[at] = 1
	}
}

// chancesWeighed is Chances of a coster. Where Choose compares some of the heads, each
// choice depends on which, and on what is known of those together.
func chancesWeighed[S coster](s S, in *Input, costs, chances []float64) {
	r := &in.Tier().Ranked
	own := !slices.ContainsFunc(r.Lives, func(l *fleet.Live) bool { return !l.OwnCounts() })
	if own && r.Places == nil && (!s.wants().least || wholeRequests(in)) {
		cheapest(costs, chances)
	} else {
		unknown(chances)
	}
}

// wholeRequests reports whether there is nothing to round of the requests of heads.
func wholeRequests(in *Input) bool {
	starting := func(l *fleet.Live) bool { return l.SlowStart(in.Now) > 0 }
	return exactCounts(in) && !slices.ContainsFunc(in.Tier().Lives, starting)
}

// Chances implements Chancer.
func (s adaptive) Chances(in *Input, costs, chances []float64) { chancesWeighed(s, in, costs, chances) }

// Chances implements Chancer.
func (s leastTokens) Chances(in *Input, costs, chances []float64) {
	chancesWeighed(s, in, costs, chances)
}

// Chances implements Chancer.
func (s prefixAware) Chances(in *Input, costs, chances []float64) {
	chancesWeighed(s, in, costs, chances)
}

// Chances implements Chancer: within a region as adaptive.
func (s *priorityRegion) Chances(in *Input, costs, chances []float64) {
	s.within.Chances(in, costs, chances)
}

// Chances implements Chancer.
func (random) Chances(in *Input, costs, chances []float64) { chancesByWeight(in, costs, chances) }

// Chances implements Chancer.
func (weightedRoundRobin) Chances(in *Input, costs, chances []float64) {
	chancesByWeight(in, costs, chances)
}

func chancesByWeight(in *Input, costs, chances []float64) {
	for i, h := range in.Heads() {
		chances[i] = h.Weight
	}
	portions(costs, chances)
}

// portions makes of shares those of the heads that are available.
func portions(costs, shares []float64) {
	sum := 0.
	for i, c := range costs {
		if math.IsInf(c, 1) {
			shares[i] = 0
		}
		sum += shares[i]
	}
	for i := range shares {
		shares[i] /= max(sum, math.SmallestNonzeroFloat64)
	}
}

// Chances implements Chancer: of two heads drawn by their share, the second from
// among the others, the one with the lower cost is chosen.
func (powerOfTwo) Chances(in *Input, costs, chances []float64) {
	if !exactCounts(in) {
		unknown(chances)
		return
	}
	for i, h := range in.Heads() {
		chances[i] = h.Capacity()
	}
	portions(costs, chances)
	order := make([]int, 0, len(chances))
	for i, share := range chances {
		if share == 1 {
			return // there is no other
		}
		if share > 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(costs[b], costs[a]) })
	worse, odds := 0., 0. // sums over the heads with a higher cost: of their shares, and of share/(1-share)
	for i := 0; i < len(order); {
		j, equal, equalOdds := i, 0., 0.
		for ; j < len(order) && costs[order[j]] == costs[order[i]]; j++ {
			p := chances[order[j]]
			equal += p
			equalOdds += p / (1 - p)
		}
		for _, at := range order[i:j] { // those of the same cost win half the time
			p := chances[at]
			others, otherOdds := worse+(equal-p)/2, odds+(equalOdds-p/(1-p))/2
			chances[at] = p*others/(1-p) + p*otherOdds
		}
		worse, odds, i = worse+equal, odds+equalOdds, j
	}
}

// Chances implements Chancer.
func (m *modelSpecific) Chances(in *Input, costs, chances []float64) {
	var s Strategy = m.rule(in.ModelType).strategy
	if by, ok := s.(byScore); ok {
		s = by.Strategy
	}
	Chances(s, in, costs, chances)
}

// Chances implements Chancer: a head has its own turn and those of the heads before
// it that are not available.
func (roundRobin) Chances(_ *Input, costs, chances []float64) {
	clear(chances)
	next := -1
	for i := 2*len(costs) - 1; i >= 0; i-- { // twice round, so that each has one after it
		at := i % len(costs)
		if !math.IsInf(costs[at], 1) {
			next = at
		}
		if i < len(costs) && next >= 0 {
			chances[next] += 1 / float64(len(costs))
		}
	}
}

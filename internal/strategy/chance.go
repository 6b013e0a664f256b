package strategy

import (
	"cmp"
	"math"
	"slices"
)

// Chancer is a Strategy that does not always choose a head of the lowest score.
type Chancer interface {
	// Chances writes how likely each of in.Heads() is to be chosen, of which Score
	// wrote the costs. All have the same length.
	Chances(in *Input, costs, chances []float64)
}

// Chances writes how likely the strategy is to choose each of in.Heads(): 1 for all
// together, or 0 where none is available. Where it is no Chancer, heads of the lowest
// cost are equally likely, and all are where it does not compare.
func Chances(s Strategy, in *Input, costs, chances []float64) {
	if c, ok := s.(Chancer); ok {
		c.Chances(in, costs, chances)
		return
	}
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

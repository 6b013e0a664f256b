package strategy

import (
	"math"

	"headway/internal/fleet"
)

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

// wants reports whether to add a head of this cost, and counts it if it is an equal
// of the first. Among busy heads every second may be one, which no branch predictor
// foresees, so counting must not branch.
func (k *ranking) wants(cost float64) bool {
	tie := uint64(0)
	if cost == k.lead {
		tie = 1
	}
	k.ties += tie
	return cost < k.worst || k.ties >= k.next
}

// add adds head i, which is wanted.
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

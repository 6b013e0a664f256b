package strategy

import (
	"math"

	"headway/internal/fleet"
)

// draws is how often a head without a place is drawn before all are looked at.
const draws = 8

// drawLarge returns a random available head by capacity and weight that is not
// taken, or nil.
func drawLarge(in *Input, r *fleet.Ranked, taken []Pick) *fleet.Head {
	for range draws {
		i := in.Rand.IntN(len(r.Heads))
		if in.Rand.Float64()*r.PerLoad[i] >= r.MinLoad || len(taken) > 0 && taken[0].Head == r.Heads[i] {
			continue
		}
		if h := r.Heads[i]; in.Available(h) {
			return h
		}
	}
	return drawAvailable(in, r.Heads, taken)
}

// drawAvailable returns a random available head that is not taken, or nil, all with
// equal chances.
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

// Fill adds random available heads to the n picks there are, as alternatives.
func Fill(in *Input, heads []*fleet.Head, picks []Pick, n int) int {
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

// weightedDraws is how often a draw by weight is repeated. One is taken with
// probability mean weight / greatest weight, so only very uneven weights need more;
// they are drawn for without weights.
const weightedDraws = 32

// drawWeighted returns a random available head by weight, or nil.
func drawWeighted(in *Input, r *fleet.Ranked) *fleet.Head {
	for range weightedDraws {
		h := r.Heads[in.Rand.IntN(len(r.Heads))]
		if r.MinWeight < r.MaxWeight && in.Rand.Float64()*r.MaxWeight >= h.Weight {
			continue
		}
		if in.Available(h) {
			return h
		}
	}
	return nil
}

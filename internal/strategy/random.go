package strategy

import (
	"headway/internal/fleet"
	"headway/internal/strict"
)

var randomSpec = Spec{
	Name:    "random",
	Summary: "A random head, by weight. It needs no signal and spreads well when requests are alike.",
	Formula: "P(h) = weight_h / Σ weight",
	New:     func(Values, Build) (Strategy, []strict.Fault) { return random{}, nil },
}

type random struct{}

func (random) Choose(in *Input, picks []Pick) int {
	tier := in.Tier()
	n := 0
	if h := drawWeighted(in, &tier.Ranked); h != nil {
		picks[0] = Pick{h, nan}
		n = 1
	}
	return Fill(in, tier.Heads, picks, n)
}

func (random) Score(in *Input, scores []float64) { noScores(in, scores) }

// weightedDraws is how often a draw by weight is repeated. A draw is taken with
// probability mean weight / greatest weight, so only very uneven weights need
// more, and those fall back to a draw without weights among the available.
const weightedDraws = 32

// drawWeighted returns a random available head by weight, nil when the draws
// found none with a place.
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

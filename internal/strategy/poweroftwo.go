package strategy

import (
	"headway/internal/fleet"
	"headway/internal/strict"
)

var powerOfTwoSpec = Spec{
	Name:    "power_of_two",
	Summary: "The less loaded of two random heads (Mitzenmacher, 2001): nearly as good as the least of all, at a constant price and without herds.",
	Formula: "argmin load over two heads drawn by max_in_flight · weight; load as of least_loaded",
	Use:     "For very large pools of heads whose requests cost about the same: its price does not grow with the pool. It loses to [`least_loaded`](#least_loaded) in small pools, and to all that count tokens where prompts differ.",
	New:     func(Values, Build) (Strategy, []strict.Fault) { return powerOfTwo{}, nil },
}

type powerOfTwo struct{}

func (powerOfTwo) Choose(in *Input, picks []Pick) int {
	return chooseOfTwo(in, picks, func(*fleet.Head) float64 { return 1 })
}

// chooseOfTwo chooses the better of two random heads by their loads, each times a
// factor.
func chooseOfTwo(in *Input, picks []Pick, factor func(*fleet.Head) float64) int {
	r := &in.Tier().Ranked
	a := drawLarge(in, r, nil)
	if a == nil {
		return 0
	}
	picks[0] = Pick{a, factor(a) * ownLoad(a, in.Now)}
	b := drawLarge(in, r, picks[:1])
	if b == nil {
		return 1
	}
	pair := [2]Pick{}
	pair[0], pair[1] = lighter(in, a, b, factor(a), factor(b))
	return Fill(in, r.Heads, picks, copy(picks, pair[:]))
}

func (powerOfTwo) Score(in *Input, scores []float64) { bestLoads(in, &in.Tier().Ranked, scores) }

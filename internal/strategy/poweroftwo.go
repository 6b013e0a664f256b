package strategy

import (
	"headway/internal/fleet"
	"headway/internal/strict"
)

var powerOfTwoSpec = Spec{
	Name:    "power_of_two",
	Summary: "The less loaded of two random heads (Mitzenmacher, 2001): nearly as good as the least of all, at a constant price and without herds.",
	Formula: "argmin load over two heads drawn by max_in_flight · weight; load as of least_loaded",
	New:     func(Values, Build) (Strategy, []strict.Fault) { return powerOfTwo{}, nil },
}

type powerOfTwo struct{}

func (powerOfTwo) Choose(in *Input, picks []Pick) int {
	r := &in.Tier().Ranked
	return Fill(in, r.Heads, picks, chooseTwo(in, r, picks))
}

// chooseTwo writes the lighter and the heavier of two random available heads.
func chooseTwo(in *Input, r *fleet.Ranked, picks []Pick) int {
	a := drawLarge(in, r, nil)
	if a == nil {
		return 0
	}
	picks[0] = Pick{a, ownLoad(a, in.Now)}
	b := drawLarge(in, r, picks[:1])
	if b == nil {
		return 1
	}
	first, second := lighter(in, a, b)
	picks[0] = first
	if len(picks) < 2 {
		return 1
	}
	picks[1] = second
	return 2
}

func (powerOfTwo) Score(in *Input, scores []float64) { bestLoads(in, &in.Tier().Ranked, scores) }

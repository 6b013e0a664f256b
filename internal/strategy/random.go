package strategy

import "headway/internal/strict"

var randomSpec = Spec{
	Name:    "random",
	Summary: "A random head, by weight. It needs no signal and spreads well when requests are alike.",
	Formula: "P(h) = weight_h / Σ weight",
	Use:     "For comparison, and where nothing at all is known of the heads. It loses to every strategy that knows of load, the more the fuller the heads are.",
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

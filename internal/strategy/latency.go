package strategy

import (
	"headway/internal/fleet"
	"headway/internal/strict"
)

var latencySpec = Spec{
	Name:    "latency",
	Summary: "The better of two random heads by the time to the first token that was observed there lately, times its load.",
	Formula: "argmin over two heads drawn by max_in_flight · weight of ttft · load; ttft = (Σ w · observed + prior · (1 − explore) · mean of the pool) / (Σ w + prior), w = e^(−age / 10 s); load as of least_loaded",
	Use:     "For heads that are no language models, and for others where the time to the first token says how loaded or how fast a head is: heads of different speed, far away, or beside other work. Where no first token is reported the whole answer counts. What is old loses its weight, so that a head that was slow once is tried again, and a new one too. It loses where the time to the first token is the prompt's: a head that had the long ones is avoided for it. It loses to [`least_loaded`](#least_loaded) where heads are alike, since of two it takes one.",
	Parameters: []Parameter{
		{
			Name: "prior", Kind: KindNumber, Default: 4.0, Min: 0.1, Max: 1000, Unit: "observations",
			Summary: "As how many observations the mean of the pool counts: the more, the slower a difference is taken for one.",
		},
		{
			Name: "explore", Kind: KindNumber, Default: 0.2, Min: 0, Max: 0.9,
			Summary: "By what part of it a head of which nothing was observed lately is taken to be faster than the mean: the more, the sooner a slow head is tried again.",
		},
	},
	New: func(v Values, _ Build) (Strategy, []strict.Fault) {
		return latency{prior: v.Number("prior"), explore: v.Number("explore")}, nil
	},
}

type latency struct{ prior, explore float64 }

func (s latency) Choose(in *Input, picks []Pick) int { return chooseTimed(s, in, picks) }

func (s latency) Score(in *Input, scores []float64) { scoreTimed(s, in, scores) }

func (s latency) seconds(in *Input, list []*headPace, h *fleet.Head) float64 {
	return in.Recalled.Pace.likelyFirst(list, h, s.prior, s.explore, in.Now)
}

// Terms implements Explainer.
func (s latency) Terms(in *Input, costs []float64, i int) []Term {
	return timedTerms(s, in, costs, i, "ttft")
}

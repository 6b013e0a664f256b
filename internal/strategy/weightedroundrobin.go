package strategy

import "headway/internal/strict"

var weightedRoundRobinSpec = Spec{
	Name:    "weighted_round_robin",
	Summary: "Heads in turn, each as often as its weight says and spread evenly over time.",
	Formula: "h = heads[turn mod n] unless (w_h · ⌊turn/n⌋ + offset_h) mod W < W − w_h, with w_h = weight_h scaled so that the greatest is W = 65,535",
	Use:     "For heads of known, different sizes and requests that cost the same. It loses as [`round_robin`](#round_robin) does, and where the weights are wrong.",
	New:     func(Values, Build) (Strategy, []strict.Fault) { return weightedRoundRobin{}, nil },
}

// weightedRoundRobin is a static stride scheduler (gRPC proposal A58): in each
// generation of n turns a head is skipped unless its stride passes a multiple
// of W, so it is taken w_h of W generations, evenly spread, and the only state
// is the turn.
type weightedRoundRobin struct{}

const strideMax = 1<<16 - 1

func (weightedRoundRobin) Choose(in *Input, picks []Pick) int {
	tier := in.Tier()
	heads := tier.Heads
	size := uint64(len(heads))
	n := 0
	// In W generations each head is taken at least once if its weight is not
	// vanishing; looking at a few generations is enough but for extremes.
	for range 4*len(heads) + 16 {
		turn := in.Turn()
		at := turn % size
		h := heads[at]
		if strideSkips(h.Weight/tier.MaxWeight, turn/size, at) || !in.Available(h) {
			continue
		}
		picks[0] = Pick{h, nan}
		n = 1
		break
	}
	return Fill(in, heads, picks, n)
}

// strideSkips reports whether a head of the given share of the greatest weight
// is left out in a generation.
func strideSkips(share float64, generation, index uint64) bool {
	w := uint64(share*strideMax + 0.5)
	// Offsets a golden ratio apart keep heads of equal weight from being taken
	// in the same generations.
	offset := index * 40503 % strideMax
	return (w*generation+offset)%strideMax < strideMax-w
}

func (weightedRoundRobin) Score(in *Input, scores []float64) { noScores(in, scores) }

package strategy

import "headway/internal/strict"

var leastLoadedSpec = Spec{
	Name:    "least_loaded",
	Summary: "The head with the least load: of all heads where outcomes are reported, the better of two by the heads' own reports where they are not.",
	Formula: "argmin load; load = (in_flight + share · beyond + 1) / (max_in_flight · weight); without outcomes argmin over two random heads of (reported + picked since + 1) / (max_in_flight · weight)",
	Use:     "For heads whose requests cost about the same: embeddings, classification, short prompts. It loses where prompts differ in length or have their beginnings in common: it counts one of 50,000 tokens as one of 50, and knows no caches.",
	New:     func(Values, Build) (Strategy, []strict.Fault) { return leastLoaded{}, nil },
}

// leastLoaded never takes the minimum over reports that all routers share:
// between two reports they would all choose the same head.
type leastLoaded struct{}

func (leastLoaded) Choose(in *Input, picks []Pick) int {
	best := rank(len(picks))
	if !best.compare(in, in.Tier()) {
		return powerOfTwo{}.Choose(in, picks)
	}
	return best.write(in.Heads(), picks)
}

func (leastLoaded) Score(in *Input, scores []float64) { bestLoads(in, &in.Tier().Ranked, scores) }

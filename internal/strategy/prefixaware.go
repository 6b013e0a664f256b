package strategy

import (
	"math"

	"headway/internal/strict"
)

var prefixAwareSpec = Spec{
	Name:    "prefix_aware",
	Summary: "The head that has most of the prompt cached, unless it has many more requests than the least loaded; of equals the least loaded.",
	Formula: "argmin over heads with requests / weight ≤ ratio · least + floor of (uncached, requests / weight), else of requests / weight; uncached in tokens, and all of the prompt where less than min_cached is cached",
	Use:     "For language models where a cached beginning is worth more than an even load, or where a simple rule is wanted that can be followed by hand. It loses to [`adaptive`](#adaptive) where prompts differ in length or heads are busy: it counts requests and not tokens, and waits at a head with the prompt cached where another would begin sooner, until that head has so many more requests. Without hashes of prompts it is [`least_loaded`](#least_loaded).",
	Parameters: []Parameter{
		{
			Name: "ratio", Kind: KindNumber, Default: 1.5, Min: 1, Max: 100,
			Summary: "How many times the requests of the least loaded head a head may have and be chosen for its cache.",
		},
		{
			Name: "floor", Kind: KindNumber, Default: 4.0, Min: 1, Max: 1e6, Unit: "requests",
			Summary: "How many requests it may have beyond that, so that small numbers are no imbalance.",
		},
		{
			Name: "min_cached", Kind: KindNumber, Default: 256.0, Min: 0, Max: 1e6, Unit: "tokens",
			Summary: "Fewer cached tokens than these do not count, so that short prompts go by load.",
		},
	},
	New: func(v Values, _ Build) (Strategy, []strict.Fault) {
		return prefixAware{ratio: v.Number("ratio"), floor: v.Number("floor"), least: v.Number("min_cached")}, nil
	},
}

type prefixAware struct{ ratio, floor, least float64 }

func (s prefixAware) Choose(in *Input, picks []Pick) int { return chooseWeighed(s, in, picks) }

func (s prefixAware) Score(in *Input, scores []float64) { scoreWeighed(s, in, scores) }

func (prefixAware) wants() wants { return wants{least: true} }

// cost is a whole number of tokens, and a fraction that grows with the requests and
// only counts among equals. Heads with too many come after all others.
func (s prefixAware) cost(w *weighing, h *weighed) float64 {
	requests := w.dithered(h.requests) / h.weight
	if requests > s.ratio*w.least+s.floor {
		return math.Ceil(w.prompt) + 1 + requests
	}
	uncached := h.uncached
	if w.prompt-uncached < s.least {
		uncached = w.prompt
	}
	return math.Ceil(uncached) + requests/(1+requests)
}

// Terms implements Explainer.
func (prefixAware) Terms(in *Input, _ []float64, i int) []Term {
	w := &in.weighing
	h := &w.heads[i]
	return []Term{
		{"uncached", h.uncached, "tokens"}, {"prompt", w.prompt, "tokens"}, {"requests", h.requests, ""}, {"weight", h.weight, ""}, {"least", w.least, ""},
	}
}

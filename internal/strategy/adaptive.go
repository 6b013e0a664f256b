package strategy

import "headway/internal/strict"

var adaptiveSpec = Spec{
	Name:    "adaptive",
	Summary: "The head that begins to answer first: by the prompt tokens ahead of the request and those of its own that the head has not cached, by the head's speed, its requests, and the room in its KV cache.",
	Formula: "argmin slower · (ahead + (1 + κ) · uncached) / weight · (requests / weight + batch) · (1 + kv²); kv = (tokens there + prompt) / kv_capacity; κ = mean predicted wait in s, at most wait_limit; a prompt's work is its tokens, the attention over them, and what each prompt takes besides",
	Use:     "For heads that serve language models: what a request costs there is its prompt, and what of it is cached. It needs to know of prompts: the data plane reads them, a decision says `prompt`, `prefix_hashes` or at least `input_tokens`. It loses where prompts say nothing of the work, as with images or speech, where [`least_loaded`](#least_loaded) knows as much; and where a prompt is far longer than the others, a head without any may be worth a longer wait than it grants.",
	Parameters: []Parameter{
		{
			Name: "batch", Kind: KindNumber, Default: 16.0, Min: 0, Max: 1e6, Unit: "requests",
			Summary: "How little a request more matters at a head beside its prompt tokens: the more, the more requests a head with a warm cache may have.",
		},
		{
			Name: "wait_limit", Kind: KindNumber, Default: 60.0, Min: 0, Max: 1000, Unit: "s",
			Summary: "Up to this predicted wait what is not cached counts the more, the longer requests wait. A fleet that is behind catches up sooner if less is computed, and if long prompts go where few requests are.",
		},
	},
	New: func(v Values, _ Build) (Strategy, []strict.Fault) {
		return adaptive{batch: v.Number("batch"), limit: v.Number("wait_limit")}, nil
	},
}

type adaptive struct{ batch, limit float64 }

func (s adaptive) Choose(in *Input, picks []Pick) int { return chooseWeighed(s, in, picks) }

func (s adaptive) Score(in *Input, scores []float64) { scoreWeighed(s, in, scores) }

func (s adaptive) wants() wants { return wants{waitLimit: s.limit} }

// cost is the formula. The last factor keeps sessions of the same application from
// all going to the heads that have its prompt until those run out of memory.
func (s adaptive) cost(w *weighing, h *weighed) float64 {
	return h.slower * (h.ahead + (1+w.kappa)*h.uncached) / h.weight * (h.requests/h.weight + s.batch) * (1 + h.KV*h.KV)
}

// Terms implements Explainer.
func (adaptive) Terms(in *Input, _ []float64, i int) []Term {
	return in.weighing.heads[i].terms(&in.weighing)
}

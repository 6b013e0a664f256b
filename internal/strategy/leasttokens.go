package strategy

import "headway/internal/strict"

var leastTokensSpec = Spec{
	Name:    "least_tokens",
	Summary: "The head with the fewest prompt tokens to compute, those of the request in them, by its weight and its speed.",
	Formula: "argmin slower · (ahead + prompt) / weight",
	Use:     "For language models whose prompts differ in length and have nothing in common, or whose prefix cache is off. It loses to [`adaptive`](#adaptive) where prompts have their beginnings in common, since it knows no caches; and where long answers and not prompts are the work, since requests that are being answered do not count.",
	New:     func(Values, Build) (Strategy, []strict.Fault) { return leastTokens{}, nil },
}

type leastTokens struct{}

func (s leastTokens) Choose(in *Input, picks []Pick) int { return chooseWeighed(s, in, picks) }

func (s leastTokens) Score(in *Input, scores []float64) { scoreWeighed(s, in, scores) }

func (leastTokens) wants() wants { return wants{} }

func (leastTokens) cost(w *weighing, h *weighed) float64 {
	return h.slower * (h.ahead + w.prompt) / h.weight
}

// Terms implements Explainer.
func (leastTokens) Terms(in *Input, _ []float64, i int) []Term {
	w := &in.weighing
	h := &w.heads[i]
	return []Term{
		{"slower", h.slower, ""}, {"ahead", h.ahead, "tokens"}, {"prompt", w.prompt, "tokens"}, {"weight", h.weight, ""},
	}
}

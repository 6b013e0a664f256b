package strategy

import (
	"math"

	"headway/internal/strict"
)

var sloSpec = Spec{
	Name:    "slo",
	Summary: "As adaptive, but a request that no head is likely to begin to answer within its objective is refused at once, with the wait that it would have.",
	Formula: "argmin cost of adaptive; refused if min over heads of predicted time to the first token + distance > max(ttft_ms, slowdown · that at an idle head with nothing cached)",
	Use:     "For language models in front of which callers can do something better than wait: go to another provider, a smaller model by the policy's `fallbacks`, or try again later. The answer is 429 `objective_unreachable` with `Retry-After`; `headway_decision_failures_total{reason=\"objective_unreachable\"}` counts the refusals. While too little is known of prompts to predict anything, it places as [`adaptive`](#adaptive). It loses where callers send refused requests again at once, and where a late answer is better than none: there `adaptive` serves more of them.",
	Parameters: []Parameter{
		{
			Name: "ttft_ms", Kind: KindNumber, Default: 2000.0, Min: 1, Max: 1e7, Unit: "ms",
			Summary: "The objective: the time within which the first token is to come.",
		},
		{
			Name: "slowdown", Kind: KindNumber, Default: 3.0, Min: 0, Max: 1000,
			Summary: "For long prompts the objective is this many times what an idle head takes, if that is more; 0: it is not.",
		},
	},
	New: newSLO,
}

type slo struct {
	adaptive

	objective, slowdown float64
}

func newSLO(v Values, build Build) (Strategy, []strict.Fault) {
	within, faults := build(adaptiveSpec.Name, nil)
	s := slo{objective: v.Number("ttft_ms"), slowdown: v.Number("slowdown")}
	s.adaptive, _ = within.(adaptive)
	return s, faults
}

// Objective implements Refuser.
func (s slo) Objective(in *Input) float64 {
	in.RecallPrompt()
	if in.Recalled.Pace == nil {
		return math.NaN()
	}
	return max(s.objective, s.slowdown*in.Recalled.Pace.Alone(in.Tokens()))
}

// Soonest is the least predicted time to the first token at a head that takes the
// request, the way to it included, in ms; NaN: it is not known of one of them, or none
// takes it. It looks no further once it is within enough.
func (in *Input) Soonest(enough float64) float64 {
	in.RecallPrompt()
	at, passed, least := in.At, in.Passed, math.NaN()
	defer func() { in.At, in.Passed = at, passed }()
	for in.At = range in.Tiers {
		tier := in.Tier()
		for _, h := range tier.Heads {
			if !in.Takes(h) {
				continue
			}
			soon := in.See(h).Predicted
			if math.IsNaN(soon) {
				return soon
			}
			if tier.Distance > 0 {
				soon += tier.Distance
			}
			if math.IsNaN(least) || soon < least {
				least = soon
			}
			if least <= enough {
				return least
			}
		}
	}
	return least
}

package strategy

import (
	"math"
	"testing"
)

// What a strategy is said to choose with which chance is what it chooses so often.
func TestChancesAreHowOftenHeadsAreChosen(t *testing.T) {
	fleets := map[string][]head{
		"uneven":       {{1, 8, 0}, {2, 8, 1}, {1, 8, 3}, {1, 8, 5}},
		"alike":        {{1, 8, 2}, {1, 8, 2}, {1, 8, 2}},
		"one is taken": {{1, 2, 2}, {1, 8, 1}, {3, 8, 1}},
		"one":          {{1, 8, 0}},
		"none is free": {{1, 2, 2}, {1, 2, 2}},
	}
	const rounds = 5_000
	for _, name := range []string{"random", "round_robin", "weighted_round_robin", "power_of_two", "latency", "peak_ewma", "least_loaded", "least_tokens", "prefix_aware", "adaptive", "model_specific"} {
		for kind, heads := range fleets {
			s := chooser(t, name)
			plainly := Strategy(s)
			if by, ok := s.(byScore); ok {
				plainly = by.Strategy
			}
			here := tier("us", 0, heads)
			n := len(here.Heads)
			often, chances, costs := make([]float64, n), make([]float64, n), make([]float64, n)
			for seed := range uint64(rounds) {
				in := input([]Tier{here}, &Request{ModelType: "m"}, Mix(seed, 1))
				var pick [1]Pick
				if s.Choose(in, pick[:]) == 0 {
					continue
				}
				for i, h := range here.Heads {
					if h == pick[0].Head {
						often[i] += 1. / rounds
					}
				}
			}
			in := input([]Tier{here}, &Request{ModelType: "m"}, 7)
			plainly.Score(in, costs)
			Chances(plainly, in, costs, chances)
			sum := 0.
			for i := range chances {
				sum += chances[i]
				if math.Abs(chances[i]-often[i]) > 0.03 {
					t.Errorf("%s, %s: head %d was chosen %.3f of the time, with a chance of %.3f", name, kind, i, often[i], chances[i])
				}
			}
			if math.Abs(sum-1) > 1e-9 && (kind != "none is free" || sum != 0) {
				t.Errorf("%s, %s: the chances sum up to %v", name, kind, sum)
			}
		}
	}
}

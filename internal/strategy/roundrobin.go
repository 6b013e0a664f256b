package strategy

import (
	"math"

	"headway/internal/strict"
)

var roundRobinSpec = Spec{
	Name:    "round_robin",
	Summary: "Heads in turn. It needs no signal and is even when requests and heads are alike.",
	Formula: "h = heads[turn mod n], turn = 0, 1, 2, …",
	Use:     "For heads that are alike and requests that cost the same, or where the same number of requests at each is asked for. It loses as soon as heads or requests differ: it goes on sending to a head that is behind.",
	New:     func(Values, Build) (Strategy, []strict.Fault) { return roundRobin{}, nil },
}

var nan = math.NaN()

type roundRobin struct{}

func (roundRobin) Choose(in *Input, picks []Pick) int {
	heads := in.Heads()
	first := int(in.Turn() % uint64(len(heads)))
	n := 0
	for i := range heads {
		at := first + i
		if at >= len(heads) {
			at -= len(heads)
		}
		if h := heads[at]; in.Available(h) {
			picks[n] = Pick{h, nan}
			if n++; n == len(picks) {
				break
			}
		}
	}
	return n
}

func (roundRobin) Score(in *Input, scores []float64) { noScores(in, scores) }

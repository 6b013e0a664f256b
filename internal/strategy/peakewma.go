package strategy

import (
	"headway/internal/fleet"
	"headway/internal/strict"
)

var peakEWMASpec = Spec{
	Name:    "peak_ewma",
	Summary: "The better of two random heads by the peak of the response times there lately, times its load (Finagle and Linkerd).",
	Formula: "argmin over two heads drawn by max_in_flight · weight of peak · load; peak = the response time where that is greater, else it falls to it by 1 − e^(−age / 10 s), and while none comes to half the mean of the pool; load as of least_loaded",
	Use:     "For heads that are ordinary services, whose response times are alike unless a head is in trouble: it leaves such a head at once and comes back slowly. It loses on heads that serve language models: there the response time is the prompt's and the answer's, and a head that had one long request is avoided although it is idle. On those it is the worst of all that look at the heads.",
	New:     func(Values, Build) (Strategy, []strict.Fault) { return peakEWMA{}, nil },
}

type peakEWMA struct{}

func (s peakEWMA) Choose(in *Input, picks []Pick) int { return chooseTimed(s, in, picks) }

func (s peakEWMA) Score(in *Input, scores []float64) { scoreTimed(s, in, scores) }

func (peakEWMA) seconds(in *Input, list []*headPace, h *fleet.Head) float64 {
	return in.Recalled.Pace.likelyPeak(list, h, in.Now)
}

// Terms implements Explainer.
func (s peakEWMA) Terms(in *Input, costs []float64, i int) []Term {
	return timedTerms(s, in, costs, i, "peak")
}

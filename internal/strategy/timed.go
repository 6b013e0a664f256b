package strategy

import (
	"headway/internal/fleet"
)

// timer is a strategy that takes the better of two random heads by the time that they
// are likely to take, times their load. Where all who choose compared all heads by what
// each saw a while ago, they would choose the same.
type timer interface {
	// seconds is the time that a head is likely to take; 0: nothing is known of any.
	seconds(in *Input, list []*headPace, h *fleet.Head) float64
}

// chooseTimed is Choose of a timer.
func chooseTimed[S timer](s S, in *Input, picks []Pick) int {
	in.RecallPrompt()
	list := in.Recalled.Pace.list()
	return chooseOfTwo(in, picks, func(h *fleet.Head) float64 { return factor(s, in, list, h) })
}

// scoreTimed is Score of a timer.
func scoreTimed[S timer](s S, in *Input, scores []float64) {
	in.RecallPrompt()
	list := in.Recalled.Pace.list()
	bestLoads(in, &in.Tier().Ranked, scores)
	for i, h := range in.Heads() {
		scores[i] *= factor(s, in, list, h)
	}
}

// factor is what multiplies the load of a head: the time, or 1 where none is known.
func factor[S timer](s S, in *Input, list []*headPace, h *fleet.Head) float64 {
	if in.Recalled.Pace == nil {
		return 1
	}
	if seconds := s.seconds(in, list, h); seconds > 0 {
		return seconds
	}
	return 1
}

// timedTerms are the terms of a timer's cost.
func timedTerms[S timer](s S, in *Input, costs []float64, i int, name string) []Term {
	seconds := factor(s, in, in.Recalled.Pace.list(), in.Heads()[i])
	return []Term{{name, seconds, "s"}, {"load", costs[i] / seconds, ""}}
}

// Chances implements Chancer.
func (latency) Chances(in *Input, costs, chances []float64) { powerOfTwo{}.Chances(in, costs, chances) }

// Chances implements Chancer.
func (peakEWMA) Chances(in *Input, costs, chances []float64) {
	powerOfTwo{}.Chances(in, costs, chances)
}

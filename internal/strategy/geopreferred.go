package strategy

import (
	"math"

	"headway/internal/fleet"
	"headway/internal/strict"
)

var geoPreferredSpec = Spec{
	Name:          "geo_preferred",
	Summary:       "The nearest head, unless it is so loaded that the way to a farther one is shorter than the wait.",
	Formula:       "argmin distance_ms + load_ms · load; load as of least_loaded",
	AcrossRegions: true,
	Parameters: []Parameter{
		{
			Name: "load_ms", Kind: KindNumber, Default: 200.0, Min: 0, Max: 1e6, Unit: "ms",
			Summary: "What a fully loaded head costs more than an idle one.",
		},
		{
			Name: "unknown_distance_ms", Kind: KindNumber, Default: 100.0, Min: 0, Max: 1e6, Unit: "ms",
			Summary: "How much farther than the farthest known region one without a distance counts.",
		},
	},
	New: func(v Values, _ Build) (Strategy, []strict.Fault) {
		return geoPreferred{loadMs: v.Number("load_ms"), unknownMs: v.Number("unknown_distance_ms")}, nil
	},
}

type geoPreferred struct{ loadMs, unknownMs float64 }

func (g geoPreferred) Choose(in *Input, picks []Pick) int {
	n := g.chooseRanked(in, picks, false)
	if n < len(picks) {
		n += g.chooseRanked(in, picks[n:], true)
	}
	return n
}

// chooseRanked chooses among the tiers that are degraded or not: within each
// region as least_loaded does, then the region whose choice costs least.
func (g geoPreferred) chooseRanked(in *Input, picks []Pick, degraded bool) int {
	unknown := g.unknownDistance(in)
	first := in.At
	defer func() { in.At = first }()
	best := Pick{Cost: math.Inf(1)}
	n := 0 // alternatives, in picks[1:]
	for ; in.At < len(in.Tiers); in.At++ {
		tier := in.Tier()
		if tier.Degraded != degraded {
			continue
		}
		distance := tier.Distance
		if math.IsNaN(distance) {
			distance = unknown
		}
		if n > 0 && n == len(picks)-1 && distance >= best.Cost && distance >= picks[n].Cost {
			continue // an idle head there would be neither the least nor an alternative
		}
		least := rank(len(picks))
		if !least.compare(in, tier) {
			var near [1 + MaxAlternatives]Pick
			found := powerOfTwo{}.Choose(in, near[:len(picks)])
			for i, p := range near[:found] {
				if math.IsNaN(p.Cost) { // drawn as an alternative, not compared
					p.Cost = ownLoad(p.Head, in.Now)
				}
				best, n = g.consider(picks, best, n, i == 0, p.Head, distance+g.loadMs*p.Cost)
			}
			continue
		}
		for i, at := range least.at[:least.n] {
			cost := distance + g.loadMs*least.cost[i]
			if i > 0 && n > 0 && n == len(picks)-1 && cost >= picks[n].Cost {
				break // nor will those behind it be among the alternatives
			}
			best, n = g.consider(picks, best, n, i == 0, tier.Heads[at], cost)
		}
	}
	if best.Head == nil {
		return 0
	}
	picks[0] = best
	return 1 + n
}

// consider takes a head as the best, if it leads its region and costs least, or
// into the n alternatives in picks[1:].
func (geoPreferred) consider(picks []Pick, best Pick, n int, leads bool, h *fleet.Head, cost float64) (Pick, int) {
	p := Pick{h, cost}
	if leads && cost < best.Cost {
		best, p = p, best
	}
	if p.Head != nil {
		n = insert(picks[1:], n, p)
	}
	return best, n
}

// insert puts p into the n picks that are ordered by cost and returns how many
// there are then.
func insert(picks []Pick, n int, p Pick) int {
	at := n
	for at > 0 && p.Cost < picks[at-1].Cost {
		at--
	}
	if at == len(picks) {
		return n
	}
	if n < len(picks) {
		n++
	}
	copy(picks[at+1:n], picks[at:n-1])
	picks[at] = p
	return n
}

func (g geoPreferred) unknownDistance(in *Input) float64 {
	farthest := 0.0
	for i := range in.Tiers {
		if d := in.Tiers[i].Distance; d > farthest {
			farthest = d
		}
	}
	return farthest + g.unknownMs
}

func (g geoPreferred) Score(in *Input, scores []float64) {
	bestLoads(in, &in.Tier().Ranked, scores)
	distance := in.Tier().Distance
	if math.IsNaN(distance) {
		distance = g.unknownDistance(in)
	}
	for i := range scores {
		scores[i] = distance + g.loadMs*scores[i]
	}
}

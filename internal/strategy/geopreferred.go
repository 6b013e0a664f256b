package strategy

import (
	"math"

	"headway/internal/strict"
)

var geoPreferredSpec = Spec{
	Name:          "geo_preferred",
	Summary:       "The nearest head, unless it is so loaded that the way to a farther one is shorter than the wait.",
	Formula:       "argmin distance_ms + load_ms · load; load as of least_loaded",
	Use:           "For heads in several regions where the way to the caller counts as much as a wait of fractions of a second. It loses where a request takes seconds or is long: it counts requests, not prompts, and knows no caches.",
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
func (g geoPreferred) chooseRanked(in *Input, picks []Pick, degraded bool) (n int) {
	unknown := g.unknownDistance(in)
	first := in.At
	for in.At = first; in.At < len(in.Tiers); in.At++ {
		tier := in.Tier()
		distance := tier.Distance
		if math.IsNaN(distance) {
			distance = unknown
		}
		if tier.Degraded != degraded || n == len(picks) && distance >= picks[n-1].Cost {
			continue // an idle head there would not be among the picks
		}
		var near [1 + MaxAlternatives]Pick
		found := leastLoaded{}.Choose(in, near[:len(picks)])
		for i, p := range near[:found] {
			if math.IsNaN(p.Cost) { // drawn as an alternative, not compared
				p.Cost = ownLoad(p.Head, in.Now)
			}
			near[i].Cost = distance + g.loadMs*p.Cost
			if i > 0 { // the region's choice comes before its alternatives at any cost
				near[i].Cost = max(near[i].Cost, near[0].Cost)
			}
			n = insert(picks, n, near[i])
		}
	}
	in.At = first
	return n
}

// insert puts p into n picks that are ordered by cost. It returns their number.
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

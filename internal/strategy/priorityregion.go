package strategy

import (
	"fmt"
	"math"
	"slices"

	"headway/internal/fleet"
	"headway/internal/strict"
)

var priorityRegionSpec = Spec{
	Name:          "priority_region",
	Summary:       "The request's region, by adaptive, as long as the wait there is not longer than at the next one and the way to it by more than a penalty.",
	Formula:       "argmin over regions of wait + (0 at home, else distance + penalty; once requests go there distance + return), wait that of adaptive's choice: its predicted time to the first token, or request · (requests + 1) / weight while none is known; within the region as adaptive",
	Use:           "For language models in several regions that keep to their own heads and may use those of others in a rush. Requests begin to go to another region when that is sooner by the penalty, and do so until it is sooner by no more than `return_ms`, so that they do not swing. Regions in `stay` are never left, as with the region mode `require`, but by callers who may choose another strategy. It loses to [`geo_preferred`](#geo_preferred) where requests are short and the way is what counts; and a region that has what other regions are to be relieved by should have heads to spare, since those come without asking.",
	AcrossRegions: true,
	Parameters: []Parameter{
		{
			Name: "penalty_ms", Kind: KindNumber, Default: 200.0, Min: 0, Max: 1e6, Unit: "ms",
			Summary: "By how much sooner than at home, the way included, a request must be answered elsewhere for requests to begin to go there.",
		},
		{
			Name: "return_ms", Kind: KindNumber, Default: 50.0, Min: 0, Max: 1e6, Unit: "ms",
			Summary: "By how much sooner for them to go on; at most penalty_ms.",
		},
		{
			Name: "request_ms", Kind: KindNumber, Default: 50.0, Min: 1, Max: 1e6, Unit: "ms",
			Summary: "For how long each request at a head lets another wait, while too little is known of prompts to predict it.",
		},
		{
			Name: "unknown_distance_ms", Kind: KindNumber, Default: 100.0, Min: 0, Max: 1e6, Unit: "ms",
			Summary: "How much farther than the farthest known region one without a distance counts.",
		},
		{
			Name: "stay", Kind: KindList,
			Summary: "Patterns with * and ? of regions whose requests must not leave them.",
		},
	},
	New: newPriorityRegion,
}

type priorityRegion struct {
	within    adaptive
	penalty   float64
	back      float64
	request   float64
	distances geoPreferred // for what an unknown distance counts
	stay      []*strict.Glob
}

func newPriorityRegion(v Values, build Build) (Strategy, []strict.Fault) {
	s := &priorityRegion{
		penalty: v.Number("penalty_ms"), back: v.Number("return_ms"), request: v.Number("request_ms"),
		distances: geoPreferred{unknownMs: v.Number("unknown_distance_ms")},
	}
	var faults strict.Faults
	if s.back > s.penalty {
		faults.Add("/return_ms", "must be at most penalty_ms, %v ms", s.penalty)
	}
	for i, element := range v.List("stay") {
		pattern, ok := element.(string)
		if !ok || pattern == "" || len(pattern) > strict.MaxPattern {
			faults.Add(fmt.Sprintf("/stay/%d", i), "want a pattern of 1 to %d bytes", strict.MaxPattern)
			continue
		}
		s.stay = append(s.stay, strict.NewGlob(pattern))
	}
	within, found := build(adaptiveSpec.Name, nil)
	s.within, _ = within.(adaptive)
	return s, append(faults, found...)
}

// Stays implements Resident.
func (s *priorityRegion) Stays(_, region string) bool {
	return region != "" && slices.ContainsFunc(s.stay, func(g *strict.Glob) bool { return g.Match(region) })
}

func (s *priorityRegion) Choose(in *Input, picks []Pick) int {
	n := s.chooseRanked(in, picks, false)
	if n < len(picks) {
		n += s.chooseRanked(in, picks[n:], true)
	}
	return n
}

// chooseRanked chooses among the tiers that are degraded or not: within each as adaptive
// does, then the tier that costs least.
func (s *priorityRegion) chooseRanked(in *Input, picks []Pick, degraded bool) (n int) {
	first := in.At
	home := math.Inf(1)
	for ; in.At < len(in.Tiers); in.At++ {
		if in.Tier().Degraded != degraded {
			continue
		}
		var near [1 + MaxAlternatives]Pick
		found := s.within.Choose(in, near[:len(picks)])
		if found == 0 {
			continue
		}
		wait := s.wait(in, near[0].Head)
		if in.Tier().Region == in.Request.Region {
			home = wait
		} else {
			s.overflow(in, home-wait)
		}
		least, cost := near[0].Cost, wait+s.way(in)
		for i := range near[:found] {
			if near[i].Cost = cost * max(near[i].Cost/least, 1); math.IsNaN(near[i].Cost) { // drawn as an alternative
				near[i].Cost = cost
			}
			n = insert(picks, n, near[i])
		}
	}
	in.At = first
	return n
}

// overflow notes whether requests go to the tier, where one waits so much shorter than
// at home. While home has no place they do in any case.
func (s *priorityRegion) overflow(in *Input, shorter float64) {
	over := &in.Tier().State.over[in.shadow]
	switch sooner := shorter - s.distance(in); {
	case math.IsInf(shorter, 1):
	case sooner > s.penalty && !over.Load():
		over.Store(true)
	case sooner < s.back && over.Load():
		over.Store(false)
	}
}

// way is what the tier costs beside the wait in ms.
func (s *priorityRegion) way(in *Input) float64 {
	switch tier := in.Tier(); {
	case tier.Region == in.Request.Region:
		return 0
	case tier.State.over[in.shadow].Load():
		return s.distance(in) + s.back
	}
	return s.distance(in) + s.penalty
}

func (s *priorityRegion) distance(in *Input) float64 {
	if d := in.Tier().Distance; !math.IsNaN(d) {
		return d
	}
	return s.distances.unknownDistance(in)
}

// wait is how long the request is likely to wait at the head, in ms.
func (s *priorityRegion) wait(in *Input, h *fleet.Head) float64 {
	seen := in.See(h)
	if math.IsNaN(seen.Predicted) {
		return s.request * (seen.Requests + 1) / h.Weight
	}
	return seen.Predicted
}

func (s *priorityRegion) Score(in *Input, scores []float64) {
	s.within.Score(in, scores)
	best := -1
	for i, cost := range scores {
		if !math.IsInf(cost, 1) && (best < 0 || cost < scores[best]) {
			best = i
		}
	}
	if best < 0 {
		return
	}
	least, cost := scores[best], s.wait(in, in.Heads()[best])+s.way(in)
	for i := range scores {
		scores[i] = cost * (scores[i] / least)
	}
}

// Terms implements Explainer.
func (s *priorityRegion) Terms(in *Input, costs []float64, i int) []Term {
	return append([]Term{{"wait", s.wait(in, in.Heads()[i]), "ms"}, {"way", s.way(in), "ms"}}, s.within.Terms(in, costs, i)...)
}

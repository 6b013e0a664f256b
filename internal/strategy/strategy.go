// Package strategy orders the heads that may serve a request: one file for each
// strategy.
package strategy

import (
	"math"
	"slices"

	"headway/internal/fleet"
	"headway/internal/strict"
)

// Strategy scores the heads that may serve a request. It is pure: all it knows
// comes in the Input, time and randomness too, and it keeps nothing between calls.
// It is safe for concurrent use and allocates nothing.
type Strategy interface {
	// Score writes the cost of each of in.Heads() into scores, which has the
	// same length: lower is better, +Inf is for heads that are not available or
	// only where no other is, NaN is a strategy that does not compare.
	Score(in *Input, scores []float64)
}

// Chooser is a Strategy that chooses without scoring every head. A property test
// compares the choice with the scores.
type Chooser interface {
	Strategy
	// Choose writes the best available heads into picks, best first and each
	// once, and returns how many it wrote; 0 means that no head of the tier is
	// available. Ties are broken at random.
	Choose(in *Input, picks []Pick) int
}

// ChooserOf returns s if it is a Chooser. Else it chooses the heads of the lowest
// scores, ties at random; where s does not compare, any is as good.
func ChooserOf(s Strategy) Chooser {
	if c, ok := s.(Chooser); ok {
		return c
	}
	return byScore{s}
}

type byScore struct{ Strategy }

func (s byScore) Choose(in *Input, picks []Pick) int {
	heads := in.Heads()
	in.scores = slices.Grow(in.scores[:0], len(heads))[:len(heads)]
	s.Score(in, in.scores)
	best := rank(len(picks))
	for i, cost := range in.scores {
		if math.IsNaN(cost) {
			cost = 0
		}
		if best.wants(cost) {
			best.add(&in.Rand, i, cost)
		}
	}
	n := best.write(heads, picks)
	for j := range n {
		picks[j].Cost = in.scores[best.at[j]]
	}
	return Fill(in, heads, picks, n)
}

// Refuser is a Strategy that refuses a request where no head is likely to begin to
// answer in time, although one has a place for it.
type Refuser interface {
	Strategy
	// Objective is the longest time to the first token in ms that is worth a place,
	// NaN if too little is known.
	Objective(in *Input) float64
}

// Refuses reports whether a strategy may refuse requests for a model type.
func Refuses(s Strategy, modelType string) bool {
	if m, ok := s.(*modelSpecific); ok {
		s = m.rule(modelType).strategy
	}
	_, ok := s.(Refuser)
	return ok
}

// Resident is a Strategy that keeps requests in some regions.
type Resident interface {
	Strategy
	// Stays reports whether requests for a model type must not leave the region: that
	// they require it, even if they would take another.
	Stays(modelType, region string) bool
}

// Spec registers a strategy under its name.
type Spec struct {
	Name       string
	Summary    string // one sentence
	Formula    string // one line
	Use        string // sentences: what it is for, and when it loses
	Parameters []Parameter
	// AcrossRegions says that Choose looks at all of in.Tiers itself. For
	// other strategies the router goes from tier to tier.
	AcrossRegions bool
	// New makes the strategy from values, which are complete and within the
	// bounds that Parameters declare. Faults have pointers relative to the
	// parameters object. build makes strategies that this one delegates to.
	New func(values Values, build Build) (Strategy, []strict.Fault)
}

// Build makes the named strategy from a parameters object as a policy has it.
type Build func(name string, parameters map[string]any) (Strategy, []strict.Fault)

// Specs returns every strategy there is, ordered by name.
func Specs() []Spec { return slices.Clone(specs) }

// Pick is one head that a strategy chose and the cost it saw; NaN when the
// strategy does not compare costs.
type Pick struct {
	Head *fleet.Head
	Cost float64
}

// Package strategy orders the heads that may serve a request: one file for each
// strategy.
package strategy

import (
	"slices"

	"headway/internal/fleet"
	"headway/internal/strict"
)

// Strategy orders the heads that may serve a request. A strategy is pure: what
// it knows of the moment comes in the Input, time and randomness too, and it
// keeps nothing between calls. It is safe for concurrent use.
type Strategy interface {
	// Choose writes the best available heads into picks, best first and each
	// once, and returns how many it wrote; 0 means that no head of the tier is
	// available. Ties are broken at random. It must not allocate.
	Choose(in *Input, picks []Pick) int
	// Score writes the cost of each of in.Heads() into scores, which has the
	// same length: lower is better, +Inf is not available, NaN is a strategy
	// that does not compare. It serves explanations, so it may be slower than
	// Choose.
	Score(in *Input, scores []float64)
}

// Spec registers a strategy under its name. All specs stand in Specs.
type Spec struct {
	Name       string
	Summary    string // one sentence
	Formula    string // one line
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

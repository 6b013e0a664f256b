package routing

import (
	"math"

	"headway/internal/strict"
)

// Policy is a compiled Document. It is immutable, what it points to included;
// its methods take no lock and allocate nothing.
type Policy struct {
	Document Document
	Revision uint64 // the store's; 0: the default in the binary
	// Warnings name what is allowed and probably not meant.
	Warnings []strict.Fault

	fallback plan
	rules    []compiledRule
	// byModel are the indices of the rules that match a model type, for those
	// that some rule names literally; unnamed are the candidates for others.
	byModel map[string][]int
	unnamed []int

	byName    map[string]instance
	models    map[string]bool
	may       map[string]bool
	regions   map[string]string // each to itself
	indices   map[string]int    // of regions in distances
	distances []float64         // ms, row by row: from, to; NaN is unknown
}

// RuleDefault is Decision.Rule when no rule matched.
const RuleDefault = -1

// plan is how a policy serves a request.
type plan struct {
	strategy   Strategy
	spec       *Spec
	rule       int // index into the document's rules, or RuleDefault
	regionMode RegionMode
}

// instance is a strategy with its parameters.
type instance struct {
	strategy Strategy
	spec     *Spec
}

type compiledRule struct {
	plan
	model, region *glob
}

// plan is what the first rule that matches says, else the default. The model
// type is one that model returned, the region "" when the request names none.
func (p *Policy) plan(modelType, region string) plan {
	candidates, named := p.byModel[modelType]
	if !named {
		candidates = p.unnamed
	}
	for _, i := range candidates {
		r := &p.rules[i]
		if (named || r.model.match(modelType)) && r.region.match(region) {
			return r.plan
		}
	}
	return p.fallback
}

// named is the strategy of that name with the parameters that the policy gives
// it. It is not there when its parameters have no complete default and the
// policy gives none.
func (p *Policy) named(strategy string) (Strategy, *Spec, bool) {
	i, ok := p.byName[strategy]
	return i.strategy, i.spec, ok
}

// model resolves an alias; any other name is its own model type.
func (p *Policy) model(alias string) string {
	if m, ok := p.Document.Aliases[alias]; ok {
		return m
	}
	return alias
}

// distance is the distance in ms, 0 from a region to itself, NaN when the
// policy does not know it.
func (p *Policy) distance(from, to string) float64 {
	if from == to {
		return 0
	}
	i, known := p.indices[from]
	if !known {
		return math.NaN()
	}
	j, known := p.indices[to]
	if !known {
		return math.NaN()
	}
	return p.distances[i*len(p.indices)+j]
}

// callerMay reports whether a request may choose the field itself.
func (p *Policy) callerMay(field string) bool { return p.may[field] }

// namesModel reports whether the policy names the model type literally.
func (p *Policy) namesModel(m string) bool { return p.models[m] }

// region returns the region in the policy's memory if the policy names it
// literally, else "".
func (p *Policy) region(r string) string { return p.regions[r] }

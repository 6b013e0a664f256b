// Package policy reads, checks and compiles the document that says which
// strategy serves which traffic.
package policy

import (
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"

	"headway/internal/strategy"
	"headway/internal/strict"
)

// Policy is a compiled Document. It is immutable, what it points to included;
// the look-ups of a decision take no lock and allocate nothing.
type Policy struct {
	Document  Document
	Canonical []byte // the document as compact JSON; equal documents have equal bytes
	Revision  uint64 // the store's; 0: the default in the binary, or not stored
	// Warnings name what is allowed and probably not meant.
	Warnings []strict.Fault

	standard  Plan // of requests that no rule matches
	rules     []compiledRule
	fallbacks []compiledFallback
	hedged    []*strict.Glob // model types; none: all
	shadows   []Instance     // asked beside those that decide
	// byModel are the indices of the rules that match a model type which some rule
	// names literally; unnamed are the candidates for others.
	byModel map[string][]int
	unnamed []int

	byName    map[string]Instance
	models    map[string]bool
	may       map[string]bool
	regions   map[string]string // each to itself
	indices   map[string]int    // of regions in distances
	distances []float64         // ms, row by row: from, to; NaN is unknown
}

// RuleDefault is Plan.Rule when no rule matched.
const RuleDefault = -1

// Instance is a strategy with its parameters.
type Instance struct {
	Strategy strategy.Chooser
	Spec     *strategy.Spec
}

// Plan is how a policy serves a request.
type Plan struct {
	Instance
	Rule       int // index into the document's rules, or RuleDefault
	RegionMode strategy.RegionMode
}

type compiledRule struct {
	Plan
	model, region *strict.Glob
}

// At is the policy as the given revision.
func (p *Policy) At(revision uint64) *Policy {
	stored := *p
	stored.Revision = revision
	return &stored
}

// Plan is what the first rule that matches says, else the default. The model
// type is one that Model returned, the region "" when the request names none.
func (p *Policy) Plan(modelType, region string) Plan {
	candidates, named := p.byModel[modelType]
	if !named {
		candidates = p.unnamed
	}
	for _, i := range candidates {
		r := &p.rules[i]
		if (named || r.model.Match(modelType)) && r.region.Match(region) {
			return r.Plan
		}
	}
	return p.standard
}

// Unmatched are the pointers of the rules for some model types or regions that match no
// request for the model type from one of the regions; none: requests name no region.
func (p *Policy) Unmatched(modelType string, regions []string) (pointers []string) {
	if len(regions) == 0 {
		regions = []string{""}
	}
	for i := range p.rules {
		r := &p.rules[i]
		if !r.model.Match(modelType) || !slices.ContainsFunc(regions, r.region.Match) {
			pointers = append(pointers, "/rules/"+strconv.Itoa(i))
		}
	}
	return pointers
}

// Named is the strategy of that name with the parameters that the policy gives it.
// ok is false if it needs parameters and the policy gives none.
func (p *Policy) Named(name string) (i Instance, ok bool) {
	i, ok = p.byName[name]
	return i, ok
}

// Model resolves an alias; any other name is its own model type.
func (p *Policy) Model(alias string) string {
	if m, ok := p.Document.Aliases[alias]; ok {
		return m
	}
	return alias
}

// Distance is the distance in ms, 0 from a region to itself, NaN when the
// policy does not know it.
func (p *Policy) Distance(from, to string) float64 {
	if from == to {
		return 0
	}
	i, known := p.indices[from]
	j, known2 := p.indices[to]
	if !known || !known2 {
		return math.NaN()
	}
	return p.distances[i*len(p.indices)+j]
}

// MaxInFlight is how many requests for a model type may be placed at once; 0: any
// number.
func (p *Policy) MaxInFlight(modelType string) int64 {
	if len(p.Document.Pools) == 0 {
		return 0
	}
	return p.Document.Pools[modelType].MaxInFlight
}

// CallerMay reports whether a request may choose the field itself.
func (p *Policy) CallerMay(field string) bool { return p.may[field] }

// NamesModel reports whether the policy names the model type literally.
func (p *Policy) NamesModel(m string) bool { return p.models[m] }

// Region returns the region in the policy's memory if the policy names it
// literally, else "".
func (p *Policy) Region(r string) string { return p.regions[r] }

// Models are the model types and aliases that the policy names literally.
func (p *Policy) Models() iter.Seq[string] { return maps.Keys(p.models) }

// Regions are the regions that the policy names literally.
func (p *Policy) Regions() iter.Seq[string] { return maps.Keys(p.regions) }

// Hidden returns a fault for each of the model types of heads that an alias of the
// policy hides: requests for it go to another model type.
func (p *Policy) Hidden(models []string) []strict.Fault {
	var hidden []strict.Fault
	for _, m := range models {
		if target, ok := p.Document.Aliases[m]; ok {
			hidden = append(hidden, strict.Fault{
				Pointer: "/aliases/" + strict.Escape(m),
				Reason:  fmt.Sprintf("heads serve %s under this name, and no request reaches them: requests for it go to %s; give the alias another name, or take it away", strict.Quote(m), strict.Quote(target)),
			})
		}
	}
	return hidden
}

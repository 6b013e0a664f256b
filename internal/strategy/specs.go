package strategy

import (
	"slices"
	"strings"
)

// Add adds a strategy beside those there are, such as the rule of another router that
// is compared with them. It is to be called before any policy is made.
func Add(spec Spec) {
	specs = append(specs, spec)
	slices.SortFunc(specs, func(a, b Spec) int { return strings.Compare(a.Name, b.Name) })
}

// specs are the strategies, ordered by name. A new one is a file with its Spec,
// a line here and a script in the testdata of routing.
var specs = []Spec{
	adaptiveSpec,
	geoPreferredSpec,
	latencySpec,
	leastLoadedSpec,
	leastTokensSpec,
	modelSpecificSpec,
	peakEWMASpec,
	powerOfTwoSpec,
	prefixAwareSpec,
	priorityRegionSpec,
	randomSpec,
	roundRobinSpec,
	sessionAffinitySpec,
	sloSpec,
	weightedRoundRobinSpec,
}

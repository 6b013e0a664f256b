package strategy

// specs are the strategies, ordered by name. A new one is a file with its Spec,
// a line here and a script in the testdata of routing.
var specs = []Spec{
	geoPreferredSpec,
	leastLoadedSpec,
	modelSpecificSpec,
	powerOfTwoSpec,
	randomSpec,
	roundRobinSpec,
	sessionAffinitySpec,
	weightedRoundRobinSpec,
}

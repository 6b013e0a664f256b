package policy

import (
	"maps"
	"slices"

	"headway/internal/strategy"
	"headway/internal/strict"
)

// maxInstances bounds the strategies that one policy makes, those that others
// delegate to included.
const maxInstances = 10_000

// build is the Build of the policy: parameters override what the document says of
// the strategy, and that overrides the defaults. Faults have pointers relative to
// parameters; that of the name itself is "".
func (c *compiler) build(name string, parameters map[string]any) (strategy.Strategy, []strict.Fault) {
	var faults strict.Faults
	spec := findSpec(name)
	switch {
	case spec == nil:
		faults.Add("", "%s", UnknownStrategy(name))
		return nil, faults
	case slices.Contains(c.building, name):
		faults.Add("", "%s would delegate to itself", name)
		return nil, faults
	}
	if made, ok := c.policy.byName[name]; ok && len(parameters) == 0 {
		return made.Strategy, nil
	}
	values, faults := spec.Check(parameters)
	switch {
	case len(faults) > 0:
		return nil, faults
	case c.unsound[name]:
		return nil, nil // the fault is named where the document has it
	case c.instances >= maxInstances:
		faults.Add("", "the policy needs more than %d strategies", maxInstances)
		return nil, faults
	}
	c.instances++
	complete := strategy.Values{}
	for _, p := range spec.Parameters {
		if p.Default != nil {
			complete[p.Name] = p.Default
		}
	}
	maps.Copy(complete, c.base[name])
	maps.Copy(complete, values)
	c.building = append(c.building, name)
	s, faults := spec.New(complete, c.build)
	c.building = c.building[:len(c.building)-1]
	return s, faults
}

// specs are the strategies that a policy may name.
var specs = strategy.Specs()

// findSpec returns the spec of that name, or nil.
func findSpec(name string) *strategy.Spec {
	for i := range specs {
		if specs[i].Name == name {
			return &specs[i]
		}
	}
	return nil
}

// UnknownStrategy says that no strategy has the name, and which there are.
func UnknownStrategy(name string) string {
	return strict.Unknown("strategy", name, StrategyNames())
}

// StrategyNames are the names of all strategies.
func StrategyNames() []string {
	names := make([]string, len(specs))
	for i := range specs {
		names[i] = specs[i].Name
	}
	return names
}

package strategy

import (
	"slices"
	"testing"
)

// What a policy hands to Spec.New is complete and within bounds only if the
// defaults are.
func TestDefaultsAreValuesOfTheirParameters(t *testing.T) {
	var names []string
	for _, s := range specs {
		names = append(names, s.Name)
	}
	if !slices.IsSorted(names) || len(slices.Compact(names)) != len(specs) {
		t.Errorf("the strategies are not sorted, or two have one name: %v", names)
	}
	for _, s := range specs {
		for _, p := range s.Parameters {
			if p.Default == nil && p.Kind == KindList {
				continue
			}
			if !p.allows(p.Default) {
				t.Errorf("%s, %s: default %v is not %s", s.Name, p.Name, p.Default, p.Allowed())
			}
		}
	}
}

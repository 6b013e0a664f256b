package strategy

import (
	"math"
	"slices"
	"testing"
)

func TestParametersTakeOnlyWhatJSONHolds(t *testing.T) {
	p := Parameter{Kind: KindList}
	for _, v := range []any{make(chan int), []any{math.NaN()}, map[string]any{"\xff": 1}, []any{"\xff"}, struct{}{}} {
		if _, reason := p.read(v); reason == "" {
			t.Errorf("%v was taken", v)
		}
	}
	if v, reason := (&Parameter{Kind: KindNumber, Max: 9}).read(5); v != 5.0 || reason != "" {
		t.Errorf("an int of 5 is %v, %s", v, reason)
	}
}

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
			if v, reason := p.read(p.Default); reason != "" || v != p.Default {
				t.Errorf("%s, %s: default %v: %s", s.Name, p.Name, p.Default, reason)
			}
		}
	}
}

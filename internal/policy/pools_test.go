package policy_test

import (
	"testing"

	"headway/internal/policy"
)

func TestPoolsAreBounded(t *testing.T) {
	p, faults := policy.Parse([]byte(`{"default_strategy":"random","pools":{"m":{"max_in_flight":3},"n":{}}}`), "json")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if p.MaxInFlight("m") != 3 || p.MaxInFlight("n") != 0 || p.MaxInFlight("other") != 0 || !p.NamesModel("m") {
		t.Errorf("the bounds are %d, %d and %d", p.MaxInFlight("m"), p.MaxInFlight("n"), p.MaxInFlight("other"))
	}
	for text, want := range map[string]string{
		`{"default_strategy":"random","pools":{"a b":{}}}`:                                    "/pools/a b",
		`{"default_strategy":"random","pools":{"m":{"max_in_flight":0}}}`:                     "/pools/m/max_in_flight",
		`{"default_strategy":"random","pools":{"m":{"max":1}}}`:                               "/pools/m/max",
		`{"default_strategy":"random","aliases":{"a":"m"},"pools":{"a":{"max_in_flight":1}}}`: "/pools/a",
	} {
		if _, faults := policy.Parse([]byte(text), "json"); len(faults) != 1 || faults[0].Pointer != want {
			t.Errorf("%s: %v", text, faults)
		}
	}
}

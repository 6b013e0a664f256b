package strategy

import (
	"testing"

	"headway/internal/strict"
)

func TestPriorityRegionChecksItsParameters(t *testing.T) {
	values := Values{"penalty_ms": 100.0, "return_ms": 200.0, "request_ms": 50.0, "unknown_distance_ms": 0.0, "stay": []any{"eu-*", 3.0, ""}}
	_, faults := newPriorityRegion(values, plain)
	var at []string
	for _, f := range faults {
		at = append(at, f.Pointer)
	}
	if len(at) != 3 || at[0] != "/return_ms" || at[1] != "/stay/1" || at[2] != "/stay/2" {
		t.Errorf("faults at %q", at)
	}
}

// What must stay does so also behind a strategy that delegates.
func TestRegionsInStayAreNotLeft(t *testing.T) {
	s := &priorityRegion{stay: nil}
	if s.Stays("m", "eu-1") {
		t.Error("a region stays that is not named")
	}
	rule := map[string]any{"match": "m-*", "strategy": "priority_region"}
	build := func(name string, parameters map[string]any) (Strategy, []strict.Fault) {
		if name != priorityRegionSpec.Name {
			return plain(name, parameters)
		}
		return newPriorityRegion(Values{"penalty_ms": 1.0, "return_ms": 1.0, "request_ms": 1.0, "stay": []any{"eu-*"}}, plain)
	}
	of, faults := newModelSpecific(Values{"fallback": "random", "models": []any{rule}}, build)
	m, ok := of.(Resident)
	if !ok || len(faults) > 0 {
		t.Fatal(faults)
	}
	for _, c := range []struct {
		model, region string
		stays         bool
	}{{"m-1", "eu-1", true}, {"m-1", "us-1", false}, {"m-1", "", false}, {"n", "eu-1", false}} {
		if got := m.Stays(c.model, c.region); got != c.stays {
			t.Errorf("%s in %q stays: %v", c.model, c.region, got)
		}
	}
}

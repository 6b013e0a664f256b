package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

func TestFaultsOfFallbacksAreNamed(t *testing.T) {
	many := strings.Repeat("{model_type: x},", maxTargets+1)
	for text, want := range map[string]string{
		"[{to: [{model_type: b}]}]":                                "/fallbacks/0/match",
		"[{match: {}}]":                                            "/fallbacks/0/to",
		"[{match: {}, to: []}]":                                    "/fallbacks/0/to",
		"[{match: {}, to: [" + many + "]}]":                        "/fallbacks/0/to",
		"[{match: {}, to: [{}]}]":                                  "/fallbacks/0/to/0",
		"[{match: {model_type: a}, to: [{model_type: a}]}]":        "/fallbacks/0/to/0/model_type",
		"[{match: {model_type: a}, to: [{model_type: alias}]}]":    "/fallbacks/0/to/0/model_type",
		"[{match: {model_type: a}, to: [{model_type: 'b c'}]}]":    "/fallbacks/0/to/0/model_type",
		"[{match: {model_type: a}, to: [{region: 'b c'}]}]":        "/fallbacks/0/to/0/region",
		"[{match: {model_type: 'a b'}, to: [{region: b}]}]":        "/fallbacks/0/match/model_type",
		"[{match: {}, to: [{model: b}]}]":                          "/fallbacks/0/to/0/model",
		strings.Repeat("- {match: {}, to: [{region: b}]}\n", 1001): "/fallbacks",
	} {
		_, faults := Parse([]byte("default_strategy: random\naliases: {alias: a}\nfallbacks: "+strings.Replace(text, "- ", "\n- ", 1)), "yaml")
		if len(faults) != 1 && want != "/fallbacks/0/to/0/model" || len(faults) == 0 || faults[0].Pointer != want {
			t.Errorf("%.60s has the faults %v, want one at %s", text, faults, want)
		}
	}
}

func TestTheFirstFallbackThatMatchesCounts(t *testing.T) {
	p := compilePolicy(t, `
default_strategy: random
fallbacks:
  - {match: {model_type: "a*", region: eu}, to: [{region: us}, {model_type: b}]}
  - {match: {model_type: "a*"}, to: [{model_type: c, region: eu}]}
  - {match: {model_type: ab}, to: [{model_type: c}]}
`)
	for _, c := range []struct {
		model, region string
		want          []Target
	}{
		{"ab", "eu", []Target{{Region: "us"}, {ModelType: "b"}}},
		{"ab", "", []Target{{ModelType: "c", Region: "eu"}}},
		{"b", "eu", nil},
	} {
		if got := p.Fallbacks(c.model, c.region); !slices.Equal(got, c.want) {
			t.Errorf("%s in %q falls back to %v, want %v", c.model, c.region, got, c.want)
		}
	}
	if !p.NamesModel("c") || !p.NamesModel("ab") || p.Region("us") == "" {
		t.Error("what fallbacks name is not known")
	}
	if len(p.Warnings) != 1 || p.Warnings[0].Pointer != "/fallbacks/2" {
		t.Errorf("warned of %v", p.Warnings)
	}
}

func TestHedgesAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		"{}":                                  "/hedge",
		"{after_ms: 5, quantile: 0.9}":        "/hedge",
		"{after_ms: 0.5}":                     "/hedge/after_ms",
		"{after_ms: 600001}":                  "/hedge/after_ms",
		"{after_ms: -1}":                      "/hedge/after_ms",
		"{quantile: 95}":                      "/hedge/quantile",
		"{quantile: 0.1}":                     "/hedge/quantile",
		"{after_ms: 5, model_types: ['a b']}": "/hedge/model_types/0",
		"{after: 5, after_ms: 5}":             "/hedge/after",
	} {
		_, faults := Parse([]byte("default_strategy: random\nhedge: "+text), "yaml")
		if len(faults) != 1 || faults[0].Pointer != want {
			t.Errorf("%s has the faults %v, want one at %s", text, faults, want)
		}
	}
	p := compilePolicy(t, "default_strategy: random\nhedge: {after_ms: 1.5, model_types: ['embed-*']}")
	if h := p.HedgeOf("embed-1"); h == nil || h.After() != 1500*time.Microsecond {
		t.Errorf("embed-1 is hedged as %+v", h)
	}
	if h := p.HedgeOf("llama"); h != nil {
		t.Errorf("llama is hedged as %+v", h)
	}
	if text, err := json.Marshal(compilePolicy(t, "default_strategy: random\nhedge: {after_ms: 5}\npools: {m: {}}").Document); err != nil || strings.Contains(string(text), "quantile") || strings.Contains(string(text), "max_in_flight") {
		t.Errorf("a policy is printed as %s, %v", text, err)
	}
	if h := compilePolicy(t, "default_strategy: random\nhedge: {quantile: 0.9}").HedgeOf("llama"); h == nil || h.After() != 0 || h.Quantile != 0.9 {
		t.Errorf("llama is hedged as %+v", h)
	}
	if compilePolicy(t, "default_strategy: random").HedgeOf("llama") != nil {
		t.Error("without hedge it is")
	}
}

package policy_test

import (
	"strings"
	"testing"

	"headway/internal/policy"
)

func TestShadowsAreCompiledOnce(t *testing.T) {
	p, faults := policy.Parse([]byte(`{"default_strategy":"random","strategies":{"session_affinity":{"parameters":{"bound":2}}},"shadow":["round_robin","session_affinity"],"shadow_share":0.05}`), "json")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if s := p.Shadows(); len(s) != 2 || s[0].Spec.Name != "round_robin" || s[1].Spec.Name != "session_affinity" || p.ShadowShare() != 0.05 {
		t.Errorf("%d shadows, share %v", len(s), p.ShadowShare())
	}
	if named, _ := p.Named("session_affinity"); p.Shadows()[1].Strategy == nil || named.Strategy == nil {
		t.Error("a shadow has no strategy")
	}
	if p, _ = policy.Parse([]byte(`{"default_strategy":"random","shadow":["round_robin"]}`), "json"); p.ShadowShare() != 0.02 {
		t.Errorf("without a share it is %v", p.ShadowShare())
	}
	if p, faults = policy.Parse([]byte(`{"default_strategy":"random","rules":[{"match":{"model_type":"m"},"strategy":"round_robin"}],"shadow":["random"]}`), "json"); p == nil {
		t.Errorf("a strategy that decides for some requests is refused: %v", faults)
	}
	for text, want := range map[string]string{
		`"shadow":["randon"]`:                    `/shadow/0: unknown strategy "randon"; did you mean "random"?`,
		`"shadow":["random"]`:                    `/shadow/0: "random" decides for every request itself`,
		`"shadow":["round_robin","round_robin"]`: `/shadow/1: "round_robin" is named twice`,
		`"shadow":["adaptive","least_loaded","power_of_two","round_robin"]`: `/shadow: 4 strategies; at most 3 are allowed`,
		`"shadow_share":0`:    `/shadow_share: must be 0.01 to 0.05`,
		`"shadow_share":0.06`: `/shadow_share: must be 0.01 to 0.05`,
	} {
		_, faults := policy.Parse([]byte(`{"default_strategy":"random",`+text+`}`), "json")
		if len(faults) != 1 || !strings.HasPrefix(faults[0].Pointer+": "+faults[0].Reason, want) {
			t.Errorf("%s: %v, want %s", text, faults, want)
		}
	}
}

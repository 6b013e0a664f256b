package routing_test

import (
	"errors"
	"strings"
	"testing"

	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/strategy"
)

const falling = `
default_strategy: least_loaded
rules: [{match: {model_type: strict}, strategy: least_loaded, region_mode: require}]
aliases: {alias: m, other: small}
fallbacks:
  - {match: {model_type: m}, to: [{model_type: gone}, {model_type: other}, {model_type: strict, region: eu}]}
  - {match: {model_type: strict, region: us}, to: [{region: eu}]}
  - {match: {model_type: "*"}, to: [{model_type: small}]}
caller_may: [region_mode, strategy]
`

func serving(model string, limit int64) func(*fleet.Spec) {
	return func(s *fleet.Spec) { s.ModelTypes, s.MaxInFlight = []string{model}, limit }
}

func TestAFallbackIsTakenWhereThereIsNoHeadOrNoPlace(t *testing.T) {
	w := newWorld(t, nil)
	w.policy(falling)
	w.head("large", "us", serving("m", 1))
	small := w.head("small", "us", serving("small", 1))
	w.head("far", "eu", serving("strict", 0))
	near := w.head("near", "us", serving("strict", 0))

	first := w.decide(strategy.Request{ModelType: "alias", Region: "us"})
	if first.Head.ID != "large" || first.Fallback() != nil {
		t.Errorf("with a place free it goes to %s, %+v", first.Head.ID, first.Fallback())
	}
	d := w.decide(strategy.Request{ModelType: "alias", Region: "us"})
	if d.Head.ID != "small" || d.ModelType != "small" || d.Fallback() == nil || *d.Fallback() != (routing.Fallback{ModelType: "m", Region: "us", Why: routing.FailAtCapacity}) {
		t.Errorf("beside one place taken it goes to %s as %s, %+v", d.Head.ID, d.ModelType, d.Fallback())
	}
	if reason := string(d.AppendReason(nil)); !strings.Contains(reason, "fallback from m in us (at_capacity)") {
		t.Errorf("the reason is %q", reason)
	}
	// The next in order, in the region that the policy names.
	if d := w.decide(strategy.Request{ModelType: "m", Region: "us"}); d.Head.ID != "far" || d.Region != "eu" {
		t.Errorf("with both full it goes to %s", d.Head.ID)
	}
	// Another region, of a model type that is served in the requested one alone.
	w.report("near", near, fleet.StatusDraining)
	if d := w.decide(strategy.Request{ModelType: "strict", Region: "us"}); d.Head.ID != "far" || d.Fallback().Why != routing.FailUnroutable {
		t.Errorf("with the region drained it goes to %s, %+v", d.Head.ID, d.Fallback())
	}
	// The caller's own word stands above the policy's fallback.
	if why := w.refused(strategy.Request{ModelType: "strict", Region: "us", RegionMode: strategy.RegionRequire}); why != routing.FailUnroutable {
		t.Errorf("with the region required by the caller the failure is %s", why)
	}
	// A model type that the policy names and no head serves; one that is unknown.
	if why := w.refused(strategy.Request{ModelType: "gone"}); why != routing.FailNoHeads {
		t.Errorf("with its only fallback full the failure is %s", why)
	}
	w.router.End(d, routing.Outcome{Result: routing.ResultOK})
	d = w.decide(strategy.Request{ModelType: "gone"})
	if d.Head.ID != "small" || d.Fallback().Why != routing.FailNoHeads {
		t.Errorf("without a head it goes to %s, %+v", d.Head.ID, d.Fallback())
	}
	w.router.End(d, routing.Outcome{Result: routing.ResultOK}) // so that the fallback for * has a place
	if why := w.refused(strategy.Request{ModelType: "misspelt"}); why != routing.FailUnknownModel {
		t.Errorf("an unknown model type fails with %s", why)
	}
	// Where each fails, the failure is that of what was asked for. Fallbacks of
	// fallbacks are not tried.
	w.report("small", small, fleet.StatusDraining)
	for _, model := range []string{"m", "small"} {
		_, err := w.router.Decide(&strategy.Request{ModelType: model, Region: "us", RegionMode: strategy.RegionRequire})
		if none, ok := errors.AsType[*routing.NoHeadError](err); !ok || none.ModelType != model {
			t.Errorf("%s fails with %v", model, err)
		}
	}
	counted := map[string]float64{}
	families, err := w.metrics.Gather()
	check(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "headway_decision_fallbacks_total" {
				counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	for reason, want := range map[string]float64{"at_capacity": 2, "unroutable": 1, "no_heads": 1, "region": 0} {
		if n, there := counted[reason]; n != want || !there {
			t.Errorf("%v fallbacks are counted for %s, want %v", n, reason, want)
		}
	}
}

func TestFallingBackKeepsTheIDAndTheHeadsTried(t *testing.T) {
	w := newWorld(t, nil)
	w.policy(falling)
	both := func(s *fleet.Spec) { s.ModelTypes = []string{"m", "small"} }
	w.head("both", "us", both)
	w.head("small", "us", serving("small", 0))
	req := strategy.Request{ModelType: "m"}
	d := w.decide(req)
	next, err := w.router.Again(d, &req, routing.Outcome{Result: routing.ResultError, StatusCode: 502})
	if err != nil {
		t.Fatal(err)
	}
	if next.Head.ID != "small" || next.ID() != d.ID() || next.Fallback().Why != routing.FailTried {
		t.Errorf("the next attempt is at %s, %+v", next.Head.ID, next.Fallback())
	}
	if _, err := w.router.Again(next, &req, routing.Outcome{Result: routing.ResultError, StatusCode: 502}); err == nil {
		t.Error("a head is tried twice")
	}
	if n := w.router.Open(); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}

func TestAReplayFallsBackToo(t *testing.T) {
	w := newWorld(t, nil)
	w.policy(falling)
	w.head("small", "us", serving("small", 0))
	w.decide(strategy.Request{ModelType: "gone"})
	other, faults := policy.Parse([]byte(strings.Replace(falling, "{model_type: small}]", "{model_type: nothing}]", 1)), "yaml")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if r := w.router.Replay(w.router.Policy()); r.Moved+r.Failed != 0 || r.Decisions != 1 {
		t.Errorf("under the same policy: %+v", r)
	}
	if r := w.router.Replay(other); r.Failed != 1 {
		t.Errorf("without a fallback that has a head: %+v", r)
	}
}

package routing_test

import (
	"errors"
	"testing"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// A pool that the policy bounds has no more places, however many its heads have.
func TestThePolicyBoundsAPool(t *testing.T) {
	freed := map[string]int{}
	w := newWorld(t, func(o *routing.Options) { o.Freed = func(h *fleet.Head) { freed[h.ID]++ } })
	w.head("a", "us", nil)
	w.head("b", "us", nil)
	before := w.decide(strategy.Request{})
	w.policy(`{default_strategy: random, pools: {m: {max_in_flight: 2}, other: {}}}`)
	first, second := w.decide(strategy.Request{}), w.decide(strategy.Request{Held: true})
	if f := w.refused(strategy.Request{}); f != routing.FailPoolFull {
		t.Fatalf("the third request: %s", f)
	}
	end := routing.Outcome{Result: routing.ResultOK}
	w.router.End(before, end) // it was placed before the bound was set
	if f := w.refused(strategy.Request{}); f != routing.FailPoolFull {
		t.Fatalf("after the end of one that does not count: %s", f)
	}
	for range 2 { // an end counts once
		w.router.End(first, end)
	}
	third := w.decide(strategy.Request{})
	if f := w.refused(strategy.Request{}); f != routing.FailPoolFull {
		t.Fatalf("after one end: %s", f)
	}
	req := strategy.Request{ModelType: "m", Held: true}
	if _, err := w.router.Hedge(second, &req); err == nil {
		t.Fatal("a hedge went beyond the bound")
	}
	// A bound below what is taken: a further attempt keeps its place all the same.
	w.policy(`{default_strategy: random, pools: {m: {max_in_flight: 1}}}`)
	again, err := w.router.Again(second, &req, broke)
	check(t, err)
	w.policy(`{default_strategy: random, pools: {m: {max_in_flight: 2}}}`)
	if f := w.refused(strategy.Request{}); f != routing.FailPoolFull {
		t.Fatalf("after a further attempt: %s", f)
	}
	if _, err := w.router.Again(again, &req, broke); err == nil {
		t.Fatal("no head is left, and there was a further attempt")
	}
	w.decide(strategy.Request{})
	if f := w.refused(strategy.Request{}); f != routing.FailPoolFull {
		t.Fatalf("after an attempt that found no head: %s", f)
	}
	w.policy(`{default_strategy: random}`)
	w.decide(strategy.Request{})
	w.router.End(third, end)
	if freed["a"]+freed["b"] != 5 {
		t.Errorf("places came free: %v", freed)
	}
}

// A refusal of a caller that waits for a place is no failure so far.
func TestWhoWaitsForAPlaceHasNotFailed(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "us", func(s *fleet.Spec) { s.MaxInFlight = 1 })
	w.decide(strategy.Request{})
	for _, failures := range []int{0, 1} {
		_, err := w.router.Decide(&strategy.Request{ModelType: "m", Waits: failures == 0})
		no, ok := errors.AsType[*routing.NoHeadError](err)
		if !ok || no.Failure != routing.FailAtCapacity || no.ModelType != "m" || no.RetryAfter <= 0 {
			t.Fatalf("the refusal is %v", err)
		}
		if kept := len(w.router.Recent(routing.RecentQuery{Limit: 9})) - 1; kept != failures {
			t.Errorf("%d failures are kept, want %d", kept, failures)
		}
	}
	_, err := w.router.Decide(&strategy.Request{ModelType: "unknown", Waits: true})
	if no, ok := errors.AsType[*routing.NoHeadError](err); !ok || no.Failure != routing.FailUnknownModel {
		t.Errorf("an unknown model: %v", err)
	}
}

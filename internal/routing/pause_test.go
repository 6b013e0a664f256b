package routing_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

func (w *world) live(id string) *fleet.Live {
	w.Helper()
	for _, p := range w.fleet.Snapshot().Pools {
		for _, h := range p.All.Heads {
			if h.ID == id {
				return h.Live
			}
		}
	}
	w.Fatalf("there is no head %s", id)
	return nil
}

// A head that asked for a pause is no candidate of a request that respects that, by
// any strategy, nor its trial. The error says whether a place may
// come free, or when the first pause ends.
func TestAPauseIsNoCandidate(t *testing.T) {
	for _, spec := range strategy.Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.policy("{default_strategy: random, caller_may: [strategy, region_mode], fallbacks: [{match: {model_type: m}, to: [{model_type: n}]}]}")
				for _, id := range []string{"a", "b"} {
					w.head(id, "us", func(s *fleet.Spec) { s.MaxInFlight = 1 })
				}
				ask := func(region string) (*routing.Decision, *routing.NoHeadError) {
					mode := strategy.RegionDefault
					if region != "" {
						mode = strategy.RegionRequire
					}
					d, err := w.router.Decide(&strategy.Request{ModelType: "m", Strategy: spec.Name, Region: region, RegionMode: mode, SkipAway: true, Held: true, SessionKey: "s"})
					no, ok := errors.AsType[*routing.NoHeadError](err)
					if err != nil && !ok {
						t.Fatal(err)
					}
					return d, no
				}
				w.live("a").StayAway(time.Now().Add(40 * time.Second))
				d, _ := ask("")
				if d == nil || d.Head.ID != "b" || len(d.Alternatives()) != 0 {
					t.Fatalf("beside a pause it is %+v", d)
				}
				if _, no := ask(""); no == nil || no.Failure != routing.FailAtCapacity || !no.Busy || !no.Paused.IsZero() {
					t.Fatalf("one head pauses, one is full: %+v", no)
				}
				w.live("b").StayAway(time.Now().Add(20 * time.Second))
				for i, region := range []string{"", "us"} {
					if _, no := ask(region); no == nil || no.Failure != routing.FailPaused || no.Busy || time.Until(no.Paused) != 20*time.Second {
						t.Fatalf("%d: all pause: %+v", i, no)
					}
				}
				if at := w.router.PausedUntil(&strategy.Request{ModelType: "m"}); time.Until(at) != 20*time.Second {
					t.Errorf("the first pause ends at %s", at)
				}
				// Another region, and a fallback.
				w.head("c", "eu", nil)
				w.live("c").StayAway(time.Now().Add(10 * time.Second))
				if _, no := ask("us"); no == nil || time.Until(no.Paused) != 20*time.Second {
					t.Errorf("in the region that is required: %+v", no)
				}
				w.head("n", "us", serving("n", 1))
				if d, _ := ask(""); d == nil || d.Head.ID != "n" || d.Fallback() == nil {
					t.Fatalf("with a fallback it is %+v", d)
				}
				if _, no := ask(""); no == nil || !no.Busy {
					t.Errorf("with a fallback that is full: %+v", no)
				}
				made := w.router.Newest()
				if w.decide(strategy.Request{Strategy: spec.Name}).Head.ID == "" || w.router.Newest() != made+1 {
					t.Error("who does not respect pauses is not served")
				}
			})
		})
	}
	t.Run("trial", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := ejecting(t, "a", "b")
			w.eject("a", "b")
			time.Sleep(11 * time.Second)
			w.live("a").StayAway(time.Now().Add(time.Minute))
			for range 20 {
				if d := w.decide(strategy.Request{SkipAway: true}); d.Head.ID != "b" {
					t.Fatal("the trial went to a head in a pause")
				}
			}
			if d := w.decide(strategy.Request{}); d.Head.ID != "a" || !d.Trial {
				t.Errorf("the trial went to %s", d.Head.ID)
			}
		})
	})
}

// A request that is refused without a look for a place is a decision that failed.
func TestARefusalIsKept(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "us", nil)
	err := w.router.Refuse(&strategy.Request{ModelType: "m", Region: "us", Queued: time.Second})
	no, ok := errors.AsType[*routing.NoHeadError](err)
	if !ok || no.Failure != routing.FailAtCapacity || no.RetryAfter <= 0 || no.Decision == nil {
		t.Fatalf("%v", err)
	}
	if d, err := w.router.Decision(no.Decision.ID()); err != nil || d != no.Decision || d.Queued() != time.Second {
		t.Errorf("it is read back as %+v, %v", d, err)
	}
	if _, ok := errors.AsType[*routing.OverrideError](w.router.Refuse(&strategy.Request{ModelType: "m", Strategy: "random", Exclude: []string{"a"}})); ok {
		t.Error("what the policy allows is refused")
	}
	if no, _ := errors.AsType[*routing.NoHeadError](w.router.Refuse(&strategy.Request{ModelType: "unknown"})); no == nil || no.Failure != routing.FailUnknownModel {
		t.Errorf("an unknown model: %v", no)
	}
}

// An attempt that has ended can be followed by another later.
func TestAnAttemptAfterOneThatEnded(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "us", nil)
	first := w.decide(strategy.Request{Held: true})
	req := &strategy.Request{ModelType: "m", Held: true}
	if _, err := w.router.Again(first, req, broke); err == nil {
		t.Fatal("there is another head")
	}
	w.head("b", "us", nil)
	d, err := w.router.After(first, req)
	if err != nil || d.Head.ID != "b" || d.ID() != first.ID() || d.Before() != first {
		t.Errorf("%+v, %v", d, err)
	}
}

package routing_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// A caller that holds its decision ends it itself: neither time nor newer
// decisions nor what others report of it give its place back.
func TestAHeldPlaceLastsUntilItsCallerEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var freed atomic.Int64
		w := newWorldOf(t, registry.LeaseOptions{}, func(o *routing.Options) {
			o.ReservationTTL, o.MaxTTL, o.Recent = 16*time.Second, time.Minute, 4
			o.Freed = func(h *fleet.Head) {
				if h.ID != "a" {
					t.Errorf("a place of %q came free", h.ID)
				}
				freed.Add(1)
			}
		})
		lease := w.head("a", "us", nil)
		held := w.decide(strategy.Request{Held: true})
		if !held.ExpiresAt().IsZero() {
			t.Errorf("it expires at %v", held.ExpiresAt())
		}
		check(t, w.router.FirstToken(held.ID()))
		check(t, w.router.Finish(held.ID(), routing.Outcome{Result: routing.ResultError, StatusCode: 500}))
		if at := held.FirstTokenAt(); !at.IsZero() {
			t.Errorf("another reported its first token at %v", at)
		}
		w.pass(10*time.Minute, "a", lease, 0)
		for range 9 {
			w.router.End(w.decide(strategy.Request{}), routing.Outcome{Result: routing.ResultOK})
		}
		if _, err := w.router.Decision(held.ID()); !errors.Is(err, routing.ErrDecisionNotFound) {
			t.Errorf("nine decisions later it is found: %v", err)
		}
		if o, ended := held.Outcome(); ended || inFlight(w) != 1 || w.router.Open() != 1 || freed.Load() != 9 {
			t.Fatalf("after ten minutes it ended %t with %v; %d in flight, %d open, %d came free", ended, o, inFlight(w), w.router.Open(), freed.Load())
		}
		w.router.Begun(held)
		if held.FirstTokenAt() != time.Now() {
			t.Errorf("its first token came at %v", held.FirstTokenAt())
		}
		for range 2 {
			w.router.End(held, routing.Outcome{Result: routing.ResultOK})
		}
		if o, ended := held.Outcome(); !ended || o.Result != routing.ResultOK || inFlight(w) != 0 || w.router.Open() != 0 || freed.Load() != 10 {
			t.Fatalf("its end: %t with %v; %d in flight, %d open, %d came free", ended, o, inFlight(w), w.router.Open(), freed.Load())
		}
	})
}

// A further attempt of a held decision is held too, also where newer decisions
// took its slot.
func TestAgainHoldsThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, registry.LeaseOptions{}, func(o *routing.Options) { o.Recent = 4 })
		leases := map[string]fleet.Lease{"a": w.head("a", "us", nil), "b": w.head("b", "us", nil)}
		for _, overtaken := range []bool{false, true} {
			req := strategy.Request{ModelType: "m", Held: true}
			first := w.decide(req)
			for range 5 {
				if overtaken {
					w.router.End(w.decide(strategy.Request{}), routing.Outcome{Result: routing.ResultOK})
				}
			}
			second, err := w.router.Again(first, &req, broke)
			check(t, err)
			for range 300 {
				w.counts("a", leases["a"], 0, 0)
				w.counts("b", leases["b"], 0, 0)
				time.Sleep(time.Second)
			}
			if _, ended := second.Outcome(); ended || inFlight(w) != 1 {
				t.Fatalf("overtaken %t: the second attempt ended %t, %d in flight", overtaken, ended, inFlight(w))
			}
			w.router.End(second, routing.Outcome{Result: routing.ResultOK})
			if inFlight(w) != 0 || w.router.Open() != 0 {
				t.Fatalf("overtaken %t: %d in flight, %d open", overtaken, inFlight(w), w.router.Open())
			}
		}
	})
}

// A head that answered Retry-After gets no request until then while another has
// room, by every strategy; it is the last resort.
func TestRequestsStayAwayUntilTheTimeThatAHeadNamed(t *testing.T) {
	for _, spec := range strategy.Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldOf(t, registry.LeaseOptions{}, nil)
				ids := []string{"a", "b"}
				leases := map[string]fleet.Lease{}
				for _, id := range ids {
					leases[id] = w.head(id, "us", nil)
				}
				live := func(id string) *fleet.Live {
					i := slices.IndexFunc(w.fleet.Snapshot().Pools["m"].All.Heads, func(h *fleet.Head) bool { return h.ID == id })
					return w.fleet.Snapshot().Pools["m"].All.Heads[i].Live
				}
				chosen := func() map[string]int {
					got := map[string]int{}
					for range 40 {
						d := w.decide(strategy.Request{Strategy: spec.Name, Region: "us"})
						got[d.Head.ID]++
						w.router.End(d, routing.Outcome{Result: routing.ResultOK})
					}
					return got
				}
				live("a").StayAway(time.Now().Add(5 * time.Second))
				live("a").StayAway(time.Now().Add(time.Second)) // the later time holds
				for range 4 {
					if got := chosen(); got["a"] != 0 {
						t.Fatalf("%d of 40 went to the head that asked for time", got["a"])
					}
					time.Sleep(time.Second)
					for _, id := range ids { // a report does not end it
						w.counts(id, leases[id], 0, 0)
					}
				}
				live("b").StayAway(time.Now().Add(500 * time.Millisecond))
				if got := chosen(); got["a"]+got["b"] != 40 {
					t.Errorf("where all ask for time %v were chosen", got)
				}
				time.Sleep(2 * time.Second)
				if got := chosen(); got["a"] == 0 {
					t.Errorf("after the time %v were chosen", got)
				}
			})
		})
	}
}

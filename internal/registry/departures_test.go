package registry_test

import (
	"context"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// The series of a model type or region whose last head was deregistered end at
// once; those of one whose last head was lost stay for an hour.
func TestWhatIsDeregisteredIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), func(o *registry.Options) { o.Lease.RemoveAfter = time.Minute })
		has := func(when, name string, want bool) {
			t.Helper()
			for _, metric := range []string{"headway_model_registered_heads", "headway_model_routable_heads", "headway_region_registered_heads", "headway_region_routable_heads"} {
				if n, got := gauges(t, w.metrics, metric)[name]; got != want || n != 0 {
					t.Errorf("%s: %s of %s is there: %v (%v); want %v", when, metric, name, got, n, want)
				}
			}
		}
		lose := func() { time.Sleep(5 * time.Minute) } // stale, then removed
		for _, name := range []string{"retired", "lost", "first-lost", "then-lost", "back"} {
			w.register(headOf(name+"-a", name, name), active())
		}
		w.register(headOf("first-lost-b", "first-lost", "first-lost"), active())
		w.register(headOf("then-lost-b", "then-lost", "then-lost"), active())
		gauges(t, w.metrics, "headway_model_registered_heads") // every name was seen
		for _, id := range []string{"retired-a", "then-lost-a", "back-a"} {
			must(t, w.Deregister(t.Context(), id))
		}
		w.register(headOf("back-a", "back", "back"), active())
		has("at once", "retired", false)

		ctx, silence := context.WithCancel(t.Context())
		w.beat(ctx, "first-lost-b")
		lose()
		has("lost", "lost", true)
		has("one deregistered, the last lost", "then-lost", true)
		has("deregistered, registered again and lost", "back", true)
		must(t, w.Deregister(t.Context(), "first-lost-b"))
		has("one lost, the last deregistered", "first-lost", false)
		silence()
		time.Sleep(time.Hour)
		has("an hour later", "lost", false)
		has("an hour later", "then-lost", false)
	})
}

// Heads that are out on purpose are not missed, however they go on. The
// others are, also those beside them.
func TestHeadsThatLeaveOnPurposeAreNotMissed(t *testing.T) {
	draining, maintenance := fleet.AdminDraining, fleet.AdminMaintenance
	type step = func(w *world, id string, epoch uint64)
	says := func(s fleet.Status) step {
		return func(w *world, id string, epoch uint64) { w.report(id, epoch, s) }
	}
	patch := func(state *fleet.AdminState) step {
		return func(w *world, id string, _ uint64) {
			_, err := w.Patch(w.Context(), id, registry.Patch{State: state})
			must(w, err)
		}
	}
	for name, c := range map[string]struct {
		a, b    []step
		missing float64 // once both are silent, and as long as they are registered
		lost    bool    // still missed once both were removed
	}{
		"both drain by their own word":          {[]step{says(fleet.StatusDraining)}, []step{says(fleet.StatusDraining)}, 0, false},
		"drained, in maintenance":               {[]step{patch(&draining)}, []step{patch(&maintenance)}, 0, false},
		"draining, then offline":                {[]step{says(fleet.StatusDraining), says(fleet.StatusOffline)}, []step{patch(&draining)}, 0, false},
		"draining, then back and dead":          {[]step{says(fleet.StatusDraining), says(fleet.StatusActive)}, []step{patch(&draining)}, 1, true},
		"one drains, the other dies":            {[]step{says(fleet.StatusDraining)}, nil, 1, true},
		"one in maintenance, the other offline": {[]step{patch(&maintenance)}, []step{says(fleet.StatusOffline)}, 1, true},
		"both die":                              {nil, nil, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, memstore.New(), func(o *registry.Options) { o.Lease.RemoveAfter = 10 * time.Minute })
				check := func(when string, want float64, there bool) {
					t.Helper()
					for _, metric := range []string{"headway_model_missing_heads", "headway_region_missing_heads"} {
						if got, has := gauges(t, w.metrics, metric)["p"]; got != want || has != there {
							t.Errorf("%s: %s %v, %v; want %v, %v", when, metric, got, has, want, there)
						}
					}
				}
				epochs := map[string]uint64{}
				for _, id := range []string{"a", "b"} {
					epochs[id] = w.register(headOf(id, "p", "p"), active()).Lease.Epoch
				}
				check("both take requests", 0, true)
				for id, steps := range map[string][]step{"a": c.a, "b": c.b} {
					for _, step := range steps {
						step(w, id, epochs[id])
					}
				}
				time.Sleep(time.Minute)
				check("silent", c.missing, true)
				time.Sleep(20 * time.Minute)
				want := 0.0
				if c.lost {
					want = 1
				}
				check("removed", want, c.lost)
			})
		})
	}
}

// A head that registers with another model type or region left the old one on
// purpose, and has time to load the new one. The words of the alerts are true of
// each state.
func TestAHeadThatMovesIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		w := start(t, store, nil)
		missing := func(when string, want map[string]float64) {
			t.Helper()
			for _, metric := range []string{"headway_model_missing_heads", "headway_region_missing_heads"} {
				if got := gauges(t, w.metrics, metric); !maps.Equal(got, want) {
					t.Errorf("%s: %s %v, want %v", when, metric, got, want)
				}
			}
		}
		w.register(headOf("a", "old", "old"), active())
		missing("at first", map[string]float64{"old": 0})
		w.register(headOf("a", "new", "new"), nil)
		missing("moved", map[string]float64{"new": 0})
		time.Sleep(14 * time.Minute)
		w.register(headOf("a", "new", "new"), nil) // which gives it no more time
		missing("after 14 minutes", map[string]float64{"new": 0})
		time.Sleep(90 * time.Second)
		missing("after a quarter of an hour", map[string]float64{"new": 1})
		w.register(headOf("a", "new", "new"), active())
		missing("it takes requests", map[string]float64{"new": 0})
		w.register(headOf("a", "new", "new"), nil)
		missing("it registered after it took requests", map[string]float64{"new": 1})
		w.register(headOf("a", "new", "new"), active())
		time.Sleep(time.Minute)
		missing("it is silent", map[string]float64{"new": 1})

		third := w.register(headOf("a", "third", "third"), nil)
		w.register(headOf("b", "fourth", "fourth"), nil)
		missing("moved again, beside a first registration", map[string]float64{"third": 0, "fourth": 0})
		w.report("a", third.Lease.Epoch, fleet.StatusDegraded)
		time.Sleep(10 * time.Minute)
		missing("one took requests and is silent", map[string]float64{"third": 1, "fourth": 0})
		w.stop()
		w = start(t, store, nil)
		missing("after a restart, where only the first registration counts", map[string]float64{"third": 1, "fourth": 0})
		time.Sleep(6 * time.Minute)
		missing("after a quarter of an hour in all", map[string]float64{"third": 1, "fourth": 1})
	})
}

// A head that leaves one of its model types leaves the others as they are, and
// what other heads still serve.
func TestAHeadThatDropsAModelTypeLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		both := headOf("a", "m", "r")
		both.ModelTypes = []string{"m", "n"}
		w.register(both, active())
		w.register(headOf("b", "k", "r"), active())
		gauges(t, w.metrics, "headway_model_missing_heads")
		w.register(headOf("a", "k", "r"), active())
		w.register(headOf("b", "m", "r"), active())
		time.Sleep(time.Minute)
		for metric, want := range map[string]map[string]float64{
			"headway_model_missing_heads": {"k": 1, "m": 1}, "headway_region_missing_heads": {"r": 2},
		} {
			if got := gauges(t, w.metrics, metric); !maps.Equal(got, want) {
				t.Errorf("%s %v, want %v", metric, got, want)
			}
		}
	})
}

// A head that was lost is missed beside others that drain, until one of its model
// type takes requests or an hour is over.
func TestALostHeadIsMissedBesideThoseThatDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), func(o *registry.Options) { o.Lease.RemoveAfter = time.Minute })
		missing := func(when string, want float64) {
			t.Helper()
			if got := gauges(t, w.metrics, "headway_model_missing_heads")["p"]; got != want {
				t.Errorf("%s: %v heads are missing, want %v", when, got, want)
			}
		}
		ctx, silence := context.WithCancel(t.Context())
		defer silence()
		w.register(headOf("dies", "p", "p"), active())
		w.report("drains", w.register(headOf("drains", "p", "p"), active()).Lease.Epoch, fleet.StatusDraining)
		w.beatAs(ctx, fleet.StatusDraining, "drains")
		time.Sleep(5 * time.Minute)
		missing("removed", 1)
		w.register(headOf("new", "p", "p"), active())
		missing("another takes requests", 0)
		must(t, w.Deregister(t.Context(), "new"))
		missing("that one was deregistered", 0)
		w.register(headOf("dies", "p", "p"), active())
		time.Sleep(5 * time.Minute)
		missing("removed again", 1)
		time.Sleep(time.Hour)
		missing("an hour later", 0)
	})
}

// What a head said of itself when it ended holds after a restart of the service,
// until it says something else.
func TestAHeadThatLeftIsNotMissedAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		var w *world
		missing := func(when string, want map[string]float64) {
			t.Helper()
			got := gauges(t, w.metrics, "headway_model_missing_heads")
			for model, n := range want {
				if got[model] != n {
					t.Errorf("%s: %v heads of %s are missing, want %v", when, got[model], model, n)
				}
			}
		}
		w = start(t, store, nil)
		for _, id := range []string{"drained", "left", "crashed", "failed", "back"} {
			w.register(headOf(id, id, "r"), active())
		}
		say := func(id string, statuses ...fleet.Status) {
			v, err := w.Head(id)
			must(t, err)
			for _, s := range statuses {
				w.report(id, v.Lease.Epoch, s)
			}
		}
		say("drained", fleet.StatusDraining)
		say("left", fleet.StatusDraining, fleet.StatusOffline)
		say("failed", fleet.StatusOffline)
		say("back", fleet.StatusDraining)
		w.register(headOf("back", "back", "r"), active())
		w.register(headOf("new", "new", "r"), &fleet.StatusReport{Status: fleet.StatusDraining})
		time.Sleep(20 * time.Minute) // all are silent
		w.stop()

		w = start(t, store, nil)
		gone := map[string]float64{"drained": 0, "left": 0, "new": 0, "crashed": 1, "failed": 1, "back": 1}
		missing("after a restart", gone)
		time.Sleep(20 * time.Minute)
		w.stop()
		w = start(t, store, nil)
		missing("after another", gone)

		w.register(headOf("drained", "drained", "r"), nil) // and is never heard of again
		say("left", fleet.StatusActive)
		w.beat(t.Context(), "left")
		time.Sleep(20 * time.Minute)
		w.stop()
		w = start(t, store, nil)
		missing("they came back, and the service was started again", map[string]float64{"drained": 1, "new": 0})
		if h := w.health("left"); h != "assumed" {
			t.Errorf("the one that works is %s", h)
		}
	})
}

// A head flaps when its lease runs out more than twice in a quarter of an hour.
func TestAHeadThatComesAndGoesFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), func(o *registry.Options) { o.Lease.GuardMinHeads = 100 })
		flapping := func(when string, want float64) {
			t.Helper()
			if got := value(t, w.metrics, "headway_flapping_heads"); got != want {
				t.Errorf("%s: %v heads flap, want %v", when, got, want)
			}
		}
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
			w.register(spec(id), active())
		}
		time.Sleep(time.Minute)
		flapping("six heads once each", 0)
		w.register(spec("a"), active()) // as after a crash
		time.Sleep(time.Minute)
		flapping("the second time", 0)
		w.register(spec("a"), active())
		time.Sleep(time.Minute)
		flapping("the third time", 1)
		maintenance := fleet.AdminMaintenance
		_, err := w.Patch(t.Context(), "a", registry.Patch{State: &maintenance})
		must(t, err)
		flapping("in maintenance", 0)
		for range 3 { // each says before that it leaves
			for id, status := range map[string]fleet.Status{"g": fleet.StatusDraining, "h": fleet.StatusOffline} {
				w.report(id, w.register(spec(id), active()).Lease.Epoch, status)
			}
			time.Sleep(10 * time.Second)
		}
		flapping("heads that said before that they leave", 0)
		if got := value(t, w.metrics, "headway_lease_expirations_total"); got != 8 {
			t.Errorf("%v leases ran out, want the 8 of heads that fell silent", got)
		}
		enabled := fleet.AdminEnabled
		_, err = w.Patch(t.Context(), "a", registry.Patch{State: &enabled})
		must(t, err)
		time.Sleep(11 * time.Minute)
		flapping("14 minutes after the first", 1)
		time.Sleep(2 * time.Minute)
		flapping("16 minutes after the first", 0)
	})
}

// An ejected head that is drained as well is looked after already.
func TestADrainedHeadIsNotEjectedAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		w.end("a", fleet.EndedBadly, 5)
		if n := value(t, w.metrics, "headway_ejected_heads"); n != 1 {
			t.Fatalf("%v heads are ejected", n)
		}
		draining := fleet.AdminDraining
		_, err := w.Patch(t.Context(), "a", registry.Patch{State: &draining})
		must(t, err)
		if n := value(t, w.metrics, "headway_ejected_heads"); n != 0 {
			t.Errorf("%v heads are ejected, and the one that was is drained", n)
		}
	})
}

package fleet_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
)

// The series of a model type or region whose last head was deregistered end at
// once; those of one whose last head was lost stay for an hour.
func TestWhatIsDeregisteredIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newFakeStore(t), func(o *fleet.Options) { o.Lease.RemoveAfter = time.Minute })
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

// A head flaps when its lease runs out more than twice in a quarter of an hour.
func TestAHeadThatComesAndGoesFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newFakeStore(t), func(o *fleet.Options) { o.Lease.GuardMinHeads = 100 })
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
		_, err := w.Patch(t.Context(), "a", fleet.Patch{State: &maintenance})
		must(t, err)
		flapping("in maintenance", 0)
		enabled := fleet.AdminEnabled
		_, err = w.Patch(t.Context(), "a", fleet.Patch{State: &enabled})
		must(t, err)
		time.Sleep(11 * time.Minute)
		flapping("14 minutes after the first", 1)
		time.Sleep(2 * time.Minute)
		flapping("16 minutes after the first", 0)
	})
}

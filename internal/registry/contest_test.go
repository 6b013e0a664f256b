package registry_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/memstore"
)

// elsewhere is the spec of a head at another endpoint.
func elsewhere(id string) fleet.Spec {
	s := spec(id)
	s.Endpoint = "http://127.0.0.1:9001"
	return s
}

func TestAnotherEndpointDoesNotTakeAHeadThatHoldsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		first := w.register(spec("a"), active())
		time.Sleep(time.Second)
		_, err := w.Register(t.Context(), elsewhere("a"), active())
		refused, ok := errors.AsType[*fleet.ContestedError](err)
		if !ok || refused.ID != "a" || !refused.Expires.Equal(first.Lease.ExpiresAt) || refused.Left != first.Lease.TTL-time.Second {
			t.Fatalf("%v: %+v; the lease is %+v", err, refused, first.Lease)
		}
		w.report("a", first.Lease.Epoch, fleet.StatusDraining) // the first has lost nothing
		if _, err := w.Register(t.Context(), elsewhere("a"), active()); err == nil {
			t.Error("a draining head was taken over")
		}
		w.register(spec("a"), active()) // the same endpoint may
		if n := sum(family(t, w.metrics, "headway_heads_contested_total")); n != 2 {
			t.Errorf("%g counted", n)
		}
		if n := value(t, w.metrics, "head_registrations_total"); n != 2 {
			t.Errorf("%g registrations counted", n)
		}
	})
}

func TestWhatFreesAHeadForAnotherEndpoint(t *testing.T) {
	for name, free := range map[string]func(*world, uint64){
		"its lease ended":         func(*world, uint64) { time.Sleep(7 * time.Second) },
		"it reported offline":     func(w *world, epoch uint64) { w.report("a", epoch, fleet.StatusOffline) },
		"it was deregistered":     func(w *world, _ uint64) { must(w, w.Deregister(w.Context(), "a")) },
		"held, its lease is over": func(*world, uint64) { time.Sleep(8 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, memstore.New(), nil)
				r := w.register(spec("a"), active())
				if strings.HasPrefix(name, "held") {
					for _, id := range []string{"b", "c", "d"} {
						w.register(spec(id), active())
					}
				}
				free(w, r.Lease.Epoch)
				if strings.HasPrefix(name, "held") && w.health("a") != "held" {
					t.Fatalf("a is %s", w.health("a"))
				}
				if got := w.register(elsewhere("a"), active()); got.View.Head.Endpoint != elsewhere("a").Endpoint {
					t.Errorf("registered at %s", got.View.Head.Endpoint)
				}
				if n := sum(family(t, w.metrics, "headway_heads_contested_total")); n != 0 {
					t.Errorf("%g counted", n)
				}
			})
		})
	}
}

// The last instant of a lease still belongs to who holds it.
func TestALeaseHoldsToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		r := w.register(spec("a"), active())
		time.Sleep(time.Until(r.Lease.ExpiresAt) - time.Nanosecond)
		if _, err := w.Register(t.Context(), elsewhere("a"), nil); err == nil {
			t.Error("taken before the lease ended")
		}
		time.Sleep(time.Nanosecond)
		w.register(elsewhere("a"), nil)
	})
}

func TestATakeOverIsDoneCountedAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trail{}
		w := start(t, memstore.New(), tr.attach)
		first := w.register(spec("a"), active())
		old := published(w, "a")
		old.Live.TryAcquire(0, fleet.Work{})
		for i := range 300 { // two machines for five minutes
			s := spec("a")
			if i%2 == 0 {
				s = elsewhere("a")
			}
			moved, err := w.TakeOver(t.Context(), s, active())
			must(t, err)
			if moved.View.Head.Endpoint != s.Endpoint || moved.View.InFlight != 0 {
				t.Fatalf("taken over as %+v", moved.View)
			}
			time.Sleep(time.Second)
		}
		if _, err := w.Report("a", fleet.StatusReport{Epoch: first.Lease.Epoch, Status: fleet.StatusActive, Load: fleet.UnknownLoad()}); !errors.Is(err, fleet.ErrStaleEpoch) {
			t.Errorf("a report of the one before: %v", err)
		}
		if n := sum(family(t, w.metrics, "headway_heads_contested_total")); n != 300 {
			t.Errorf("%g counted", n)
		}
		must(t, w.Deregister(t.Context(), "a"))
		if n := strings.Count(w.eventsUntil("head.removed"), "head.contested"); n < 5 || n > 6 {
			t.Errorf("%d events in five minutes", n)
		}
		lines := tr.take()
		registered, left := 0, 0
		for _, line := range lines {
			if strings.Contains(line, "head.register a") {
				registered++
			}
			if strings.Contains(line, "registrations and removals of this head that were not recorded") {
				left++
			}
		}
		if registered < 50 || registered > 61 || left < 4 {
			t.Errorf("%d registrations are recorded, %d say how many are not: %q", registered, left, lines[:min(len(lines), 25)])
		}
	})
}

package registry_test

import (
	"testing"
	"time"

	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

func TestAPauseOfOurOwnExpiresNoHead(t *testing.T) {
	for name, c := range map[string]struct {
		before, after time.Duration // of the report: before the pause began, after it ended
	}{
		"reported before the last sweep":           {before: time.Second},
		"reported between the last sweep and it":   {before: 50 * time.Millisecond},
		"reported after it, before the next sweep": {after: 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			w, epoch := startRegistered(t, &now)
			report := func() {
				lease, err := w.Report("a", fleet.StatusReport{Epoch: epoch, Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
				must(t, err)
				if lease.ExpiresAt.After(now.Add(lease.TTL)) {
					t.Errorf("the lease ends %s after the report, its ttl is %s", lease.ExpiresAt.Sub(now), lease.TTL)
				}
			}
			step := func(d time.Duration) {
				for ; d >= 250*time.Millisecond; d -= 250 * time.Millisecond {
					now = now.Add(250 * time.Millisecond)
					w.Step(t.Context(), now)
				}
				now = now.Add(d)
			}
			step(3 * time.Second)
			if c.after == 0 {
				report()
			}
			step(c.before)
			now = now.Add(time.Minute) // stopped, and continued
			if c.after > 0 {
				now = now.Add(c.after)
				report()
			}
			for range 8 {
				w.Step(t.Context(), now)
				if got := w.health("a"); got != "fresh" {
					t.Fatalf("after a pause of a minute the head is %s", got)
				}
				now = now.Add(250 * time.Millisecond)
			}
			step(6 * time.Second)
			if got := w.health("a"); got != "stale" {
				t.Errorf("silent for longer than its lease after the pause, the head is %s", got)
			}
		})
	}
}

// Once leases are kept, a head that falls silent stays as it is: fresh, suspect or held,
// in the store too, so that it is assumed at the next start.
func TestKeptLeasesDoNotEnd(t *testing.T) {
	now := time.Now()
	store := memstore.New()
	clock := func(o *registry.Options) { o.Now = func() time.Time { return now } }
	w := start(t, store, clock)
	w.register(spec("a"), active())
	w.stop()
	w.KeepLeases()
	for range 4 * 60 {
		now = now.Add(250 * time.Millisecond)
		w.Step(t.Context(), now)
	}
	if got := w.health("a"); got != "fresh" {
		t.Errorf("after a minute of silence the head is %s", got)
	}
	if got := start(t, store, clock).health("a"); got != "assumed" {
		t.Errorf("after the next start the head is %s", got)
	}
}

// startRegistered is a registry on the given clock with head a, whose Sweep
// the test calls.
func startRegistered(t *testing.T, now *time.Time) (w *world, epoch uint64) {
	t.Helper()
	w = start(t, memstore.New(), func(o *registry.Options) { o.Now = func() time.Time { return *now } })
	epoch = w.register(spec("a"), active()).Lease.Epoch
	w.stop()
	return w, epoch
}

// What a head has in flight outlives a registration at the same endpoint, and
// nothing else; a place is always given back to the count that it was taken from.
func TestARegistrationKeepsWhatTheHeadStillWorksOn(t *testing.T) {
	elsewhere := spec("a")
	elsewhere.Endpoint = "http://127.0.0.1:9001"
	changed := spec("a")
	changed.Version = "2"
	for name, c := range map[string]struct {
		between func(*world, uint64)
		again   fleet.Spec
		keeps   bool
	}{
		"same endpoint":    {nil, spec("a"), true},
		"another version":  {nil, changed, true},
		"draining between": {func(w *world, epoch uint64) { w.report("a", epoch, fleet.StatusDraining) }, spec("a"), true},
		"offline between":  {func(w *world, epoch uint64) { w.report("a", epoch, fleet.StatusOffline) }, spec("a"), false},
		"removed between":  {func(w *world, _ uint64) { must(w, w.Deregister(w.Context(), "a")) }, spec("a"), false},
		"another endpoint": {func(w *world, epoch uint64) { w.report("a", epoch, fleet.StatusOffline) }, elsewhere, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, memstore.New(), lasting)
			first := w.register(spec("a"), active())
			old := published(w, "a")
			old.Live.TryAcquire(2, fleet.Work{})
			if c.between != nil {
				c.between(w, first.Lease.Epoch)
			}
			again := w.register(c.again, nil)
			if again.View.Report != nil || again.View.ReportAge != 0 {
				t.Errorf("a report of the epoch before is shown: %+v", again.View.Report)
			}
			w.report("a", again.Lease.Epoch, fleet.StatusActive)
			fresh := published(w, "a")
			if fresh.Instance == old.Instance {
				t.Error("the new epoch has the instance of the old one")
			}
			want := int64(0)
			if c.keeps {
				want = 1
			}
			if got := fresh.Live.InFlight(); got != want || again.View.InFlight != want {
				t.Errorf("%d in flight, %d answered; want %d", got, again.View.InFlight, want)
			}
			one, two := fresh.Live.TryAcquire(2, fleet.Work{}), fresh.Live.TryAcquire(2, fleet.Work{})
			if both := one && two; both == c.keeps {
				t.Errorf("two more places of two: %v", both)
			}
			fresh.Live.Release(fleet.Work{})
			old.Live.Release(fleet.Work{})
			if got := old.Live.InFlight(); !c.keeps && got != 0 {
				t.Errorf("%d in flight at the old count after its place was given back", got)
			}
		})
	}
}

func TestAHeadThatRegistersAgainCountsItsRequestsOnce(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	w.register(spec("a"), active())
	w.register(spec("b"), active())
	for range 8 {
		published(w, "a").Live.TryAcquire(0, fleet.Work{})
		published(w, "b").Live.TryAcquire(0, fleet.Work{})
	}
	again := w.register(spec("b"), nil)
	w.report("b", again.Lease.Epoch, fleet.StatusActive)
	if v, err := w.Head("b"); err != nil || v.InFlight != 8 || v.Head.Live.SlowStart(time.Now()) != 0 {
		t.Errorf("b has %d in flight and counts as having %g more (%v)", v.InFlight, v.Head.Live.SlowStart(time.Now()), err)
	}
}

package fleet_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
)

func TestReportsOutOfOrderRenewTheLeaseOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newFakeStore(t), nil)
		r := w.register(spec("a"), active())
		send := func(sequence uint64, inFlight int64) fleet.Lease {
			load := fleet.UnknownLoad()
			load.InFlight = inFlight
			lease, err := w.Report("a", fleet.StatusReport{Epoch: r.Lease.Epoch, Status: fleet.StatusActive, Load: load, Sequence: sequence})
			must(t, err)
			return lease
		}
		before := send(5, 50)
		for _, late := range []uint64{5, 4} { // the same number, and one before
			time.Sleep(3 * time.Second)
			if after := send(late, 10); after.ExpiresAt.Sub(before.ExpiresAt) < 2*time.Second {
				t.Errorf("report %d does not renew the lease: %s after %s", late, after.ExpiresAt, before.ExpiresAt)
			} else {
				before = after
			}
			if v, err := w.Head("a"); err != nil || v.Report.Load.InFlight != 50 || v.Report.Sequence != 5 {
				t.Errorf("after report %d the load is that of report %d: %d (%v)", late, v.Report.Sequence, v.Report.Load.InFlight, err)
			}
		}
	})
}

func TestAHeadThatWentOfflineIsNotAssumedAfterARestart(t *testing.T) {
	store := newFakeStore(t)
	w := start(t, store, nil)
	r := w.register(spec("a"), active())
	w.report("a", r.Lease.Epoch, fleet.StatusOffline)
	w.stop()
	w = start(t, store, nil)
	if got := w.health("a"); got != "pending" {
		t.Errorf("after the restart it is %s", got)
	}
}

// Heads that are out of rotation for a reason of their own are no sign that the
// silence is ours.
func TestTheGuardCountsOnlyWhatWouldServe(t *testing.T) {
	for name, c := range map[string]struct {
		out func(*world, string, uint64)
		at  time.Duration // when the last falls silent
	}{
		"dead for long": {func(*world, string, uint64) {}, time.Minute},
		"drained": {func(w *world, id string, _ uint64) {
			drain := fleet.AdminDraining
			_, err := w.Patch(w.Context(), id, fleet.Patch{State: &drain})
			must(w, err)
		}, 0},
		"offline": {func(w *world, id string, epoch uint64) { w.report(id, epoch, fleet.StatusOffline) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, newFakeStore(t), func(o *fleet.Options) { o.Lease.GuardHold = 10 * time.Second })
				for i := range 4 {
					id := fmt.Sprintf("out%d", i)
					c.out(w, id, w.register(spec(id), active()).Lease.Epoch)
				}
				for i := range 4 {
					w.register(spec(fmt.Sprintf("in%d", i)), active())
				}
				w.beat(t.Context(), "in0", "in1", "in2")
				if c.at > 0 {
					v, err := w.Head("in3")
					must(t, err)
					for range int(c.at / (2 * time.Second)) { // the four others fall silent, and are dead
						time.Sleep(2 * time.Second)
						w.report("in3", v.Lease.Epoch, fleet.StatusActive)
					}
				}
				time.Sleep(8 * time.Second)
				if got := w.health("in3"); got != "stale" {
					t.Errorf("the one of four that fell silent is %s", got)
				}
			})
		})
	}
}

func TestNoMorePlacesThanTheLimit(t *testing.T) {
	var live fleet.Live
	for range 50 {
		var taken, most atomic.Int64
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if live.TryAcquire(1) {
					most.Store(max(most.Load(), taken.Add(1)))
					taken.Add(-1)
					live.Release()
				}
			})
		}
		all.Wait()
		if most.Load() > 1 || live.InFlight() != 0 {
			t.Fatalf("%d places of one at once, %d in flight at the end", most.Load(), live.InFlight())
		}
	}
}

func TestChangesThatWaitAreMadeBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(t)
		w := start(t, store, nil)
		w.register(spec("a"), active())
		synctest.Wait()
		store.block = make(chan struct{})
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				_, err := w.Register(t.Context(), spec(fmt.Sprintf("b%d", i)), nil)
				must(t, err)
			})
			synctest.Wait()
		}
		all.Go(w.stop)
		synctest.Wait()
		close(store.block)
		all.Wait()
		if got := w.Snapshot().Heads; got != 21 {
			t.Errorf("%d heads, want 21", got)
		}
	})
}

func TestLabelsAreSharedByNameAndValue(t *testing.T) {
	w := start(t, newFakeStore(t), nil)
	one, two := spec("a"), spec("b")
	one.Labels, two.Labels = map[string]string{"a": "bc"}, map[string]string{"ab": "c"}
	w.register(one, nil)
	w.register(two, nil)
	if v, err := w.Head("b"); err != nil || len(v.Head.Labels) != 1 || v.Head.Labels["ab"] != "c" {
		t.Errorf("b has the labels %v (%v)", v.Head.Labels, err)
	}
}

// A fleet that loses and gains its leases again and again does not grow.
func TestFlappingHeadsLeaveNothingBehind(t *testing.T) {
	w := start(t, newFakeStore(t), nil)
	for round := range 3 {
		for i := range 500 {
			w.register(spec(fmt.Sprintf("h%d", i)), active())
		}
		for i := range 500 {
			must(t, w.Deregister(t.Context(), fmt.Sprintf("h%d", i)))
		}
		if s := w.Snapshot(); s.Heads != 0 || len(s.Pools) != 0 || len(s.Regions) != 0 {
			t.Fatalf("after round %d: %d heads, %d pools", round, s.Heads, len(s.Pools))
		}
	}
}

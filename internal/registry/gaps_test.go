package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

func TestReportsOutOfOrderRenewTheLeaseOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		r := w.register(spec("a"), active())
		send := func(sequence uint64, inFlight int64) fleet.Lease {
			load := fleet.UnknownLoad()
			load.InFlight = inFlight
			lease, err := w.Report("a", fleet.StatusReport{Epoch: r.Lease.Epoch, Status: fleet.StatusActive, Load: load, Sequence: sequence})
			must(t, err)
			return lease
		}
		send(5, 50)
		for _, late := range []uint64{5, 4} { // the same number, and one before
			time.Sleep(3 * time.Second)
			if lease := send(late, 10); !lease.ExpiresAt.Equal(time.Now().Add(lease.TTL)) {
				t.Errorf("report %d does not renew the lease: it ends at %s", late, lease.ExpiresAt)
			}
			if v, err := w.Head("a"); err != nil || v.Report.Load.InFlight != 50 || v.Report.Sequence != 5 {
				t.Errorf("after report %d the load is that of report %d: %d (%v)", late, v.Report.Sequence, v.Report.Load.InFlight, err)
			}
		}
	})
}

func TestAHeadThatWentOfflineIsNotAssumedAfterARestart(t *testing.T) {
	store := memstore.New()
	w := start(t, store, lasting)
	r := w.register(spec("a"), active())
	w.report("a", r.Lease.Epoch, fleet.StatusOffline)
	w.stop()
	w = start(t, store, lasting)
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
			_, err := w.Patch(w.Context(), id, registry.Patch{State: &drain})
			must(w, err)
		}, 0},
		"offline": {func(w *world, id string, epoch uint64) { w.report(id, epoch, fleet.StatusOffline) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, memstore.New(), func(o *registry.Options) { o.Lease.GuardHold = 10 * time.Second })
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
				if live.TryAcquire(1, fleet.Work{}) {
					most.Store(max(most.Load(), taken.Add(1)))
					taken.Add(-1)
					live.Release(fleet.Work{})
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
		store := memstore.New()
		w := start(t, store, nil)
		w.register(spec("a"), active())
		synctest.Wait()
		release := hold(store)
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
		release()
		all.Wait()
		if got := w.Snapshot().Heads; got != 21 {
			t.Errorf("%d heads, want 21", got)
		}
	})
}

func TestLabelsAreSharedByNameAndValue(t *testing.T) {
	w := start(t, memstore.New(), lasting)
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
	w := start(t, memstore.New(), lasting)
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

// blocked makes the store hang and gives the registry something to write, so
// that all that is queued from now on waits. release lets the store go on.
func (w *world) blocked() (release func()) {
	synctest.Wait() // nothing is being written
	end := hold(w.store)
	go func() { _, _ = w.Register(context.WithoutCancel(w.Context()), spec("blocks"), nil) }()
	synctest.Wait()
	return func() { end(); synctest.Wait() }
}

// The removal of a silent head may wait behind a slow store; the head that
// comes back meanwhile stays.
func TestAHeadThatCameBackIsNotRemoved(t *testing.T) {
	for name, back := range map[string]func(w *world, epoch uint64){
		"it reports": func(w *world, epoch uint64) { w.report("a", epoch, fleet.StatusActive) },
		"it registers": func(w *world, _ uint64) {
			go func() { _, _ = w.Register(context.WithoutCancel(w.Context()), spec("a"), active()) }()
			synctest.Wait()
		},
	} {
		for _, before := range []bool{false, true} { // whether it comes back before the removal is queued
			t.Run(fmt.Sprintf("%s %v", name, before), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := start(t, memstore.New(), func(o *registry.Options) { o.Lease.RemoveAfter = 10 * time.Second })
					epoch := w.register(spec("a"), active()).Lease.Epoch
					time.Sleep(8 * time.Second)
					if got := w.health("a"); got != "stale" {
						t.Fatalf("it is %s", got)
					}
					release := w.blocked()
					if before {
						back(w, epoch)
					}
					time.Sleep(9 * time.Second)
					if !before {
						back(w, epoch)
					}
					release()
					if got := w.health("a"); got == "gone" {
						t.Error("it was removed")
					}
					w.stop()
				})
			})
		}
	}
}

// A store that fails when a head's time has come leaves no head for ever.
func TestASilentHeadIsRemovedOnceTheStoreWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), func(o *registry.Options) { o.Lease.RemoveAfter = 10 * time.Second })
		w.register(spec("a"), active())
		time.Sleep(10 * time.Second)
		w.store.Inject(memstore.Fault{Err: fleet.ErrStoreUnavailable})
		time.Sleep(20 * time.Second)
		if got := w.health("a"); got != "stale" {
			t.Fatalf("while the store fails it is %s", got)
		}
		w.store.Inject(memstore.Fault{})
		time.Sleep(time.Minute)
		if got := w.health("a"); got != "gone" {
			t.Errorf("a minute after the store works again it is %s", got)
		}
	})
}

// What the registry itself wants to write in a mass outage, that heads are
// silent and later that they are gone, leaves room for those that register.
func TestAMassOutageLeavesRoomForRegistrations(t *testing.T) {
	for name, from := range map[string]time.Duration{"expired": 0, "removed": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memstore.New()
				const n = 5000 // more than the queue holds
				for i := range n {
					s := spec(fmt.Sprintf("h%d", i))
					put(t, store, fleet.Record{Spec: s, Epoch: 1, Confirmed: true})
				}
				w := start(t, store, func(o *registry.Options) { o.Lease.RemoveAfter, o.Lease.GuardMinHeads = 90*time.Second, n+2 })
				time.Sleep(from)
				release := w.blocked()
				time.Sleep(time.Minute)
				done := make(chan error, 1)
				go func() {
					_, err := w.Register(context.WithoutCancel(t.Context()), spec("new"), active())
					done <- err
				}()
				synctest.Wait()
				release()
				must(t, <-done)
				time.Sleep(2 * time.Minute)
				if got := w.Snapshot().Heads; got > 2 {
					t.Errorf("%d heads are left of the silent ones", got-2)
				}
				w.stop()
			})
		})
	}
}

// Every epoch lies in a block that the store set aside, also where a batch
// crosses the border of one, and none comes twice.
func TestEpochsAreOfTheBlocksSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		w := start(t, store, nil)
		const left, n = 3, 4
		release := w.blocked()
		w.SpendEpochs(left)
		epochs := make(chan uint64, n)
		for i := range n {
			go func() {
				r, err := w.Register(context.WithoutCancel(t.Context()), spec(fmt.Sprintf("h%d", i)), nil)
				if err != nil {
					t.Error(err)
				}
				epochs <- r.Lease.Epoch
			}()
		}
		synctest.Wait()
		release()
		seen := map[uint64]bool{}
		for range n {
			epoch := <-epochs
			if seen[epoch] || epoch == 0 {
				t.Errorf("epoch %d; given before: %v", epoch, seen[epoch])
			}
			seen[epoch] = true
		}
		beyond, err := store.GrantEpochs(t.Context(), 1)
		must(t, err)
		for epoch := range seen {
			if epoch >= beyond {
				t.Errorf("epoch %d is not set aside, which end before %d", epoch, beyond)
			}
		}
		w.SpendEpochs(0)
		store.Inject(memstore.Fault{Err: fleet.ErrStoreUnavailable})
		if r, err := w.Register(t.Context(), spec("none"), nil); !errors.Is(err, fleet.ErrStoreUnavailable) {
			t.Errorf("without a block epoch %d was given (%v)", r.Lease.Epoch, err)
		}
		w.stop()
	})
}

// A registration that changes nothing is not written, its epoch is with the
// next change of the head.
func TestAPatchKeepsTheNewestEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		old := w.register(spec("a"), active()).Lease.Epoch
		newest := w.register(spec("a"), active()).Lease.Epoch
		weight := 2.0
		_, err := w.Patch(t.Context(), "a", registry.Patch{Weight: &weight})
		must(t, err)
		w.stop()
		w = start(t, w.store, nil)
		if _, err := w.Report("a", fleet.StatusReport{Epoch: old, Status: fleet.StatusActive, Load: fleet.UnknownLoad()}); !errors.Is(err, fleet.ErrStaleEpoch) {
			t.Errorf("a report of the epoch before the newest: %v", err)
		}
		w.report("a", newest, fleet.StatusActive)
	})
}

func TestTheSlowStartIsThatOfTheRegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		for region, places := range map[string]int{"us": 8, "eu": 2} {
			w.register(headOf(region, "m", region), active())
			v, err := w.Head(region)
			must(t, err)
			for range places {
				v.Head.Live.TryAcquire(0, fleet.Work{})
			}
		}
		for region, want := range map[string]float64{"us": 8, "eu": 2, "ap": 0} {
			w.register(headOf("new-"+region, "m", region), active())
			v, err := w.Head("new-" + region)
			must(t, err)
			if v.Head.Live.SlowStart(time.Now()) != want {
				t.Errorf("in %s it counts as %v; want %v", region, v.Head.Live.SlowStart(time.Now()), want)
			}
		}
	})
}

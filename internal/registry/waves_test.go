package registry_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// heap is what is in use after the garbage is gone.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what had a finalizer or lay in a pool
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Fifty thousand heads that come, go offline, come back, fall silent, register
// again and leave, in ten waves: nothing of a wave is left when it is over.
func TestWavesOfFlappingHeadsLeaveNoMemory(t *testing.T) {
	const waves, n, together = 10, 5000, 500
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), func(o *registry.Options) {
			o.Lease.RemoveAfter, o.Lease.GuardMinHeads = time.Hour, n+1
		})
		// each calls do for every head, many at once.
		epochs, round := make([]uint64, n), 0
		each := func(do func(i int, id string) error) {
			for first := 0; first < n; first += together {
				var all sync.WaitGroup
				for i := first; i < first+together; i++ {
					all.Go(func() {
						if err := do(i, fmt.Sprintf("w%d-h%d", round, i)); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
			}
		}
		register := func(i int, id string) error {
			r, err := w.Register(context.WithoutCancel(t.Context()), headOf(id, fmt.Sprintf("m%d", i/50), "us"), active())
			epochs[i] = r.Lease.Epoch
			return err
		}
		report := func(status fleet.Status) func(int, string) error {
			return func(i int, id string) error {
				_, err := w.Report(id, fleet.StatusReport{Epoch: epochs[i], Status: status, Load: fleet.UnknownLoad()})
				return err
			}
		}
		count := func(when string, heads, active int) {
			t.Helper()
			if s := w.Snapshot(); s.Heads != heads || s.Active != active {
				t.Fatalf("%s there are %d heads, %d active; want %d and %d", when, s.Heads, s.Active, heads, active)
			}
		}
		wave := func() int64 {
			each(register)
			count("after they came", n, n)
			each(report(fleet.StatusOffline))
			count("offline", n, 0)
			each(report(fleet.StatusActive))
			count("active again", n, n)
			time.Sleep(5 * time.Minute)
			count("silent", n, 0)
			each(register)
			count("registered anew", n, n)
			each(func(_ int, id string) error { return w.Deregister(context.WithoutCancel(t.Context()), id) })
			count("at the end", 0, 0)
			if s := w.Snapshot(); len(s.Pools) != 0 || len(s.Regions) != 0 || stored(t, w.store) != 0 {
				t.Fatalf("%d pools, %d regions, %d records are left", len(s.Pools), len(s.Regions), stored(t, w.store))
			}
			round++
			time.Sleep(10 * time.Minute) // the leases that were looked at once more
			return heap()
		}
		wave()
		before := wave() // what is made once is there: queues, and the events of late
		for range waves - 3 {
			wave()
		}
		const margin = 4 << 20 // a tenth of what the heads that left since would take
		if after := wave(); after > before+margin {
			t.Errorf("%d waves leave %d bytes: %d before, %d after", waves-2, after-before, before, after)
		}
	})
}

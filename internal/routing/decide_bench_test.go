package routing_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"headway/internal/fleet"
	"headway/internal/strategy"
)

// fill registers n heads of one model in four regions.
func (w *world) fill(n int) { w.fillWith(n, nil) }

func (w *world) fillWith(n int, change func(*fleet.Spec)) {
	w.Helper()
	var wait sync.WaitGroup
	var next atomic.Int64
	for range min(n, 256) {
		wait.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				w.head(fmt.Sprintf("head-%05d", i), fmt.Sprintf("region-%d", i%4), change)
			}
		})
	}
	wait.Wait()
}

// BenchmarkDecide is the whole of Router.Decide: candidates, choice,
// reservation and counters; once the ring is full, each decision also ends the
// reservation that it overwrites.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		w := newWorld(b, nil)
		w.fill(n)
		keys := make([]string, 1024)
		for i := range keys {
			keys[i] = fmt.Sprintf("session-%d", rand.Uint32())
		}
		for _, spec := range strategy.Specs() {
			b.Run(fmt.Sprintf("%s/heads=%d", spec.Name, n), func(b *testing.B) {
				req := &strategy.Request{ModelType: "m", Strategy: spec.Name, Region: "region-1", RegionMode: strategy.RegionPrefer}
				if spec.Name != "geo_preferred" {
					req.Region = "" // the whole pool in one tier
				}
				b.ReportAllocs()
				for i := range b.N {
					req.SessionKey = keys[i%len(keys)]
					if _, err := w.router.Decide(req); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkArgmin is the least that comparing heads can cost: the minimum of
// n counters behind pointers.
func BenchmarkArgmin(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("heads=%d", n), func(b *testing.B) {
			lives := make([]*fleet.Live, n)
			for i := range lives {
				lives[i] = new(fleet.Live)
				for range rand.IntN(8) {
					lives[i].TryAcquire(0, fleet.Work{})
				}
			}
			for b.Loop() {
				least, at := int64(1<<62), 0
				for i, l := range lives {
					if c := l.InFlight(); c < least {
						least, at = c, i
					}
				}
				_ = at
			}
		})
	}
}

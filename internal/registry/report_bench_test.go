package registry_test

import (
	"fmt"
	"testing"
	"time"

	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// fleetOf is a registry of n confirmed heads of eight model types in four
// regions, as after a restart.
func fleetOf(t testing.TB, n int) *world {
	store := memstore.New()
	for i := range n {
		s := spec(fmt.Sprintf("head-%06d", i))
		s.ModelTypes, s.Region = []string{fmt.Sprintf("model-%d", i%8)}, fmt.Sprintf("region-%d", i/8%4)
		put(t, store, fleet.Record{Spec: s, Epoch: uint64(i) + 1, Confirmed: true})
	}
	_, err := store.GrantEpochs(t.Context(), uint64(n))
	must(t, err)
	return start(t, store, func(o *registry.Options) { o.MaxHeads = n })
}

// BenchmarkReport is a heartbeat with load of one of 100,000 heads; its
// reports/s are those of one processor. BenchmarkReportStatus is one that moves
// the head between active and degraded, which makes its group
// again.
func BenchmarkReport(b *testing.B) {
	const n = 100_000
	w := fleetOf(b, n)
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("head-%06d", i)
	}
	load := fleet.UnknownLoad()
	beat := func(i int, status fleet.Status) {
		at := i % n
		load.InFlight = int64(i % 50)
		if _, err := w.Report(ids[at], fleet.StatusReport{Epoch: uint64(at) + 1, Status: status, Load: load}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range n { // assumed heads become fresh ones
		beat(i, fleet.StatusActive)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		beat(i*7919, fleet.StatusActive)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reports/s")
}

func BenchmarkReportStatus(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("heads=%d", n), func(b *testing.B) {
			w := fleetOf(b, n)
			b.ResetTimer()
			statuses := []fleet.Status{fleet.StatusDegraded, fleet.StatusActive}
			for i := range b.N {
				at := i / 2 * 7919 % n
				r := fleet.StatusReport{Epoch: uint64(at) + 1, Status: statuses[i%2], Load: fleet.UnknownLoad()}
				if _, err := w.Report(fmt.Sprintf("head-%06d", at), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestHundredThousandHeads is a restart with as many: all are routable at once,
// one mass report confirms them, and a second is taken in order.
func TestHundredThousandHeads(t *testing.T) {
	const n = 100_000
	w := fleetOf(t, n)
	s := w.Snapshot()
	if s.Heads != n || len(s.Pools) != 8 {
		t.Fatalf("%d heads in %d pools, want %d in 8", s.Heads, len(s.Pools), n)
	}
	for name, p := range s.Pools {
		if got := len(p.All.Active.Heads); got != n/8 || len(p.Regions) != 4 {
			t.Errorf("%s: %d routable heads in %d regions, want %d in 4", name, got, len(p.Regions), n/8)
		}
	}
	var lease fleet.Lease
	for i := range n {
		var err error
		lease, err = w.Report(fmt.Sprintf("head-%06d", i), fleet.StatusReport{Epoch: uint64(i) + 1, Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
		must(t, err)
	}
	if lease.HeartbeatInterval < 4*time.Second {
		t.Errorf("the heads of a large fleet are asked to report every %v, which is more than 25,000 a second", lease.HeartbeatInterval)
	}
}

package registry_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"headway/internal/fleet"
	"headway/internal/memstore"
)

// Each change of a large pool costs a copy of it: those that come while one is
// made, and for as long after, share the next.
func TestChangesOfALargePoolShareASnapshot(t *testing.T) {
	const n, callers, each = 20_000, 16, 20
	w := start(t, memstore.New(), lasting)
	epochs := make([]uint64, n)
	var all sync.WaitGroup
	for c := range 64 {
		all.Go(func() {
			for i := c; i < n; i += 64 {
				r, err := w.Register(t.Context(), spec(fmt.Sprintf("h%d", i)), active())
				must(t, err)
				epochs[i] = r.Lease.Epoch
			}
		})
	}
	all.Wait()
	before, began := w.Snapshot().Revision, time.Now()
	for c := range callers {
		all.Go(func() {
			id := fmt.Sprintf("h%d", c)
			for i := range each {
				status := []fleet.Status{fleet.StatusOffline, fleet.StatusActive}[i%2]
				_, err := w.Report(id, fleet.StatusReport{Epoch: epochs[c], Status: status, Load: fleet.UnknownLoad()})
				must(t, err)
				if is := published(w, id).Routable(); is != (status == fleet.StatusActive) {
					t.Errorf("%s reported %s, and is routable: %v", id, status, is)
				}
			}
		})
	}
	all.Wait()
	made := w.Snapshot().Revision - before
	t.Logf("%d changes made %d snapshots in %s", callers*each, made, time.Since(began))
	if made > callers*each/4 {
		t.Errorf("%d changes made %d snapshots; want as many callers' changes in one as come at once", callers*each, made)
	}
}

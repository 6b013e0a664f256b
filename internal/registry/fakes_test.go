package registry_test

import (
	"testing"

	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/memstore"
)

// hold lets calls that write wait until release is called.
func hold(s *memstore.Store) (release func()) {
	wait := make(chan struct{})
	s.Inject(memstore.Fault{Wait: wait})
	return func() { close(wait) }
}

// put stores a record that no registry has.
func put(t testing.TB, s *memstore.Store, r fleet.Record) {
	t.Helper()
	must(t, s.Save(t.Context(), []feed.Change[fleet.Record]{{ID: r.Spec.ID, Value: &r}}))
}

// stored is how many heads are stored.
func stored(t testing.TB, s *memstore.Store) int {
	t.Helper()
	records, _, err := s.Heads(t.Context())
	must(t, err)
	return len(records)
}

package fleet_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"headway/internal/fleet"
)

// fakeStore keeps records in memory, fails when the registry breaks the
// contract of fleet.Store, and injects faults.
type fakeStore struct {
	t       testing.TB
	busy    atomic.Bool
	records map[string]fleet.Record
	rev     uint64
	epochs  uint64
	saves   int // calls of Save
	writes  int // records written or deleted
	fault   atomic.Pointer[error]
	block   chan struct{} // Save waits for it
}

func newFakeStore(t testing.TB) *fakeStore {
	return &fakeStore{t: t, records: map[string]fleet.Record{}}
}

// failWith makes each call fail from now on; nil ends that.
func (s *fakeStore) failWith(err error) { s.fault.Store(&err) }

func (s *fakeStore) failure() error {
	if err := s.fault.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *fakeStore) enter() func() {
	if !s.busy.CompareAndSwap(false, true) {
		s.t.Error("the store was called while a call was under way")
	}
	return func() { s.busy.Store(false) }
}

func (s *fakeStore) Heads(context.Context) ([]fleet.Record, error) {
	defer s.enter()()
	var list []fleet.Record
	for _, r := range s.records {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b fleet.Record) int { return strings.Compare(a.Spec.ID, b.Spec.ID) })
	return list, s.failure()
}

func (s *fakeStore) Save(_ context.Context, changes []fleet.Change) error {
	defer s.enter()()
	if s.block != nil {
		<-s.block
	}
	s.saves++
	if len(changes) == 0 {
		s.t.Error("Save without changes")
	}
	if err := s.failure(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, c := range changes {
		if seen[c.ID] {
			s.t.Errorf("head %s twice in one Save", c.ID)
		}
		seen[c.ID] = true
		if have := s.records[c.ID].Revision; have != c.Expect {
			return fmt.Errorf("%w: %s has %d, not %d", fleet.ErrConflict, c.ID, have, c.Expect)
		}
	}
	for _, c := range changes {
		s.writes++
		if c.Record == nil {
			delete(s.records, c.ID)
			continue
		}
		s.rev++
		c.Record.Revision = s.rev
		s.records[c.ID] = *c.Record
	}
	return nil
}

func (s *fakeStore) GrantEpochs(_ context.Context, n uint64) (uint64, error) {
	defer s.enter()()
	if err := s.failure(); err != nil {
		return 0, err
	}
	first := s.epochs + 1
	s.epochs += n
	return first, nil
}

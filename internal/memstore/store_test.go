package memstore_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storetest.Run(t, func(testing.TB) (storetest.Store, func() storetest.Store) {
		s := memstore.New()
		return s, func() storetest.Store { return s }
	})
}

func change(id string) []feed.Change[fleet.Record] {
	return []feed.Change[fleet.Record]{{ID: id, Value: &fleet.Record{Spec: fleet.Spec{ID: id}}}}
}

func has(t *testing.T, s *memstore.Store, want int) {
	t.Helper()
	if list, _, err := s.Heads(t.Context()); err != nil || len(list) != want {
		t.Errorf("%d heads are stored, error %v; want %d", len(list), err, want)
	}
}

func TestFaults(t *testing.T) {
	s, wrong := memstore.New(), errors.New("wrong")
	s.Inject(memstore.Fault{Err: wrong, Times: 2})
	for range 2 {
		if err := s.Save(t.Context(), change("a")); !errors.Is(err, wrong) {
			t.Errorf("a call that is to fail: %v", err)
		}
	}
	has(t, s, 0)
	s.Inject(memstore.Fault{Err: wrong, After: true, Times: 1})
	if err := s.Save(t.Context(), change("a")); !errors.Is(err, wrong) {
		t.Errorf("a call that is to fail after it wrote: %v", err)
	}
	has(t, s, 1)
	s.Inject(memstore.Full)
	for range 3 {
		if err := s.Save(t.Context(), change("b")); !errors.Is(err, fleet.ErrStoreUnavailable) {
			t.Errorf("a full store: %v", err)
		}
	}
	has(t, s, 1)
	s.Inject(memstore.Fault{Err: wrong, Reads: true, Times: 2})
	if _, _, err := s.Heads(t.Context()); !errors.Is(err, wrong) {
		t.Errorf("a read that is to fail: %v", err)
	}
	if _, err := s.Watch(t.Context(), 0); !errors.Is(err, wrong) {
		t.Errorf("a watch that is to fail: %v", err)
	}
	if err := s.Save(t.Context(), change("b")); err != nil {
		t.Errorf("after the faults: %v", err)
	}
	has(t, s, 2)
	if c := s.Counts(); c.Saves != 7 || c.Changes != 2 {
		t.Errorf("counted %+v; want 7 calls and 2 changes", c)
	}
}

func TestSlowCallsAndThoseThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, began := memstore.New(), time.Now()
		s.Inject(memstore.Fault{Delay: time.Second})
		if err := s.Save(t.Context(), change("a")); err != nil || time.Since(began) != time.Second {
			t.Errorf("it took %s, error %v", time.Since(began), err)
		}
		wait := make(chan struct{})
		s.Inject(memstore.Fault{Wait: wait})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Save(ctx, change("b")) }()
		synctest.Wait()
		has(t, s, 1)
		cancel()
		close(wait)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that left meanwhile: %v", err)
		}
		has(t, s, 1)
	})
}

func TestWhoBreaksTheContractIsStopped(t *testing.T) {
	s := memstore.New()
	for name, changes := range map[string][]feed.Change[fleet.Record]{
		"twice":         append(change("a"), change("a")...),
		"another id":    {{ID: "b", Value: &fleet.Record{Spec: fleet.Spec{ID: "a"}}}},
		"once and gone": append(change("a"), feed.Change[fleet.Record]{ID: "a"}),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: nothing happened", name)
				}
			}()
			_ = s.Save(t.Context(), changes)
		}()
	}
	has(t, s, 0)
}

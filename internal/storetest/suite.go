// Package storetest is what every store of heads, policies and keys must pass:
// the contracts of fleet.Store, policy.Store and access.KeyStore as tests.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/policy"
)

// Store is what is tested.
type Store interface {
	fleet.Store
	policy.Store
	access.KeyStore
}

// Open returns a store over a place that is empty at first. Its second result
// ends the store and opens the place again, as a restart does; what was
// answered before must still be there. The test's cleanup ends what is open.
type Open func(t testing.TB) (Store, func() Store)

// Run tests the stores that open returns.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"a record comes back as it was saved":             recordsComeBack,
		"a change is made only to what was read":          compareAndSwap,
		"changes are made all or not at all":              allOrNothing,
		"of two who change the same record one wins":      oneWinner,
		"epochs never come twice":                         epochs,
		"what a store returns is the caller's":            noSharing,
		"a caller that left changes nothing":              cancelled,
		"policies are revisions":                          policies,
		"of two who save a policy one wins":               onePolicy,
		"at least fifty revisions are kept":               fiftyRevisions,
		"a store is a map that survives restarts":         likeAMap,
		"a large batch is one change":                     largeBatch,
		"an id may have any of the characters of an id":   oddIDs,
		"nothing is there before something was saved":     empty,
		"an empty list of changes is no change":           noChanges,
		"a head that was deleted can be registered again": deletedAndBack,

		"a key comes back as it was saved":                keysComeBack,
		"a key is changed only as it was read":            keysCompareAndSwap,
		"of two who change the same key one wins":         oneKey,
		"heads and keys are read by their ids":            byID,
		"a watch waits for a change and ends promptly":    watchWaits,
		"watchers see every change once and in order":     watchers,
		"a watch that is far behind gets the whole":       watchFarBehind,
		"two registries over one store hold the same":     twoRegistries,
		"two routers over one store have the same policy": twoRouters,
		"two books over one store have the same keys":     twoBooks,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func record(id string) *fleet.Record {
	at := time.Date(2026, 7, 1, 12, 0, 0, 123e6, time.UTC)
	return &fleet.Record{
		Spec: fleet.Spec{
			ID: id, Endpoint: "https://[::1]:8443/v1", ModelTypes: []string{"llama-3.1-8b", "qwen2.5-32b"}, Region: "eu-west",
			Zone: "eu-west-1a", Version: "0.11.2", Engine: "vllm", Weight: 2.5, MaxInFlight: 64, Labels: map[string]string{"gpu": "h100"},
		},
		Admin:     fleet.Admin{State: fleet.AdminMaintenance, Weight: 0.25, Labels: map[string]string{"team": "a"}},
		Epoch:     1<<63 + 7,
		Confirmed: true, RegisteredAt: at, UpdatedAt: at.Add(time.Hour),
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants fails unless err is the sentinel.
func wants(t testing.TB, err, sentinel error) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Fatalf("got error %v, want %v", err, sentinel)
	}
}

func heads(t testing.TB, s Store) []fleet.Record {
	t.Helper()
	list, _, err := s.Heads(t.Context())
	must(t, err)
	return list
}

func save(t testing.TB, s Store, expect uint64, r *fleet.Record) *fleet.Record {
	t.Helper()
	must(t, s.Save(t.Context(), []feed.Change[fleet.Record]{{ID: r.Spec.ID, Expect: expect, Value: r}}))
	return r
}

// equal compares all but how times are represented.
func equal(a, b fleet.Record) bool {
	same := a.RegisteredAt.Equal(b.RegisteredAt) && a.UpdatedAt.Equal(b.UpdatedAt)
	a.RegisteredAt, a.UpdatedAt, b.RegisteredAt, b.UpdatedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return same && reflect.DeepEqual(a, b)
}

func empty(t *testing.T, open Open) {
	s, reopen := open(t)
	for range 2 {
		if list := heads(t, s); len(list) != 0 {
			t.Fatalf("an empty store has heads %v", list)
		}
		_, err := s.Policy(t.Context())
		wants(t, err, policy.ErrNone)
		if list, err := s.PolicyRevisions(t.Context(), 10); err != nil || len(list) != 0 {
			t.Fatalf("an empty store has revisions %v, error %v", list, err)
		}
		if list := keys(t, s); len(list) != 0 {
			t.Fatalf("an empty store has keys %v", list)
		}
		s = reopen()
	}
}

func recordsComeBack(t *testing.T, open Open) {
	s, reopen := open(t)
	full, bare := save(t, s, 0, record("b")), save(t, s, 0, &fleet.Record{Spec: fleet.Spec{
		ID: "a", Endpoint: "http://10.0.0.1", ModelTypes: []string{"m"}, Region: "us", Weight: 1,
	}})
	if full.Revision == 0 || bare.Revision == 0 {
		t.Fatal("Save left a revision at 0")
	}
	for range 2 {
		list := heads(t, s)
		if len(list) != 2 || !equal(list[0], *bare) || !equal(list[1], *full) {
			t.Fatalf("got %+v\nwant %+v and %+v, ordered by id", list, *bare, *full)
		}
		s = reopen()
	}
}

func compareAndSwap(t *testing.T, open Open) {
	s, reopen := open(t)
	first := save(t, s, 0, record("a"))
	old := first.Revision
	second := *first
	second.Confirmed, second.Leaving = false, true
	save(t, s, old, &second)
	if second.Revision == old {
		t.Fatal("a change kept the revision")
	}
	for _, change := range []feed.Change[fleet.Record]{
		{ID: "a", Expect: old, Value: record("a")}, // the revision before
		{ID: "a", Expect: 0, Value: record("a")},   // as if it were new
		{ID: "a", Expect: old},
		{ID: "b", Expect: second.Revision, Value: record("b")}, // not there
		{ID: "b", Expect: 1},
	} {
		wants(t, s.Save(t.Context(), []feed.Change[fleet.Record]{change}), fleet.ErrConflict)
	}
	s = reopen()
	if list := heads(t, s); len(list) != 1 || !equal(list[0], second) {
		t.Fatalf("after refused changes the store has %+v", list)
	}
	must(t, s.Save(t.Context(), []feed.Change[fleet.Record]{{ID: "a", Expect: second.Revision}}))
	if list := heads(t, s); len(list) != 0 {
		t.Fatalf("after a deletion the store has %+v", list)
	}
}

func deletedAndBack(t *testing.T, open Open) {
	s, _ := open(t)
	first := save(t, s, 0, record("a"))
	old := first.Revision
	must(t, s.Save(t.Context(), []feed.Change[fleet.Record]{{ID: "a", Expect: old}}))
	again := save(t, s, 0, record("a"))
	if again.Revision == old {
		t.Error("a record that came back has the revision of the one that was deleted")
	}
}

func allOrNothing(t *testing.T, open Open) {
	s, reopen := open(t)
	a, b := save(t, s, 0, record("a")), save(t, s, 0, record("b"))
	before := heads(t, s)
	changed := *a
	changed.Epoch++
	wants(t, s.Save(t.Context(), []feed.Change[fleet.Record]{
		{ID: "a", Expect: a.Revision, Value: &changed},
		{ID: "c", Value: record("c")},
		{ID: "b", Expect: b.Revision + 1000}, // fails
	}), fleet.ErrConflict)
	for range 2 {
		if list := heads(t, s); !slices.EqualFunc(list, before, equal) {
			t.Fatalf("a failed batch left %+v\nwant %+v", list, before)
		}
		s = reopen()
	}
}

func oneWinner(t *testing.T, open Open) {
	s, _ := open(t)
	base := save(t, s, 0, record("a"))
	var wait sync.WaitGroup
	var mu sync.Mutex
	var winners []uint64
	for i := range uint64(8) {
		wait.Go(func() {
			r := *base
			r.Epoch = i
			err := s.Save(t.Context(), []feed.Change[fleet.Record]{{ID: "a", Expect: base.Revision, Value: &r}})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				winners = append(winners, i)
			case !errors.Is(err, fleet.ErrConflict):
				t.Errorf("a loser got %v", err)
			}
		})
	}
	wait.Wait()
	if len(winners) != 1 || heads(t, s)[0].Epoch != winners[0] {
		t.Fatalf("winners %v; the store has epoch %d", winners, heads(t, s)[0].Epoch)
	}
}

func epochs(t *testing.T, open Open) {
	s, reopen := open(t)
	last := uint64(0)
	grant := func(n uint64) {
		first, err := s.GrantEpochs(t.Context(), n)
		must(t, err)
		if first <= last {
			t.Fatalf("granted from %d on after %d", first, last)
		}
		last = first + n - 1
	}
	grant(1)
	grant(1000)
	s = reopen()
	grant(1)

	type span struct{ first, last uint64 }
	var wait sync.WaitGroup
	var mu sync.Mutex
	var spans []span
	for i := range uint64(8) {
		wait.Go(func() {
			first, err := s.GrantEpochs(t.Context(), i+1)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			spans = append(spans, span{first, first + i})
		})
	}
	wait.Wait()
	slices.SortFunc(spans, func(a, b span) int { return int(a.first) - int(b.first) })
	for _, sp := range spans {
		if sp.first <= last {
			t.Fatalf("epochs overlap: %v", spans)
		}
		last = sp.last
	}
}

func noSharing(t *testing.T, open Open) {
	s, _ := open(t)
	mine := record("a")
	save(t, s, 0, mine)
	want := heads(t, s)[0]
	spoil := func(r *fleet.Record) {
		r.Spec.ModelTypes[0], r.Spec.Labels["gpu"], r.Admin.Labels["team"] = "spoilt", "spoilt", "spoilt"
	}
	spoil(mine)
	got := heads(t, s)
	spoil(&got[0])
	if now := heads(t, s)[0]; !equal(now, want) {
		t.Errorf("a caller changed the store: %+v", now)
	}
	must1(s.SavePolicy(t.Context(), 0, policy.Stored{Document: []byte(`{"a":1}`)}))(t)
	p, err := s.Policy(t.Context())
	must(t, err)
	copy(p.Document, "spoilt!")
	if p, _ := s.Policy(t.Context()); string(p.Document) != `{"a":1}` {
		t.Errorf("a caller changed the policy: %s", p.Document)
	}
	noSharedKeys(t, s)
}

func noSharedKeys(t *testing.T, s Store) {
	t.Helper()
	mine := key("a")
	saveKey(t, s, 0, mine)
	spoil := func(k *access.Key) { k.Heads[0], k.Hash[0] = "spoilt", 1 }
	want := keys(t, s)[0]
	spoil(mine)
	got := keys(t, s)
	spoil(&got[0])
	if now := keys(t, s)[0]; !reflect.DeepEqual(now, want) {
		t.Errorf("a caller changed the store: %+v", now)
	}
}

func must1(_ uint64, err error) func(testing.TB) {
	return func(t testing.TB) { t.Helper(); must(t, err) }
}

func cancelled(t *testing.T, open Open) {
	s, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wants(t, s.Save(ctx, []feed.Change[fleet.Record]{{ID: "a", Value: record("a")}}), context.Canceled)
	_, err := s.GrantEpochs(ctx, 1)
	wants(t, err, context.Canceled)
	_, err = s.SavePolicy(ctx, 0, policy.Stored{Document: []byte(`{}`)})
	wants(t, err, context.Canceled)
	wants(t, s.SaveKeys(ctx, []feed.Change[access.Key]{{ID: "a", Value: key("a")}}), context.Canceled)
	empty(t, func(testing.TB) (Store, func() Store) { return s, func() Store { return s } })
}

func noChanges(t *testing.T, open Open) {
	s, _ := open(t)
	must(t, s.Save(t.Context(), nil))
	must(t, s.SaveKeys(t.Context(), nil))
}

func largeBatch(t *testing.T, open Open) {
	s, reopen := open(t)
	changes := make([]feed.Change[fleet.Record], 1024)
	for i := range changes {
		id := fmt.Sprintf("head-%04d", i)
		changes[i] = feed.Change[fleet.Record]{ID: id, Value: record(id)}
	}
	must(t, s.Save(t.Context(), changes))
	revisions := map[uint64]bool{}
	for _, r := range heads(t, reopen()) {
		revisions[r.Revision] = true
	}
	if len(revisions) != len(changes) {
		t.Errorf("%d records have %d revisions", len(changes), len(revisions))
	}
}

func oddIDs(t *testing.T, open Open) {
	s, reopen := open(t)
	ids := []string{"A", "a", "a-1", "a.1", "a_1", "0", "z9.-_Z", "head_with_a_long_name_0123456789.0123456789"}
	for _, id := range ids {
		save(t, s, 0, record(id))
	}
	var got []string
	for _, r := range heads(t, reopen()) {
		got = append(got, r.Spec.ID)
	}
	if want := slices.Sorted(slices.Values(ids)); !slices.Equal(got, want) {
		t.Errorf("got ids %q, want %q", got, want)
	}
}

func policies(t *testing.T, open Open) {
	s, reopen := open(t)
	first := policy.Stored{
		Revision: 99, Document: []byte(`{"default_strategy":"random"}`), Source: "api", Author: "ada", Note: "try it",
		SavedAt: time.Date(2026, 7, 1, 12, 0, 0, 5e6, time.UTC),
	}
	revision, err := s.SavePolicy(t.Context(), 0, first)
	must(t, err)
	for _, expect := range []uint64{0, revision + 1} {
		_, err = s.SavePolicy(t.Context(), expect, first)
		wants(t, err, policy.ErrConflict)
	}
	s = reopen()
	got, err := s.Policy(t.Context())
	must(t, err)
	if !got.SavedAt.Equal(first.SavedAt) {
		t.Errorf("saved at %v, want %v", got.SavedAt, first.SavedAt)
	}
	first.Revision, first.SavedAt = revision, got.SavedAt
	if !reflect.DeepEqual(got, first) {
		t.Fatalf("got %+v, want %+v", got, first)
	}
	second, err := s.SavePolicy(t.Context(), revision, policy.Stored{Document: []byte(`{}`), Source: "file"})
	must(t, err)
	if second <= revision {
		t.Errorf("revision %d follows %d", second, revision)
	}
	list, err := s.PolicyRevisions(t.Context(), 10)
	must(t, err)
	if len(list) != 2 || list[0].Revision != second || list[1].Revision != revision {
		t.Errorf("revisions %+v, want %d and %d", list, second, revision)
	}
	if list, err = s.PolicyRevisions(t.Context(), 1); err != nil || len(list) != 1 || list[0].Revision != second {
		t.Errorf("one revision: %+v, error %v", list, err)
	}
}

func onePolicy(t *testing.T, open Open) {
	s, _ := open(t)
	var wait sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		wait.Go(func() {
			_, err := s.SavePolicy(t.Context(), 0, policy.Stored{Document: []byte(`{}`)})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case !errors.Is(err, policy.ErrConflict):
				t.Errorf("a loser got %v", err)
			}
		})
	}
	wait.Wait()
	if won != 1 {
		t.Errorf("%d saved the first policy", won)
	}
}

func fiftyRevisions(t *testing.T, open Open) {
	s, reopen := open(t)
	revision := uint64(0)
	for i := range 120 {
		var err error
		revision, err = s.SavePolicy(t.Context(), revision, policy.Stored{Document: fmt.Appendf(nil, `{"n":%d}`, i)})
		must(t, err)
	}
	list, err := reopen().PolicyRevisions(t.Context(), 1000)
	must(t, err)
	if len(list) < 50 || len(list) > 119 {
		t.Errorf("%d of 120 revisions are kept, want at least 50, and a bound", len(list))
	}
	for i, p := range list {
		if want := fmt.Sprintf(`{"n":%d}`, 119-i); string(p.Document) != want || p.Revision != revision-uint64(i) {
			t.Fatalf("revision %d is %s, want %d and %s", p.Revision, p.Document, revision-uint64(i), want)
		}
	}
}

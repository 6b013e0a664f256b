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
		"a record comes back as it was saved":              both(comesBack, comesBack),
		"a change is made only to what was read":           both(compareAndSwap, compareAndSwap),
		"changes are made all or not at all":               both(allOrNothing, allOrNothing),
		"of two who change the same record one wins":       both(oneWinner, oneWinner),
		"records are read by their ids":                    both(byID, byID),
		"what a store returns is the caller's":             both(noSharing, noSharing),
		"a large batch is one change":                      both(largeBatch, largeBatch),
		"an id may have any of the characters of an id":    both(oddIDs, oddIDs),
		"an empty list of changes is no change":            both(noChanges, noChanges),
		"epochs never come twice":                          epochs,
		"a caller that left changes nothing":               cancelled,
		"policies are revisions":                           policies,
		"what a store returns of policies is the caller's": noSharedPolicies,
		"of two who save a policy one wins":                onePolicy,
		"at least fifty revisions are kept":                fiftyRevisions,
		"a store is a map that survives restarts":          likeAMap,
		"nothing is there before something was saved":      empty,

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

// both tests heads and keys.
func both(ofHeads func(*testing.T, Open, func(Store) headKind), ofKeys func(*testing.T, Open, func(Store) keyKind)) func(*testing.T, Open) {
	return func(t *testing.T, open Open) {
		t.Run("heads", func(t *testing.T) { ofHeads(t, open, heads) })
		t.Run("keys", func(t *testing.T) { ofKeys(t, open, keys) })
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

func empty(t *testing.T, open Open) {
	s, reopen := open(t)
	for range 2 {
		if h, k := heads(s).all(t), keys(s).all(t); len(h)+len(k) != 0 {
			t.Fatalf("an empty store has heads %v and keys %v", h, k)
		}
		_, err := s.Policy(t.Context())
		wants(t, err, policy.ErrNone)
		if list, err := s.PolicyRevisions(t.Context(), 10); err != nil || len(list) != 0 {
			t.Fatalf("an empty store has revisions %v, error %v", list, err)
		}
		s = reopen()
	}
}

func comesBack[T any, P feed.Item[T]](t *testing.T, open Open, of func(Store) kind[T, P]) {
	s, reopen := open(t)
	k := of(s)
	full, bare := k.put(t, 0, k.full("b")), k.put(t, 0, k.bare("a"))
	if revision(P(full)) == 0 || revision(P(bare)) <= revision(P(full)) {
		t.Fatalf("revisions %d and %d", revision(P(full)), revision(P(bare)))
	}
	for range 2 {
		if list := of(s).all(t); !k.same(list, *bare, *full) {
			t.Fatalf("got %+v\nwant %+v and %+v, ordered by id", list, *bare, *full)
		}
		s = reopen()
	}
}

func compareAndSwap[T any, P feed.Item[T]](t *testing.T, open Open, of func(Store) kind[T, P]) {
	s, reopen := open(t)
	k := of(s)
	first := k.put(t, 0, k.full("a"))
	old := revision(P(first))
	second := P(first).Clone()
	k.alter(second, 1)
	k.put(t, old, second)
	now := revision(P(second))
	if now == old {
		t.Fatal("a change kept the revision")
	}
	other := k.put(t, 0, k.full("c"))
	for name, changes := range map[string][]feed.Change[T]{
		"the revision before": {{ID: "a", Expect: old, Value: k.full("a")}},
		"as if it were new":   {{ID: "a", Value: k.full("a")}},
		"deleted by an old":   {{ID: "a", Expect: old}},
		"not there":           {{ID: "b", Expect: now, Value: k.full("b")}},
		"one of two":          {{ID: "c", Expect: revision(P(other))}, {ID: "b", Expect: 1}},
	} {
		if err := k.save(t.Context(), changes); !errors.Is(err, feed.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k = of(reopen())
	if list := k.all(t); !k.same(list, *second, *other) {
		t.Fatalf("after refused changes the store has %+v", list)
	}
	made := []feed.Change[T]{{ID: "a", Expect: now}, {ID: "none"}, {ID: "d", Value: k.full("d")}}
	must(t, k.save(t.Context(), made))
	if made[0].Revision <= revision(P(other)) || made[1].Revision != 0 || made[2].Revision != revision(P(made[2].Value)) {
		t.Errorf("the changes have revisions %d, %d and %d", made[0].Revision, made[1].Revision, made[2].Revision)
	}
	if back := k.put(t, 0, k.full("a")); revision(P(back)) <= made[2].Revision {
		t.Errorf("a record that came back has revision %d, after %d", revision(P(back)), made[2].Revision)
	}
	if list := of(reopen()).ids(t); !slices.Equal(list, []string{"a", "c", "d"}) {
		t.Errorf("the store has %q", list)
	}
}

func allOrNothing[T any, P feed.Item[T]](t *testing.T, open Open, of func(Store) kind[T, P]) {
	s, reopen := open(t)
	k := of(s)
	a, b := k.put(t, 0, k.full("a")), k.put(t, 0, k.full("b"))
	before := k.all(t)
	changed := P(a).Clone()
	k.alter(changed, 1)
	wants(t, k.save(t.Context(), []feed.Change[T]{
		{ID: "a", Expect: revision(P(a)), Value: changed},
		{ID: "c", Value: k.full("c")},
		{ID: "b", Expect: revision(P(b)) + 1000}, // fails
	}), feed.ErrConflict)
	for range 2 {
		if list := of(s).all(t); !k.same(list, before...) {
			t.Fatalf("a failed batch left %+v\nwant %+v", list, before)
		}
		s = reopen()
	}
}

func oneWinner[T any, P feed.Item[T]](t *testing.T, open Open, of func(Store) kind[T, P]) {
	s, _ := open(t)
	k := of(s)
	base := k.put(t, 0, k.full("a"))
	var wait sync.WaitGroup
	var mu sync.Mutex
	var winners []T
	for i := range 8 {
		wait.Go(func() {
			v := P(base).Clone()
			k.alter(v, i)
			err := k.save(t.Context(), []feed.Change[T]{{ID: "a", Expect: revision(P(base)), Value: v}})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				winners = append(winners, *v)
			case !errors.Is(err, feed.ErrConflict):
				t.Errorf("a loser got %v", err)
			}
		})
	}
	wait.Wait()
	if list := k.all(t); len(winners) != 1 || !k.same(list, winners...) {
		t.Fatalf("winners %+v; the store has %+v", winners, list)
	}
}

func byID[T any, P feed.Item[T]](t *testing.T, open Open, of func(Store) kind[T, P]) {
	s, reopen := open(t)
	k := of(s)
	for _, id := range []string{"c", "a", "b"} {
		k.put(t, 0, k.full(id))
	}
	k = of(reopen())
	list, at, err := k.read(t.Context(), "none", "c", "a")
	must(t, err)
	if all := k.all(t); !k.same(list, all[0], all[2]) || at < revision(P(&all[0])) || at < revision(P(&all[2])) {
		t.Errorf("%+v at revision %d", list, at)
	}
	if none, _, err := k.read(t.Context(), "none"); err != nil || len(none) != 0 {
		t.Errorf("one that is not there: %+v, %v", none, err)
	}
}

func noSharing[T any, P feed.Item[T]](t *testing.T, open Open, of func(Store) kind[T, P]) {
	s, _ := open(t)
	k := of(s)
	mine := k.put(t, 0, k.full("a"))
	want := k.all(t)
	k.spoil(mine)
	got := k.all(t)
	k.spoil(&got[0])
	if now := k.all(t); !k.same(now, want...) {
		t.Errorf("a caller changed the store: %+v", now)
	}
}

func noSharedPolicies(t *testing.T, open Open) {
	s, _ := open(t)
	_, err := s.SavePolicy(t.Context(), 0, policy.Stored{Document: []byte(`{"a":1}`)})
	must(t, err)
	p, err := s.Policy(t.Context())
	must(t, err)
	copy(p.Document, "spoilt!")
	if p, _ := s.Policy(t.Context()); string(p.Document) != `{"a":1}` {
		t.Errorf("a caller changed the policy: %s", p.Document)
	}
}

func cancelled(t *testing.T, open Open) {
	s, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wants(t, s.Save(ctx, []feed.Change[fleet.Record]{{ID: "a", Value: record("a")}}), context.Canceled)
	wants(t, s.SaveKeys(ctx, []feed.Change[access.Key]{{ID: "a", Value: key("a")}}), context.Canceled)
	_, err := s.GrantEpochs(ctx, 1)
	wants(t, err, context.Canceled)
	_, err = s.SavePolicy(ctx, 0, policy.Stored{Document: []byte(`{}`)})
	wants(t, err, context.Canceled)
	empty(t, func(testing.TB) (Store, func() Store) { return s, func() Store { return s } })
}

func noChanges[T any, P feed.Item[T]](t *testing.T, open Open, of func(Store) kind[T, P]) {
	s, _ := open(t)
	must(t, of(s).save(t.Context(), nil))
}

func largeBatch[T any, P feed.Item[T]](t *testing.T, open Open, of func(Store) kind[T, P]) {
	s, reopen := open(t)
	k := of(s)
	changes := make([]feed.Change[T], 1024)
	for i := range changes {
		id := fmt.Sprintf("id-%04d", i)
		changes[i] = feed.Change[T]{ID: id, Value: k.full(id)}
	}
	must(t, k.save(t.Context(), changes))
	revisions := map[uint64]bool{}
	for _, v := range of(reopen()).all(t) {
		revisions[revision(P(&v))] = true
	}
	if len(revisions) != len(changes) {
		t.Errorf("%d records have %d revisions", len(changes), len(revisions))
	}
}

func oddIDs[T any, P feed.Item[T]](t *testing.T, open Open, of func(Store) kind[T, P]) {
	s, reopen := open(t)
	k := of(s)
	ids := []string{"A", "a", "a-1", "a.1", "a_1", "0", "z9.-_Z", "head_with_a_long_name_0123456789.0123456789"}
	for _, id := range ids {
		k.put(t, 0, k.full(id))
	}
	if got, want := of(reopen()).ids(t), slices.Sorted(slices.Values(ids)); !slices.Equal(got, want) {
		t.Errorf("got ids %q, want %q", got, want)
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

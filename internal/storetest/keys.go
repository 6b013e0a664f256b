package storetest

import (
	"crypto/sha256"
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/feed"
)

func key(id string) *access.Key {
	at := time.Date(2026, 7, 1, 12, 0, 0, 123e6, time.UTC)
	hash := sha256.Sum256([]byte(id))
	return &access.Key{
		ID: id, Name: "the key " + id, Role: access.RoleHead, Scopes: []access.Permission{access.Read}, Heads: []string{"gpu-*"},
		Regions: []string{"eu-*"}, Hash: hash[:], CreatedAt: at, CreatedBy: "key:0", ExpiresAt: at.Add(time.Hour), RevokedAt: at.Add(time.Minute),
	}
}

func keys(t testing.TB, s Store, ids ...string) []access.Key {
	t.Helper()
	list, _, err := s.Keys(t.Context(), ids...)
	must(t, err)
	for i := range list { // the same time may have another representation
		for _, at := range []*time.Time{&list[i].CreatedAt, &list[i].ExpiresAt, &list[i].RevokedAt} {
			*at = at.UTC()
		}
	}
	return list
}

func saveKey(t testing.TB, s Store, expect uint64, k *access.Key) *access.Key {
	t.Helper()
	must(t, s.SaveKeys(t.Context(), []feed.Change[access.Key]{{ID: k.ID, Expect: expect, Value: k}}))
	return k
}

func keysComeBack(t *testing.T, open Open) {
	s, reopen := open(t)
	full := saveKey(t, s, 0, key("b"))
	bare := saveKey(t, s, 0, &access.Key{ID: "a", Role: access.RoleAdmin, Hash: []byte{1}})
	if full.Revision == 0 || bare.Revision <= full.Revision {
		t.Fatalf("revisions %d and %d", full.Revision, bare.Revision)
	}
	for range 2 {
		if list := keys(t, s); !reflect.DeepEqual(list, []access.Key{*bare, *full}) {
			t.Fatalf("got %+v\nwant %+v and %+v, ordered by id", list, *bare, *full)
		}
		s = reopen()
	}
}

func keysCompareAndSwap(t *testing.T, open Open) {
	s, reopen := open(t)
	first := saveKey(t, s, 0, key("a"))
	second := first.Clone()
	second.Name = "another"
	saveKey(t, s, first.Revision, second)
	other := saveKey(t, s, 0, key("c"))
	for name, changes := range map[string][]feed.Change[access.Key]{
		"the revision before": {{ID: "a", Expect: first.Revision, Value: key("a")}},
		"as if it were new":   {{ID: "a", Value: key("a")}},
		"deleted by an old":   {{ID: "a", Expect: first.Revision}},
		"not there":           {{ID: "b", Expect: second.Revision, Value: key("b")}},
		"one of two":          {{ID: "c", Expect: other.Revision}, {ID: "b", Expect: 1}},
	} {
		if err := s.SaveKeys(t.Context(), changes); !errors.Is(err, feed.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s = reopen()
	if list := keys(t, s); !reflect.DeepEqual(list, []access.Key{*second, *other}) {
		t.Fatalf("after refused changes the store has %+v", list)
	}
	must(t, s.SaveKeys(t.Context(), []feed.Change[access.Key]{{ID: "a", Expect: second.Revision}, {ID: "none"}, {ID: "d", Value: key("d")}}))
	if back := saveKey(t, s, 0, key("a")); back.Revision <= other.Revision {
		t.Errorf("a key that came back has revision %d, after %d", back.Revision, other.Revision)
	}
	if list := keys(t, reopen()); len(list) != 3 || list[2].ID != "d" {
		t.Errorf("the store has %+v", list)
	}
}

func oneKey(t *testing.T, open Open) {
	s, _ := open(t)
	base := saveKey(t, s, 0, key("a"))
	var wait sync.WaitGroup
	var mu sync.Mutex
	var winners []string
	for _, name := range []string{"ada", "bob", "cyd", "dan"} {
		wait.Go(func() {
			k := base.Clone()
			k.Name = name
			err := s.SaveKeys(t.Context(), []feed.Change[access.Key]{{ID: "a", Expect: base.Revision, Value: k}})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				winners = append(winners, name)
			case !errors.Is(err, feed.ErrConflict):
				t.Errorf("a loser got %v", err)
			}
		})
	}
	wait.Wait()
	if len(winners) != 1 || keys(t, s)[0].Name != winners[0] {
		t.Fatalf("winners %v; the store has %q", winners, keys(t, s)[0].Name)
	}
}

func byID(t *testing.T, open Open) {
	s, reopen := open(t)
	for _, id := range []string{"c", "a", "b"} {
		save(t, s, 0, record(id))
		saveKey(t, s, 0, key(id))
	}
	s = reopen()
	records, revision, err := s.Heads(t.Context(), "none", "c", "a")
	must(t, err)
	if len(records) != 2 || records[0].Spec.ID != "a" || records[1].Spec.ID != "c" || revision < records[1].Revision || revision < records[0].Revision {
		t.Errorf("heads %+v at revision %d", records, revision)
	}
	list := keys(t, s, "none", "c", "a")
	if got := slices.Collect(func(yield func(string) bool) {
		for _, k := range list {
			if !yield(k.ID) {
				return
			}
		}
	}); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("keys %v", got)
	}
	if none, _, err := s.Heads(t.Context(), "none"); err != nil || len(none) != 0 {
		t.Errorf("a head that is not there: %+v, %v", none, err)
	}
}

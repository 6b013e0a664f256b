package storetest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"headway/internal/feed"
	"headway/internal/policy"
)

// likeAMap holds a store against a map through random changes and restarts.
// Each step is a durable write, so it makes 15 checks unless -rapid.checks says
// otherwise.
func likeAMap(t *testing.T, open Open) {
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		must(t, f.Value.Set("15"))
		defer func() { must(t, f.Value.Set(f.DefValue)) }()
	}
	rapid.Check(t, func(rt *rapid.T) {
		s, reopen := open(t)
		h, k, p := newModel(heads), newModel(keys), policyModel{}
		rt.Repeat(map[string]func(*rapid.T){
			"heads":  func(rt *rapid.T) { h.save(rt, s) },
			"keys":   func(rt *rapid.T) { k.save(rt, s) },
			"policy": func(rt *rapid.T) { p.save(t.Context(), rt, s) },
			"restart": func(*rapid.T) {
				s, h.restarted, k.restarted = reopen(), true, true
			},
			"watch": func(rt *rapid.T) { h.watch(rt, s); k.watch(rt, s) },
			"":      func(rt *rapid.T) { h.compare(rt, s); k.compare(rt, s); p.compare(t.Context(), rt, s) },
		})
	})
}

// model is what a store should hold of a kind.
type model[T any, P feed.Item[T]] struct {
	of     func(Store) kind[T, P]
	stored map[string]T

	// What a watch brought, up to which revision, and how many changes were made since.
	seen      map[string]T
	at        uint64
	since     int
	restarted bool // a store may forget the changes then
}

func newModel[T any, P feed.Item[T]](of func(Store) kind[T, P]) *model[T, P] {
	return &model[T, P]{of: of, stored: map[string]T{}, seen: map[string]T{}}
}

// save makes a random batch, of which one in ten changes expects a wrong
// revision.
func (m *model[T, P]) save(rt *rapid.T, s Store) {
	k := m.of(s)
	var changes []feed.Change[T]
	fails, made := false, 0
	for _, id := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-d]`), 1, 3, rapid.ID).Draw(rt, "ids") {
		c := feed.Change[T]{ID: id}
		if v, ok := m.stored[id]; ok {
			c.Expect = revision(P(&v))
		}
		if rapid.IntRange(0, 9).Draw(rt, "wrong") == 0 {
			c.Expect++
			fails = true
		}
		if rapid.Bool().Draw(rt, "write") {
			c.Value = k.full(id)
			k.alter(c.Value, rapid.IntRange(0, 1000).Draw(rt, "value"))
		}
		if c.Value != nil || c.Expect > 0 {
			made++
		}
		changes = append(changes, c)
	}
	err := k.save(rt.Context(), changes)
	if fails != errors.Is(err, feed.ErrConflict) || !fails && err != nil {
		rt.Fatalf("saving %+v: %v", changes, err)
	}
	if fails {
		return
	}
	m.since += made
	apply(m.stored, changes)
}

// apply makes changes to a map.
func apply[T any](to map[string]T, changes []feed.Change[T]) {
	for _, c := range changes {
		if delete(to, c.ID); c.Value != nil {
			to[c.ID] = *c.Value
		}
	}
}

// watch takes over what a watch brings, which is what the store holds then.
func (m *model[T, P]) watch(rt *rapid.T, s Store) {
	k := m.of(s)
	switch c, err := k.watch(feed.AtOnce(rt.Context()), m.at); {
	case errors.Is(err, context.Canceled) && m.since == 0:
	case err != nil:
		rt.Fatalf("%d changes after revision %d: %v", m.since, m.at, err)
	case c.Whole && !m.restarted, !c.Whole && len(c.List) != m.since:
		rt.Fatalf("%d changes, whole %v; want %d", len(c.List), c.Whole, m.since)
	default:
		if c.Whole {
			clear(m.seen)
		}
		for _, change := range c.List {
			if !c.Whole && change.Revision <= m.at {
				rt.Fatalf("revision %d follows %d", change.Revision, m.at)
			}
			m.at = change.Revision
		}
		apply(m.seen, c.List)
		m.at = c.Revision
	}
	m.since, m.restarted = 0, false
	if !k.same(inOrder(m.seen), inOrder(m.stored)...) {
		rt.Fatalf("a watch brought %+v\nwant %+v", m.seen, m.stored)
	}
}

// inOrder are the values by id.
func inOrder[T any](of map[string]T) (list []T) {
	for _, id := range slices.Sorted(maps.Keys(of)) {
		list = append(list, of[id])
	}
	return list
}

func (m *model[T, P]) compare(rt *rapid.T, s Store) {
	k := m.of(s)
	list, _, err := k.read(rt.Context())
	if err != nil {
		rt.Fatal(err)
	}
	if want := inOrder(m.stored); !k.same(list, want...) {
		rt.Fatalf("the store has %+v\nwant %+v", list, want)
	}
}

// policyModel is what a store should hold of policies, newest first.
type policyModel struct{ policies []policy.Stored }

// save saves a random document, one in four over a wrong revision.
func (m *policyModel) save(ctx context.Context, rt *rapid.T, s Store) {
	expect := uint64(0)
	if len(m.policies) > 0 {
		expect = m.policies[0].Revision
	}
	fails := rapid.IntRange(0, 3).Draw(rt, "wrong") == 0
	if fails {
		expect++
	}
	p := policy.Stored{Document: rapid.SliceOfN(rapid.Byte(), 1, 8).Draw(rt, "document"), Source: "api"}
	revision, err := s.SavePolicy(ctx, expect, p)
	if fails != errors.Is(err, policy.ErrConflict) || !fails && (err != nil || revision <= expect) {
		rt.Fatalf("saving a policy over %d: revision %d, error %v", expect, revision, err)
	}
	if !fails {
		p.Revision = revision
		m.policies = slices.Insert(m.policies, 0, p)
	}
}

func (m *policyModel) compare(ctx context.Context, rt *rapid.T, s Store) {
	kept, err := s.PolicyRevisions(ctx, 50)
	if err != nil {
		rt.Fatal(err)
	}
	if want := m.policies[:min(50, len(m.policies))]; !slices.EqualFunc(kept, want, samePolicy) {
		rt.Fatalf("the store has policies %+v\nwant %+v", kept, want)
	}
}

func samePolicy(a, b policy.Stored) bool {
	return a.Revision == b.Revision && bytes.Equal(a.Document, b.Document) && a.Source == b.Source && a.SavedAt.Equal(b.SavedAt)
}

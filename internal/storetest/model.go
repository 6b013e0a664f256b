package storetest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"headway/internal/access"
	"headway/internal/feed"
	"headway/internal/fleet"
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
		m := model{heads: map[string]fleet.Record{}, keys: map[string]access.Key{}, seenHeads: map[string]fleet.Record{}, seenKeys: map[string]access.Key{}}
		rt.Repeat(map[string]func(*rapid.T){
			"save":    func(rt *rapid.T) { m.save(t.Context(), rt, s) },
			"policy":  func(rt *rapid.T) { m.savePolicy(t.Context(), rt, s) },
			"keys":    func(rt *rapid.T) { m.saveKeys(t.Context(), rt, s) },
			"restart": func(*rapid.T) { s, m.restarted = reopen(), true },
			"watch":   func(rt *rapid.T) { m.watch(rt, s) },
			"":        func(rt *rapid.T) { m.compare(t.Context(), rt, s) },
		})
	})
}

// model is what a store should hold.
type model struct {
	heads    map[string]fleet.Record
	keys     map[string]access.Key
	policies []policy.Stored // newest first

	// What watches brought, up to which revision, and how many changes were made since.
	seenHeads             map[string]fleet.Record
	seenKeys              map[string]access.Key
	atHeads, atKeys       uint64
	sinceHeads, sinceKeys int
	restarted             bool // a store may forget the changes then
}

// watch takes over what watches bring, which is what the store holds then.
func (m *model) watch(rt *rapid.T, s Store) {
	c, err := s.Watch(feed.AtOnce(rt.Context()), m.atHeads)
	m.atHeads = took(rt, c, err, m.atHeads, m.sinceHeads, m.restarted, m.seenHeads)
	k, err := s.WatchKeys(feed.AtOnce(rt.Context()), m.atKeys)
	m.atKeys = took(rt, k, err, m.atKeys, m.sinceKeys, m.restarted, m.seenKeys)
	m.sinceHeads, m.sinceKeys, m.restarted = 0, 0, false
	if !maps.EqualFunc(m.seenHeads, m.heads, equal) {
		rt.Fatalf("a watch brought %+v\nwant %+v", m.seenHeads, m.heads)
	}
	if !maps.EqualFunc(m.seenKeys, m.keys, sameKey) {
		rt.Fatalf("a watch brought %+v\nwant %+v", m.seenKeys, m.keys)
	}
}

// took makes the changes to what was seen, and returns where the watch goes on.
func took[T any](rt *rapid.T, c feed.Changes[T], err error, after uint64, made int, restarted bool, seen map[string]T) uint64 {
	if errors.Is(err, context.Canceled) && made == 0 {
		return after
	}
	if err != nil {
		rt.Fatalf("%d changes after revision %d: %v", made, after, err)
	}
	switch {
	case c.Whole && restarted:
		clear(seen)
	case c.Whole || len(c.List) != made:
		rt.Fatalf("%d changes, whole %v; want %d", len(c.List), c.Whole, made)
	}
	for _, change := range c.List {
		if !c.Whole && change.Revision <= after {
			rt.Fatalf("revision %d follows %d", change.Revision, after)
		}
		after = change.Revision
		if delete(seen, change.ID); change.Value != nil {
			seen[change.ID] = *change.Value
		}
	}
	return c.Revision
}

// saveKeys makes a random batch of keys, of which one in ten changes expects a
// wrong revision.
func (m *model) saveKeys(ctx context.Context, rt *rapid.T, s Store) {
	var changes []feed.Change[access.Key]
	fails, made := false, 0
	for _, id := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-c]`), 1, 2, rapid.ID).Draw(rt, "ids") {
		c := feed.Change[access.Key]{ID: id, Expect: m.keys[id].Revision}
		if rapid.IntRange(0, 9).Draw(rt, "wrong") == 0 {
			fails, c.Expect = true, c.Expect+1
		}
		if rapid.Bool().Draw(rt, "write") {
			c.Value = key(id)
			c.Value.Name = rapid.StringMatching(`[a-z]{0,4}`).Draw(rt, "name")
		}
		if c.Value != nil || c.Expect > 0 {
			made++
		}
		changes = append(changes, c)
	}
	err := s.SaveKeys(ctx, changes)
	if fails != errors.Is(err, feed.ErrConflict) || !fails && err != nil {
		rt.Fatalf("saving %+v: %v", changes, err)
	}
	if fails {
		changes, made = nil, 0
	}
	m.sinceKeys += made
	for _, c := range changes {
		if delete(m.keys, c.ID); c.Value != nil {
			m.keys[c.ID] = *c.Value
		}
	}
}

// sameKey compares all but how times are represented.
func sameKey(a, b access.Key) bool {
	same := a.CreatedAt.Equal(b.CreatedAt) && a.ExpiresAt.Equal(b.ExpiresAt) && a.RevokedAt.Equal(b.RevokedAt)
	a.CreatedAt, a.ExpiresAt, a.RevokedAt = b.CreatedAt, b.ExpiresAt, b.RevokedAt
	return same && reflect.DeepEqual(a, b)
}

// save makes a random batch, of which one in ten changes expects a wrong
// revision.
func (m *model) save(ctx context.Context, rt *rapid.T, s Store) {
	var changes []feed.Change[fleet.Record]
	fails, made := false, 0
	for _, id := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-d]`), 1, 3, rapid.ID).Draw(rt, "ids") {
		c := feed.Change[fleet.Record]{ID: id, Expect: m.heads[id].Revision}
		if rapid.IntRange(0, 9).Draw(rt, "wrong") == 0 {
			c.Expect++
			fails = true
		}
		if rapid.Bool().Draw(rt, "write") {
			c.Value = record(id)
			c.Value.Epoch = rapid.Uint64().Draw(rt, "epoch")
		}
		if c.Value != nil || c.Expect > 0 {
			made++
		}
		changes = append(changes, c)
	}
	err := s.Save(ctx, changes)
	if fails != errors.Is(err, fleet.ErrConflict) || !fails && err != nil {
		rt.Fatalf("saving %+v: %v", changes, err)
	}
	if fails {
		return
	}
	m.sinceHeads += made
	for _, c := range changes {
		if delete(m.heads, c.ID); c.Value != nil {
			m.heads[c.ID] = *c.Value
		}
	}
}

// savePolicy saves a random document, one in four over a wrong revision.
func (m *model) savePolicy(ctx context.Context, rt *rapid.T, s Store) {
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

func (m *model) compare(ctx context.Context, rt *rapid.T, s Store) {
	list, _, err := s.Heads(ctx)
	if err != nil {
		rt.Fatal(err)
	}
	var want []fleet.Record
	for _, id := range slices.Sorted(maps.Keys(m.heads)) {
		want = append(want, m.heads[id])
	}
	if !slices.EqualFunc(list, want, equal) {
		rt.Fatalf("the store has %+v\nwant %+v", list, want)
	}
	stored, _, err := s.Keys(ctx)
	if err != nil {
		rt.Fatal(err)
	}
	var wantKeys []access.Key
	for _, id := range slices.Sorted(maps.Keys(m.keys)) {
		wantKeys = append(wantKeys, m.keys[id])
	}
	if !slices.EqualFunc(stored, wantKeys, sameKey) {
		rt.Fatalf("the store has %+v\nwant %+v", stored, wantKeys)
	}
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

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
		m := model{heads: map[string]fleet.Record{}}
		rt.Repeat(map[string]func(*rapid.T){
			"save":    func(rt *rapid.T) { m.save(t.Context(), rt, s) },
			"policy":  func(rt *rapid.T) { m.savePolicy(t.Context(), rt, s) },
			"restart": func(*rapid.T) { s = reopen() },
			"":        func(rt *rapid.T) { m.compare(t.Context(), rt, s) },
		})
	})
}

// model is what a store should hold.
type model struct {
	heads    map[string]fleet.Record
	policies []policy.Stored // newest first
}

// save makes a random batch, of which one in ten changes expects a wrong
// revision.
func (m *model) save(ctx context.Context, rt *rapid.T, s Store) {
	var changes []fleet.Change
	fails := false
	for _, id := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-d]`), 1, 3, rapid.ID).Draw(rt, "ids") {
		c := fleet.Change{ID: id, Expect: m.heads[id].Revision}
		if rapid.IntRange(0, 9).Draw(rt, "wrong") == 0 {
			c.Expect++
			fails = true
		}
		if rapid.Bool().Draw(rt, "write") {
			c.Record = record(id)
			c.Record.Epoch = rapid.Uint64().Draw(rt, "epoch")
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
	for _, c := range changes {
		if delete(m.heads, c.ID); c.Record != nil {
			m.heads[c.ID] = *c.Record
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
	list, err := s.Heads(ctx)
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

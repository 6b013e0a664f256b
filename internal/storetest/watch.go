package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/policy"
)

// watching is one kind of a store, seen by who watches it.
type watching struct {
	name  string
	watch func(ctx context.Context, after uint64) (position, error)
	write func(t testing.TB, n int) uint64 // the nth change of one value, and its revision
}

// position is what a watch brought.
type position struct {
	revisions []uint64
	revision  uint64
	whole     bool
}

func positionOf[T any](c feed.Changes[T], err error) (position, error) {
	p := position{revision: c.Revision, whole: c.Whole}
	for _, change := range c.List {
		p.revisions = append(p.revisions, change.Revision)
	}
	return p, err
}

// watchingOf writes one value again and again.
func watchingOf[T any, P feed.Item[T]](k kind[T, P]) watching {
	last := uint64(0)
	return watching{
		k.name,
		func(ctx context.Context, after uint64) (position, error) { return positionOf(k.watch(ctx, after)) },
		func(t testing.TB, n int) uint64 {
			v := k.full("a")
			k.alter(v, n)
			last = revision(P(k.put(t, last, v)))
			return last
		},
	}
}

// each are the three kinds of a store, which begins empty.
func each(s Store) []watching {
	last := uint64(0)
	return []watching{watchingOf(heads(s)), watchingOf(keys(s)), {
		"policies",
		func(ctx context.Context, after uint64) (position, error) {
			return positionOf(s.WatchPolicy(ctx, after))
		},
		func(t testing.TB, n int) (revision uint64) {
			revision, err := s.SavePolicy(t.Context(), last, policy.Stored{Document: fmt.Appendf(nil, `{"n":%d}`, n)})
			must(t, err)
			last = revision
			return revision
		},
	}}
}

func watchWaits(t *testing.T, open Open) {
	s, _ := open(t)
	for _, w := range each(s) {
		_, err := w.watch(feed.AtOnce(t.Context()), 0)
		wants(t, err, context.Canceled)
		type result struct {
			position
			err error
		}
		came := make(chan result, 1)
		ctx, cancel := context.WithCancel(t.Context())
		next := func(after uint64) {
			p, err := w.watch(ctx, after)
			came <- result{p, err}
		}
		go next(0)
		revision := w.write(t, 1)
		if got := <-came; got.err != nil || got.whole || !slices.Equal(got.revisions, []uint64{revision}) || got.revision != revision {
			t.Errorf("%s: after revision %d the watch brought %+v", w.name, revision, got)
		}
		if p, err := w.watch(feed.AtOnce(t.Context()), 0); err != nil || p.revision != revision {
			t.Errorf("%s: what is there, to one who left: %+v, %v", w.name, p, err)
		}
		go next(revision)
		select {
		case got := <-came:
			t.Errorf("%s: without a change the watch brought %+v", w.name, got)
		case <-time.After(time.Millisecond):
		}
		cancel()
		if got := <-came; !errors.Is(got.err, context.Canceled) {
			t.Errorf("%s: a watch that ended got %+v", w.name, got)
		}
	}
}

func watchers(t *testing.T, open Open) {
	const n = 50
	s, _ := open(t)
	for _, w := range each(s) {
		var all sync.WaitGroup
		seen := make([][]uint64, 4)
		for i := range seen {
			all.Go(func() {
				for after := uint64(0); len(seen[i]) < n; {
					p, err := w.watch(t.Context(), after)
					if err != nil || p.whole {
						t.Errorf("%s: whole %v, error %v", w.name, p.whole, err)
						return
					}
					seen[i] = append(seen[i], p.revisions...)
					after = p.revision
					if i%2 == 1 && len(p.revisions) > 1 { // resumes in between
						after = p.revisions[0]
						seen[i] = seen[i][:len(seen[i])-len(p.revisions)+1]
					}
				}
			})
		}
		var want []uint64
		for i := range n {
			want = append(want, w.write(t, i))
		}
		all.Wait()
		for i := range seen {
			if !slices.Equal(seen[i], want) {
				t.Errorf("%s: a watcher saw %v, want %v", w.name, seen[i], want)
			}
		}
	}
}

func watchFarBehind(t *testing.T, open Open) {
	s, _ := open(t)
	var changes []feed.Change[fleet.Record]
	for i := range 1000 {
		id := fmt.Sprintf("head-%04d", i)
		changes = append(changes, feed.Change[fleet.Record]{ID: id, Value: record(id)})
	}
	for range 20 {
		must(t, s.Save(t.Context(), changes))
		for i := range changes {
			changes[i].Expect = changes[i].Value.Revision
		}
	}
	must(t, s.Save(t.Context(), []feed.Change[fleet.Record]{{ID: changes[0].ID, Expect: changes[0].Expect}}))
	c, err := s.Watch(t.Context(), 1)
	must(t, err)
	if c.Whole && len(c.List) != len(changes)-1 || !c.Whole && len(c.List) != 20_000 {
		t.Fatalf("whole %v, with %d changes", c.Whole, len(c.List))
	}
	for i, change := range c.List {
		if c.Whole && (change.ID != changes[i+1].ID || change.Revision != changes[i+1].Expect || change.Value == nil) {
			t.Fatalf("%s of revision %d, want %s of %d", change.ID, change.Revision, changes[i+1].ID, changes[i+1].Expect)
		}
	}
	if _, err := s.Watch(feed.AtOnce(t.Context()), c.Revision); !errors.Is(err, context.Canceled) {
		t.Errorf("after all of it: %v", err)
	}
}

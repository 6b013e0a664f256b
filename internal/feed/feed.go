// Package feed has the changes of stores: those to be made, and the last ones
// that were made. Readers get the changes after a revision in order, each once;
// if those are no longer kept, they get all that is stored.
package feed

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Change is one change of what a store keeps, to be made or made.
type Change[T any] struct {
	ID       string
	Expect   uint64 // to be made: the revision that must be stored now; 0: none
	Revision uint64 // made: of the store, with this change; 0: there was nothing to delete
	Value    *T     // nil: a deletion. That of a watch is shared with other readers, who must not change it
}

// IDs are the ids of changes.
func IDs[T any](changes []Change[T]) []string {
	ids := make([]string, len(changes))
	for i, c := range changes {
		ids[i] = c.ID
	}
	return ids
}

// ErrConflict says that a value changed under the caller of a store.
var ErrConflict = errors.New("the stored record has another revision")

// Item is a pointer to what a store keeps by its id.
type Item[T any] interface {
	*T
	Clone() *T
	// Identity is the id, and the revision of the store with the last change.
	Identity() (id string, revision *uint64)
}

// Changes are the changes up to a revision.
type Changes[T any] struct {
	List     []Change[T] // in the order in which they were made
	Revision uint64      // where to go on
	Whole    bool        // List is all that is stored: what it lacks was deleted
}

// Read makes changes of the values that a store returned for ids, or without
// ids of all values.
func Read[T any, P Item[T]](ids []string, values []T, revision uint64) Changes[T] {
	c := Changes[T]{Revision: revision, Whole: len(ids) == 0}
	missing := map[string]bool{}
	for _, id := range ids {
		missing[id] = true
	}
	for i := range values {
		id, at := P(&values[i]).Identity()
		delete(missing, id)
		c.List = append(c.List, Change[T]{ID: id, Revision: *at, Value: &values[i]})
	}
	for id := range missing {
		c.List = append(c.List, Change[T]{ID: id, Revision: revision})
	}
	return c
}

// Bound is how many changes a Feed of small values keeps.
const Bound = 4096

// Feed is the last changes of a store. All methods are safe for concurrent use.
type Feed[T any] struct {
	bound    int
	mu       sync.Mutex
	kept     []Change[T]   // the last, fewer than twice the bound
	from     uint64        // all changes after this revision are kept
	revision uint64        // of the last change
	more     chan struct{} // closed by the next Add; nil: no reader waits
}

// New makes the feed of a store at a revision. It keeps at least bound changes.
func New[T any](revision uint64, bound int) *Feed[T] {
	return &Feed[T]{bound: bound, from: revision, revision: revision}
}

// Add adds changes with growing revisions, without waiting for readers. After a
// gap in the revisions readers get the whole.
func (f *Feed[T]) Add(changes ...Change[T]) {
	if len(changes) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range changes {
		if c.Revision != f.revision+1 {
			f.kept, f.from = nil, c.Revision-1
		}
		f.revision = c.Revision
		f.kept = append(f.kept, c)
	}
	if len(f.kept) >= 2*f.bound {
		f.kept = slices.Clone(f.kept[len(f.kept)-f.bound:])
		f.from = f.kept[0].Revision - 1
	}
	if f.more != nil {
		close(f.more)
		f.more = nil
	}
}

// Next returns the changes after a revision, waiting for the first. Available
// changes are returned even after ctx has ended. If they are no longer kept it
// returns the result of whole.
func (f *Feed[T]) Next(ctx context.Context, after uint64, whole func(context.Context) (Changes[T], error)) (Changes[T], error) {
	for {
		c, known, more := f.since(after)
		switch {
		case !known:
			return whole(context.WithoutCancel(ctx))
		case more == nil:
			return c, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return Changes[T]{}, ctx.Err()
		}
	}
}

// since returns the kept changes after a revision, or a channel that is closed
// by the next one. known is false when they are no longer kept.
func (f *Feed[T]) since(after uint64) (c Changes[T], known bool, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case after < f.from:
		return c, false, nil
	case after < f.revision:
		i, _ := slices.BinarySearchFunc(f.kept, after+1, func(c Change[T], r uint64) int { return cmp.Compare(c.Revision, r) })
		return Changes[T]{List: slices.Clip(f.kept[i:]), Revision: f.revision}, true, nil
	}
	if f.more == nil {
		f.more = make(chan struct{})
	}
	return c, true, f.more
}

// How long Follow waits before it retries a failed watch.
const (
	firstRest = 100 * time.Millisecond
	lastRest  = 10 * time.Second
)

// Follow passes take the changes after a revision until ctx ends. watch is a
// store's Watch; if it fails it is retried later.
func Follow[T any](ctx context.Context, after uint64, watch func(context.Context, uint64) (Changes[T], error), take func(Changes[T]), failed func(error)) {
	rest := firstRest
	for {
		c, err := watch(ctx, after)
		if err == nil {
			take(c)
			after, rest = c.Revision, firstRest
			continue
		}
		if ctx.Err() != nil {
			return
		}
		failed(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(rest) + rest/2):
		}
		rest = min(2*rest, lastRest)
	}
}

// AtOnce returns an ended ctx, with which Next and a store's Watch return what
// is available without waiting.
func AtOnce(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

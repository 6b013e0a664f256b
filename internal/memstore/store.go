// Package memstore keeps heads, policies and keys in memory, for simulations and
// tests. It holds the contracts of fleet.Store, policy.Store and access.KeyStore,
// panics when its caller breaks them, and injects the faults that a test asks for.
package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"headway/internal/access"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/policy"
)

// keptPolicies is how many revisions of the policy are kept.
const keptPolicies = 100

// Fault is what goes wrong with calls that write.
type Fault struct {
	Err   error           // what they fail with
	After bool            // they write before they fail, which their caller cannot know
	Wait  <-chan struct{} // they begin when it is closed
	Delay time.Duration   // they take so long
	Times int             // how many calls; 0: all, until something else is injected
	Reads bool            // calls that read too
}

// Full is the fault of a disk without room.
var Full = Fault{Err: fmt.Errorf("%w: no room is left", fleet.ErrStoreUnavailable)}

// Counts are what a Store was asked.
type Counts struct {
	Saves   int // calls that write, failed ones too
	Changes int // heads, keys and policies written or deleted
}

// Store is a fleet.Store, a policy.Store and an access.KeyStore. All methods are
// safe for concurrent use.
type Store struct {
	mu       sync.Mutex
	fault    Fault
	counts   Counts
	heads    table[fleet.Record]
	keys     table[access.Key]
	policies []policy.Stored // newest first
	applied  *feed.Feed[policy.Stored]
	epochs   uint64
}

// New makes an empty store.
func New() *Store {
	return &Store{
		heads: newTable((*fleet.Record).Clone, func(r *fleet.Record) (*string, *uint64) { return &r.Spec.ID, &r.Revision }, fleet.ErrConflict),
		keys:  newTable((*access.Key).Clone, func(k *access.Key) (*string, *uint64) { return &k.ID, &k.Revision }, access.ErrKeyConflict),

		applied: feed.New[policy.Stored](0, keptPolicies),
	}
}

// Inject has calls go wrong from now on; the zero Fault ends that.
func (s *Store) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Counts returns what was asked so far.
func (s *Store) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// next is the fault of the call that begins.
func (s *Store) next(writes bool) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if writes {
		s.counts.Saves++
	}
	fault := s.fault
	switch {
	case !writes && !fault.Reads:
		return Fault{}
	case fault.Times == 1:
		s.fault = Fault{}
	case fault.Times > 1:
		s.fault.Times--
	}
	return fault
}

// call does f under the lock, with the fault that is injected.
func (s *Store) call(ctx context.Context, writes bool, f func() error) error {
	fault := s.next(writes)
	if fault.Wait != nil {
		<-fault.Wait
	}
	if fault.Delay > 0 {
		<-time.After(fault.Delay)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if fault.Err != nil && !fault.After {
		return fault.Err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	return fault.Err
}

// table is what is stored of one kind. Values are never changed in place.
type table[T any] struct {
	stored   map[string]*T
	revision uint64
	changes  *feed.Feed[T]
	clone    func(*T) *T
	is       func(*T) (id *string, revision *uint64)
	conflict error
}

func newTable[T any](clone func(*T) *T, is func(*T) (*string, *uint64), conflict error) table[T] {
	return table[T]{stored: map[string]*T{}, changes: feed.New[T](0, feed.Bound), clone: clone, is: is, conflict: conflict}
}

// change is one change of a value; nil deletes it.
type change[T any] struct {
	id     string
	expect uint64
	value  *T
}

func (t *table[T]) read(ids []string) []T {
	if len(ids) == 0 {
		ids = slices.Collect(maps.Keys(t.stored))
	}
	list := make([]T, 0, len(ids))
	for _, id := range slices.Sorted(slices.Values(ids)) {
		if v := t.stored[id]; v != nil {
			list = append(list, *t.clone(v))
		}
	}
	return list
}

// save makes all changes or none. The contract has a change name its value, and
// each value once.
func (t *table[T]) save(changes []change[T], counts *Counts) error {
	seen := map[string]bool{}
	for _, c := range changes {
		if seen[c.id] {
			panic(fmt.Sprintf("memstore: %s is changed twice at once", c.id))
		}
		seen[c.id] = true
		var have uint64
		if v := t.stored[c.id]; v != nil {
			_, at := t.is(v)
			have = *at
		}
		if have != c.expect {
			return fmt.Errorf("%w: %s has %d, not %d", t.conflict, c.id, have, c.expect)
		}
	}
	for _, c := range changes {
		if c.value == nil && c.expect == 0 {
			continue // it was not there
		}
		t.revision++
		counts.Changes++
		delete(t.stored, c.id)
		var written *T
		if c.value != nil {
			id, at := t.is(c.value)
			if *id != c.id {
				panic(fmt.Sprintf("memstore: %s is stored as %s", *id, c.id))
			}
			*at = t.revision
			written = t.clone(c.value)
			t.stored[c.id] = written
		}
		t.changes.Add(feed.Change[T]{ID: c.id, Revision: t.revision, Value: written})
	}
	return nil
}

// watch implements the Watch of a kind.
func watch[T any](ctx context.Context, s *Store, t *table[T], after uint64) (feed.Changes[T], error) {
	if fault := s.next(false); fault.Err != nil {
		return feed.Changes[T]{}, fault.Err
	}
	return t.changes.Next(ctx, after, func(context.Context) (feed.Changes[T], error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return feed.Read(nil, t.read(nil), t.revision, func(v *T) (string, uint64) {
			id, at := t.is(v)
			return *id, *at
		}), nil
	})
}

// Heads implements fleet.Store.
func (s *Store) Heads(ctx context.Context, ids ...string) (records []fleet.Record, revision uint64, err error) {
	err = s.call(ctx, false, func() error {
		records, revision = s.heads.read(ids), s.heads.revision
		return nil
	})
	return records, revision, err
}

// Save implements fleet.Store.
func (s *Store) Save(ctx context.Context, changes []fleet.Change) error {
	return s.call(ctx, true, func() error {
		list := make([]change[fleet.Record], len(changes))
		for i, c := range changes {
			list[i] = change[fleet.Record]{c.ID, c.Expect, c.Record}
		}
		return s.heads.save(list, &s.counts)
	})
}

// GrantEpochs implements fleet.Store.
func (s *Store) GrantEpochs(ctx context.Context, n uint64) (first uint64, err error) {
	err = s.call(ctx, true, func() error {
		first = s.epochs + 1
		s.epochs += n
		return nil
	})
	return first, err
}

// Watch implements fleet.Store.
func (s *Store) Watch(ctx context.Context, after uint64) (feed.Changes[fleet.Record], error) {
	return watch(ctx, s, &s.heads, after)
}

// Keys implements access.KeyStore.
func (s *Store) Keys(ctx context.Context, ids ...string) (keys []access.Key, revision uint64, err error) {
	err = s.call(ctx, false, func() error {
		keys, revision = s.keys.read(ids), s.keys.revision
		return nil
	})
	return keys, revision, err
}

// SaveKeys implements access.KeyStore.
func (s *Store) SaveKeys(ctx context.Context, changes []access.KeyChange) error {
	return s.call(ctx, true, func() error {
		list := make([]change[access.Key], len(changes))
		for i, c := range changes {
			list[i] = change[access.Key]{c.ID, c.Expect, c.Key}
		}
		return s.keys.save(list, &s.counts)
	})
}

// WatchKeys implements access.KeyStore.
func (s *Store) WatchKeys(ctx context.Context, after uint64) (feed.Changes[access.Key], error) {
	return watch(ctx, s, &s.keys, after)
}

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
	heads    table[fleet.Record, *fleet.Record]
	keys     table[access.Key, *access.Key]
	policies []policy.Stored // newest first
	applied  *feed.Feed[policy.Stored]
	epochs   uint64
}

// New makes an empty store.
func New() *Store {
	return &Store{
		heads:   newTable[fleet.Record](),
		keys:    newTable[access.Key](),
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
type table[T any, P feed.Item[T]] struct {
	stored   map[string]*T
	revision uint64
	changes  *feed.Feed[T]
}

func newTable[T any, P feed.Item[T]]() table[T, P] {
	return table[T, P]{stored: map[string]*T{}, changes: feed.New[T](0, feed.Bound)}
}

func (t *table[T, P]) read(ids []string) []T {
	if len(ids) == 0 {
		ids = slices.Collect(maps.Keys(t.stored))
	}
	list := make([]T, 0, len(ids))
	for _, id := range slices.Sorted(slices.Values(ids)) {
		if v := t.stored[id]; v != nil {
			list = append(list, *P(v).Clone())
		}
	}
	return list
}

// save makes all changes or none. The contract has a change name its value, and
// each value once.
func (t *table[T, P]) save(changes []feed.Change[T], counts *Counts) error {
	seen := map[string]bool{}
	for _, c := range changes {
		if seen[c.ID] {
			panic(fmt.Sprintf("memstore: %s is changed twice at once", c.ID))
		}
		seen[c.ID] = true
		var have uint64
		if v := t.stored[c.ID]; v != nil {
			_, at := P(v).Identity()
			have = *at
		}
		if have != c.Expect {
			return fmt.Errorf("%w: %s has %d, not %d", feed.ErrConflict, c.ID, have, c.Expect)
		}
	}
	for i := range changes {
		c := &changes[i]
		c.Revision = 0
		if c.Value == nil && c.Expect == 0 {
			continue // it was not there
		}
		t.revision++
		counts.Changes++
		c.Revision = t.revision
		delete(t.stored, c.ID)
		made := *c
		if c.Value != nil {
			id, at := P(c.Value).Identity()
			if id != c.ID {
				panic(fmt.Sprintf("memstore: %s is stored as %s", id, c.ID))
			}
			*at = t.revision
			made.Value = P(c.Value).Clone()
			t.stored[c.ID] = made.Value
		}
		t.changes.Add(made)
	}
	return nil
}

// load reads a table with the faults of a call.
func load[T any, P feed.Item[T]](ctx context.Context, s *Store, t *table[T, P], ids []string) (list []T, revision uint64, err error) {
	err = s.call(ctx, false, func() error {
		list, revision = t.read(ids), t.revision
		return nil
	})
	return list, revision, err
}

// watch implements the Watch of a kind.
func watch[T any, P feed.Item[T]](ctx context.Context, s *Store, t *table[T, P], after uint64) (feed.Changes[T], error) {
	if fault := s.next(false); fault.Err != nil {
		return feed.Changes[T]{}, fault.Err
	}
	return t.changes.Next(ctx, after, func(context.Context) (feed.Changes[T], error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return feed.Read[T, P](nil, t.read(nil), t.revision), nil
	})
}

// Heads implements fleet.Store.
func (s *Store) Heads(ctx context.Context, ids ...string) ([]fleet.Record, uint64, error) {
	return load(ctx, s, &s.heads, ids)
}

// Save implements fleet.Store.
func (s *Store) Save(ctx context.Context, changes []feed.Change[fleet.Record]) error {
	return s.call(ctx, true, func() error { return s.heads.save(changes, &s.counts) })
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
func (s *Store) Keys(ctx context.Context, ids ...string) ([]access.Key, uint64, error) {
	return load(ctx, s, &s.keys, ids)
}

// SaveKeys implements access.KeyStore.
func (s *Store) SaveKeys(ctx context.Context, changes []feed.Change[access.Key]) error {
	return s.call(ctx, true, func() error { return s.keys.save(changes, &s.counts) })
}

// WatchKeys implements access.KeyStore.
func (s *Store) WatchKeys(ctx context.Context, after uint64) (feed.Changes[access.Key], error) {
	return watch(ctx, s, &s.keys, after)
}

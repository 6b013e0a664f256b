package fleet

import (
	"context"
	"errors"

	"headway/internal/feed"
)

// Store keeps heads durably. Implementations are safe for concurrent use, and
// what they return is the caller's to keep, but for what Watch brings.
// [ErrConflict] and [ErrStoreUnavailable] are the errors that callers tell apart.
type Store interface {
	// Heads returns the stored heads with these ids, without any all heads,
	// ordered by id, and the revision of the store with the last change of any
	// head that they show. It sees every change that was answered before.
	Heads(ctx context.Context, ids ...string) (records []Record, revision uint64, err error)
	// Save applies all changes or none, and returns when they are durable.
	// It sets the Revision of each change and of each record. A change whose
	// Expect is not the stored revision fails the whole call with an error
	// that wraps ErrConflict. Every change, a deletion too, takes a higher
	// revision than all before, over restarts too.
	Save(ctx context.Context, changes []feed.Change[Record]) error
	// GrantEpochs durably sets n epochs aside and returns the first. No two
	// calls, over restarts too, return overlapping ranges, and later calls
	// return higher ones. n is at least 1.
	GrantEpochs(ctx context.Context, n uint64) (first uint64, err error)
	// Watch returns the changes after a revision, by any writer, in order and
	// each once, as soon as there are any; Changes.Revision is where the
	// next call goes on. What is there is returned even when ctx has ended,
	// else ctx's error is. A bounded number of changes is kept: who asks for
	// older ones gets all that is stored, with Changes.Whole set, so that a slow
	// reader neither loses a change nor makes a writer wait.
	Watch(ctx context.Context, after uint64) (feed.Changes[Record], error)
}

// Identity implements feed.Item.
func (r *Record) Identity() (id string, revision *uint64) { return r.Spec.ID, &r.Revision }

// Errors of a Store.
var (
	// ErrConflict says that a record changed under the caller.
	ErrConflict = feed.ErrConflict
	// ErrStoreUnavailable says that nothing was written and that it may work later.
	ErrStoreUnavailable = errors.New("the store is unavailable")
)

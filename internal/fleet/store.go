package fleet

import (
	"context"
	"errors"
	"time"
)

// Store keeps heads durably. Implementations are safe for concurrent use, and
// what they return is the caller's to keep. [ErrConflict] and
// [ErrStoreUnavailable] are the errors that callers tell apart.
type Store interface {
	// Heads returns every stored head, ordered by id.
	Heads(ctx context.Context) ([]Record, error)
	// Save applies all changes or none, and returns when they are durable.
	// It sets the Revision of each record that it wrote. A change whose
	// Expect is not the stored revision fails the whole call with an error
	// that wraps ErrConflict.
	Save(ctx context.Context, changes []Change) error
	// GrantEpochs durably sets n epochs aside and returns the first. No two
	// calls, over restarts too, return overlapping ranges, and later calls
	// return higher ones. n is at least 1.
	GrantEpochs(ctx context.Context, n uint64) (first uint64, err error)
}

// Change is one step of Store.Save: a record to write, or with a nil Record an
// id to delete.
type Change struct {
	ID     string
	Expect uint64 // the revision that must be stored now; 0: none
	Record *Record
}

// Errors of a Store.
var (
	// ErrConflict says that a record changed under the caller.
	ErrConflict = errors.New("the stored record has another revision")
	// ErrStoreUnavailable says that nothing was written and that it may work later.
	ErrStoreUnavailable = errors.New("the store is unavailable")
)

// Errors of the Registry that callers tell apart. Errors about what a caller
// sent are of type *strict.InvalidError.
var (
	ErrHeadNotFound = errors.New("no head with this id is registered")
	ErrStaleEpoch   = errors.New("the epoch is older than the head's registration")
	ErrFleetFull    = errors.New("the fleet has as many heads as the configuration allows")
	ErrOverloaded   = errors.New("too many changes wait to be written")
)

// probeInterval is how often a store that failed is tried again. A service that
// is not ready gets no changes to write, and would never learn that the store
// is back.
const probeInterval = time.Second

// probe sets one epoch aside, the smallest durable write there is.
func (r *Registry) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	defer r.metrics.observe("grant_epochs")()
	if _, err := r.store.GrantEpochs(ctx, 1); err != nil {
		r.metrics.storeErrors["grant_epochs"].Inc()
		return
	}
	r.storeDown.Store(false)
	r.log.Info("the store works again")
}

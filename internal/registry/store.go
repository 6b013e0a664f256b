package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"headway/internal/feed"
	"headway/internal/fleet"
)

func (r *Registry) save(ctx context.Context, changes []feed.Change[fleet.Record]) error {
	if len(changes) == 0 {
		return nil
	}
	err := r.o.Store.Save(ctx, changes)
	failed := err != nil && !errors.Is(err, fleet.ErrConflict)
	r.storeDown.Store(failed)
	if failed {
		r.o.Log.Error("heads not written", "changes", len(changes), "error", err)
	}
	return err
}

// epochBlock is how many epochs are set aside with one durable write.
const epochBlock = 1 << 16

// grantEpochs takes a new block of epochs. Only Load and the committer call it.
func (r *Registry) grantEpochs(ctx context.Context) error {
	first, err := r.o.Store.GrantEpochs(ctx, epochBlock)
	if err != nil {
		return fmt.Errorf("set epochs aside: %w", err)
	}
	r.mu.Lock()
	r.nextEpoch, r.epochsLeft = first, epochBlock
	r.mu.Unlock()
	return nil
}

// probeInterval is how often a store that failed is tried again. A service that
// is not ready gets no changes to write, and would never learn that the store
// is back.
const probeInterval = time.Second

// probe sets one epoch aside, the smallest durable write there is.
func (r *Registry) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	if _, err := r.o.Store.GrantEpochs(ctx, 1); err == nil {
		r.storeDown.Store(false)
		r.o.Log.Info("the store works again")
	}
}

// maxRemoved bounds the heads that were removed here and whose removal no watch
// has brought yet. It is more than a watch is behind before it gets the whole.
const maxRemoved = 2 * feed.Bound

// watched takes over what a watch brings.
func (r *Registry) watched(c feed.Changes[fleet.Record]) {
	r.committing.lock()
	defer r.committing.unlock()
	r.adopt(c)
	r.revision.Store(max(c.Revision, r.revision.Load()))
}

func (r *Registry) watchFailed(err error) {
	r.o.Log.Warn("the heads that others write are not seen; the watch is tried again", "error", err)
}

// readAgain takes over what is stored of the heads that the changes concern.
// r.committing must be held.
func (r *Registry) readAgain(ctx context.Context, changes []feed.Change[fleet.Record]) error {
	ids := feed.IDs(changes)
	records, revision, err := r.o.Store.Heads(ctx, ids...)
	if err != nil {
		return fmt.Errorf("read again what has another revision: %w", err)
	}
	r.adopt(feed.Read(ids, records, revision))
	return nil
}

// adopt applies what is stored as if it had been written here, but that the
// writer alone counts and records it. What is known already, such as what was
// written here, is passed over. r.committing must be held.
func (r *Registry) adopt(c feed.Changes[fleet.Record]) {
	r.mu.Lock()
	var batch []*commit
	stored := map[string]bool{}
	for _, change := range c.List {
		stored[change.ID] = true
		if !r.knows(change) {
			batch = append(batch, r.foreign(change.ID, change.Value))
		}
	}
	if c.Whole {
		for id, e := range r.heads {
			if !stored[id] && e.record.Revision <= c.Revision {
				batch = append(batch, r.foreign(id, nil))
			}
		}
	}
	r.mu.Unlock()
	r.applyAll(batch)
}

// knows reports whether a change is no news. r.mu must be held.
func (r *Registry) knows(c feed.Change[fleet.Record]) bool {
	last := r.removed[c.ID]
	if c.Revision > last {
		delete(r.removed, c.ID)
	}
	if e := r.heads[c.ID]; e != nil {
		return c.Revision <= e.record.Revision
	}
	return c.Revision <= last || c.Value == nil
}

// noteRemoved notes that a head was removed here: what a watch brings late of it must
// not bring it back. r.mu must be held.
func (r *Registry) noteRemoved(e *entry) {
	if len(r.removed) >= maxRemoved {
		clear(r.removed)
	}
	id := e.record.Spec.ID
	r.removed[id] = max(r.removed[id], e.record.Revision)
}

// foreign is the change that was written by another process: nil removes the
// head, on purpose unless it is silent here too. A head that registered there
// has a lease here, and is taken for healthy once it was so there. r.mu must be
// held.
func (r *Registry) foreign(id string, record *fleet.Record) *commit {
	e := r.heads[id]
	c := &commit{id: id, foreign: true, next: record, onPurpose: e == nil || e.health != fleet.HealthStale}
	c.apply = func(e *entry, now time.Time) {
		if e.head == nil || e.record.Epoch > e.epoch {
			r.newEpoch(e, e.record.Epoch, now)
			e.leaving = e.record.Leaving
		}
		if e.record.Confirmed && e.health == fleet.HealthPending {
			e.assume()
			r.schedule(e)
		}
	}
	return c
}

// assume takes a head for healthy which the store says was.
func (e *entry) assume() {
	e.status, e.health, e.loading = fleet.StatusActive, fleet.HealthAssumed, time.Time{}
}

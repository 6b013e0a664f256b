package registry

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"headway/internal/event"
	"headway/internal/feed"
	"headway/internal/fleet"
)

// commitQueue bounds the changes that wait to be written, commitBatch those
// that are written together.
const (
	commitQueue = 4096
	commitBatch = 1024
)

// commit is one durable change on its way: it turns the record that is stored
// into the one to store. edit runs under r.mu in the order of the queue; cur is
// nil when the head is not registered, next is nil to remove it.
type commit struct {
	id        string
	registers bool   // begins a new epoch
	reaps     bool   // removes a head for its silence, unless it registered in the same batch
	foreign   bool   // it was written by another process
	onPurpose bool   // a removal that was asked for, and not one after a long silence
	endpoint  string // of a registration
	takeOver  bool   // it may take the head from another endpoint
	edit      func(cur *fleet.Record, e *entry) (next *fleet.Record, err error)
	apply     func(e *entry, now time.Time) // under r.mu, after the write; nil when only the record changes
	seen      func(e *entry)                // under r.mu, right after apply, or right before the head is removed
	answer    chan error                    // buffered; nil when no caller waits
	fate      atomic.Int32                  // waiting, taken or withdrawn

	next    *fleet.Record
	epoch   uint64
	created bool
	writes  bool // changes what is stored
	rests   bool // its end, good or bad, rests on what the batch writes
	err     error
}

// The fates of a commit.
const (
	waiting = iota
	taken
	withdrawn // by its caller; it is not carried out
)

// do queues a commit and waits for its end; without Run it is committed here.
// After ctx's error nothing of it has happened or will, as its caller and the trail
// expect of a failure: a commit that is being written is waited for.
func (r *Registry) do(ctx context.Context, c *commit) error {
	c.answer = make(chan error, 1)
	if !r.enqueue(c) {
		return fleet.ErrOverloaded
	}
	if !r.running.Load() {
		r.commitWaiting(context.WithoutCancel(ctx))
	}
	select {
	case err := <-c.answer:
		return err
	case <-ctx.Done():
		if c.fate.CompareAndSwap(waiting, withdrawn) {
			return fmt.Errorf("waiting for the store: %w", ctx.Err())
		}
		return <-c.answer
	}
}

func (r *Registry) enqueue(c *commit) bool {
	select {
	case r.commits <- c:
		return true
	default:
		r.metrics.refused.Inc()
		return false
	}
}

// mark lets the store know, without a wait, whether the head is healthy, so that a
// restart may assume it, and whether it leaves on purpose, so that none is missed
// after one.
func (r *Registry) mark(e *entry) {
	if !e.marked {
		e.marked = true
		r.marks = append(r.marks, e)
	}
	r.writeMarks()
}

// ownQueue is how much of the queue may be filled with marks and with removals
// of silent heads, so that a mass outage refuses no registration. What is left
// is written with later sweeps.
const ownQueue = commitQueue / 4

func (r *Registry) writeMarks() {
	for len(r.marks) > 0 && len(r.commits) < ownQueue {
		r.enqueue(&commit{
			id: r.marks[0].record.Spec.ID,
			edit: func(cur *fleet.Record, e *entry) (*fleet.Record, error) {
				if cur == nil || e == nil {
					return nil, fleet.ErrHeadNotFound
				}
				e.marked = false
				next := *cur
				next.Confirmed, next.Leaving = e.healthy(), e.leaving
				return &next, nil
			},
		})
		r.marks = r.marks[1:]
	}
	if len(r.marks) == 0 {
		r.marks = nil
	}
}

// healthy reports whether the head takes requests as far as it and its lease
// say.
func (e *entry) healthy() bool { return e.health.Routable() && e.status.Serves() }

// drain takes c and what waits behind it, up to a batch.
func (r *Registry) drain(c *commit) []*commit {
	var batch []*commit
	for {
		if c.fate.CompareAndSwap(waiting, taken) {
			batch = append(batch, c)
		}
		if len(batch) >= commitBatch {
			return batch
		}
		select {
		case c = <-r.commits:
		default:
			return batch
		}
	}
}

// commitTime bounds how long the store may take over one batch.
const commitTime = 30 * time.Second

// conflictTries is how often a batch is decided on, each time on what is stored
// by then, before its callers get the conflict.
const conflictTries = 10

// commit writes a batch with one call of the store, applies it to the
// registry, publishes one snapshot and answers. r.committing must be held.
func (r *Registry) commit(ctx context.Context, batch []*commit) {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	changes := r.prepare(ctx, batch)
	err := r.save(ctx, changes)
	for try := 1; errors.Is(err, fleet.ErrConflict) && try < conflictTries; try++ {
		if err = r.readAgain(ctx, changes); err == nil {
			changes = r.prepare(ctx, batch)
			err = r.save(ctx, changes)
		}
	}
	if err != nil && len(batch) > 1 && errors.Is(err, fleet.ErrConflict) {
		// One change that cannot be written must not fail its neighbours.
		for _, c := range batch {
			c.err = nil
			r.commit(ctx, []*commit{c})
		}
		return
	}
	for _, c := range batch {
		if err != nil && c.rests {
			c.err = err
		}
	}
	r.applyAll(batch)
	for _, c := range batch {
		if c.answer != nil {
			c.answer <- c.err
		}
	}
}

// prepare runs the edits in order, each on what those before it leave, and
// returns what is to be written.
func (r *Registry) prepare(ctx context.Context, batch []*commit) []feed.Change[fleet.Record] {
	if r.epochsLeft < uint64(len(batch)) {
		if err := r.grantEpochs(ctx); err != nil {
			for _, c := range batch {
				c.err = err
			}
			return nil
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	pending, registered := map[string]*fleet.Record{}, map[string]bool{}
	limit := limits{r: r, heads: len(r.heads), models: map[string]bool{}}
	var order []string
	for _, c := range batch {
		e := r.heads[c.id]
		cur, known := pending[c.id]
		if !known && e != nil {
			cur = &e.record
		}
		c.writes, c.rests, c.created = false, known, false
		if c.err = limit.edit(c, cur, e, registered[c.id]); c.err != nil {
			continue
		}
		registered[c.id] = c.registers || registered[c.id] && c.next != nil
		if c.registers {
			c.epoch = r.nextEpoch
			r.nextEpoch++
			r.epochsLeft--
		}
		if c.next != nil && cur != nil && reflect.DeepEqual(*c.next, *cur) {
			c.next = cur
			continue
		}
		switch {
		case c.registers:
			c.next.Epoch = c.epoch
		case c.next != nil && e != nil:
			c.next.Epoch = max(c.next.Epoch, e.epoch)
		}
		c.writes, c.rests = true, true
		if !known {
			order = append(order, c.id)
		}
		pending[c.id] = c.next
	}
	return r.changes(order, pending)
}

// limits counts what a batch adds to the fleet.
type limits struct {
	r      *Registry
	heads  int
	models map[string]bool // that no registered head serves yet
}

// edit runs the edit of c. registered says that an earlier change of the batch
// registered the head.
func (l *limits) edit(c *commit, cur *fleet.Record, e *entry, registered bool) error {
	if c.reaps && registered { // it came back
		return fleet.ErrHeadNotFound
	}
	err := l.r.contested(c, cur, e, registered)
	if err != nil {
		return err
	}
	if c.next, err = c.edit(cur, e); err != nil || c.next == nil {
		return err
	}
	c.created = cur == nil
	err = l.admit(c)
	c.rests = c.rests || err != nil
	return err
}

// admit refuses a change that goes beyond the limits.
func (l *limits) admit(c *commit) error {
	pools := l.r.snapshot.Load().Pools
	var added []string
	for _, m := range c.next.Spec.ModelTypes {
		if pools[m] == nil && !l.models[m] {
			added = append(added, m)
		}
	}
	switch {
	case c.created && l.heads >= l.r.o.MaxHeads:
		return fmt.Errorf("%w: %d", fleet.ErrFleetFull, l.r.o.MaxHeads)
	case len(added) > 0 && len(pools)+len(l.models)+len(added) > l.r.o.MaxModelTypes:
		return fmt.Errorf("%w: %d different model types", fleet.ErrFleetFull, l.r.o.MaxModelTypes)
	}
	if c.created {
		l.heads++
	}
	for _, m := range added {
		l.models[m] = true
	}
	return nil
}

// changes lists what the pending records change in the store.
func (r *Registry) changes(order []string, pending map[string]*fleet.Record) []feed.Change[fleet.Record] {
	changes := make([]feed.Change[fleet.Record], 0, len(order))
	for _, id := range order {
		c := feed.Change[fleet.Record]{ID: id, Value: pending[id]}
		if e := r.heads[id]; e != nil {
			c.Expect = e.record.Revision
		}
		if c.Value == nil && c.Expect == 0 {
			continue // came and went within the batch
		}
		changes = append(changes, c)
	}
	return changes
}

// applyAll applies the commits that succeeded, each on what those before it
// left, and publishes once. What a caller is answered is read right after its
// own change: a later one of the batch may change the head again, or remove it.
func (r *Registry) applyAll(batch []*commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Now()
	var changes []fleet.Step
	for _, c := range batch {
		if c.err != nil {
			continue
		}
		e := r.heads[c.id]
		switch {
		case c.next == nil && e == nil: // came and went within the batch
		case c.next == nil:
			changes = append(changes, fleet.Step{Before: e.head})
			if c.seen != nil {
				c.seen(e)
			}
			if !c.foreign {
				r.metrics.removed.Inc()
				r.noteRemoved(e)
			}
			r.forget(e, c.onPurpose, now)
		case c.apply == nil:
			e.record = *c.next
		default:
			if e == nil {
				e = &entry{slot: -1, number: r.numbers.take(), auditLimit: r.auditLimits[c.id]}
				delete(r.auditLimits, c.id)
				r.heads[c.id] = e
			}
			changes = append(changes, r.applyTo(e, c, now))
		}
	}
	if len(changes) > 0 { // else what is staged waits for its flush
		r.publish(changes)
	}
}

// applyTo applies a commit to the head that it concerns.
func (r *Registry) applyTo(e *entry, c *commit, now time.Time) fleet.Step {
	before, was := e.head, e.record.Spec
	e.record = *c.next
	r.interned.intern(&e.record.Spec)
	r.moved(e, &was, now)
	takenOver := c.takeOver && before != nil && before.Endpoint != c.endpoint && e.holds(now)
	c.apply(e, now)
	made := r.replace(e)
	if takenOver {
		r.metrics.contested[contestTakenOver].Inc()
		r.emitContest(e, contestTakenOver, now)
	}
	kind := event.HeadChanged
	if before == nil || before.Epoch != e.epoch {
		kind = event.HeadRegistered
	}
	r.emitState(kind, e, now)
	if c.seen != nil {
		c.seen(e)
	}
	return made
}

// newEpoch begins a new registration of e and a new lease. A head that registers
// again at the same endpoint still works on its requests: their count goes on. A
// head that reported that it is offline, or is at another endpoint, has none. A
// machine at another endpoint does not inherit ejections.
func (r *Registry) newEpoch(e *entry, epoch uint64, now time.Time) {
	e.epoch = epoch
	moved := e.head == nil || e.head.Endpoint != e.record.Spec.Endpoint
	if moved || e.status == fleet.StatusOffline {
		e.live = new(fleet.Live)
	}
	e.live.ForgetReport()
	e.setStatus(fleet.StatusUnknown)
	e.health, e.sequence, e.stale = fleet.HealthPending, 0, time.Time{}
	e.outcomes = &outcomes{registry: r}
	r.forgiveFailing(e)
	e.unwell = ""
	if e.ejection != nil && (moved || !e.history.Forgiven) { // once: a head that fails again stays out for its time
		e.history.Forgiven = true
		r.reinstate(e, reinstatedByRegistration, now)
	}
	if moved {
		e.history = fleet.Ejections{}
	}
	r.grant(e, now)
	if e.slot < 0 {
		e.slot = r.metrics.inFlight.take(e.record.Spec.ID)
	}
}

// forget drops a head.
func (r *Registry) forget(e *entry, onPurpose bool, now time.Time) {
	r.departed(e, onPurpose, now)
	delete(r.heads, e.record.Spec.ID)
	delete(r.ejected, e)
	delete(r.failing, e)
	r.keepAuditLimit(e, now)
	r.metrics.inFlight.give(e.slot)
	r.numbers.give(e.number)
	r.emitState(event.HeadRemoved, e, now)
	// The wheel looks at it once more, up to minutes later.
	*e = entry{lookAt: e.lookAt, slot: -1}
}

package routing

import (
	"sync/atomic"
	"time"
)

// reservations keeps the recent decisions in a ring by their sequence. A
// decision that is overwritten while its reservation is open gives its place
// back first, so the ring bounds both.
type reservations struct {
	slots    []atomic.Pointer[Decision]
	sequence atomic.Uint64 // of the newest decision
	open     atomic.Int64
	tail     uint64 // all up to here have ended; only expire uses it
}

// newReservations rounds size up to a power of two.
func newReservations(size int) *reservations {
	n := 1
	for n < size {
		n *= 2
	}
	return &reservations{slots: make([]atomic.Pointer[Decision], n)}
}

func (r *reservations) slot(sequence uint64) *atomic.Pointer[Decision] {
	return &r.slots[sequence&uint64(len(r.slots)-1)]
}

// add numbers d and keeps it. It returns the decision that d overwrote, or
// nil.
func (r *reservations) add(d *Decision) (old *Decision) {
	d.sequence = r.sequence.Add(1)
	r.open.Add(1)
	return r.slot(d.sequence).Swap(d)
}

// find returns the decision with the id, or nil.
func (r *reservations) find(id string) *Decision {
	sequence, nonce, ok := parseID(id)
	if !ok {
		return nil
	}
	if d := r.slot(sequence).Load(); d != nil && d.sequence == sequence && d.nonce == nonce {
		return d
	}
	return nil
}

// finish ends d and gives its place back, once: the first to store an end
// releases. It reports whether o was the first. A true outcome that comes after
// the time ran out still replaces the end, for the record; it was counted then.
func (r *reservations) finish(d *Decision, o *Outcome) bool {
	reported := o.Result <= ResultCancelled
	if d.end.CompareAndSwap(nil, o) {
		switch live := d.Head.Live; {
		case reported:
			live.Release()
		case o.Result == ResultExpired:
			live.Expire()
		default:
			live.Evict()
		}
		r.open.Add(-1)
		return true
	}
	if old := d.end.Load(); reported && old.Result > ResultCancelled {
		d.end.CompareAndSwap(old, o)
	}
	return false
}

// expire ends every reservation whose time ran out at now with o and calls
// ended for each. Reservations all last equally long, so they run out in the order of
// their sequence and the first open one ends the walk. One goroutine calls it.
func (r *reservations) expire(now time.Time, o *Outcome, ended func(*Decision, *Outcome)) {
	newest := r.sequence.Load()
	if newest-r.tail > uint64(len(r.slots)) {
		r.tail = newest - uint64(len(r.slots))
	}
	for r.tail < newest {
		d := r.slot(r.tail + 1).Load()
		switch {
		case d == nil || d.sequence < r.tail+1:
			return // numbered, and about to be stored
		case d.sequence > r.tail+1 || d.end.Load() != nil:
		case now.Before(d.ExpiresAt):
			return
		default:
			if r.finish(d, o) {
				ended(d, o)
			}
		}
		r.tail++
	}
}

// RecentQuery selects among the recent decisions.
type RecentQuery struct {
	Limit     int    // at most this many, at least 1
	ModelType string // "": any
	Head      string // id, "": any
	Before    uint64 // only decisions of a lower sequence; 0: from the newest on
}

// recent returns decisions that q selects, newest first.
func (r *reservations) recent(q RecentQuery) []*Decision {
	newest := r.sequence.Load()
	from := newest
	if q.Before > 0 {
		from = min(from, q.Before-1)
	}
	oldest := uint64(1)
	if newest > uint64(len(r.slots)) {
		oldest = newest - uint64(len(r.slots)) + 1
	}
	var found []*Decision
	for s := from; s >= oldest && len(found) < q.Limit; s-- {
		d := r.slot(s).Load()
		if d == nil || d.sequence != s {
			continue
		}
		if (q.ModelType == "" || d.ModelType == q.ModelType) && (q.Head == "" || d.Head.ID == q.Head) {
			found = append(found, d)
		}
	}
	return found
}

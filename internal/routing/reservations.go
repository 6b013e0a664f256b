package routing

import "sync/atomic"

// reservations keeps the recent decisions in a ring by their sequence. A
// decision that is overwritten while its reservation is open gives its place
// back first, so the ring bounds both.
type reservations struct {
	slots    []atomic.Pointer[Decision]
	sequence atomic.Uint64 // of the newest decision
	open     atomic.Int64
	wheel    wheel // of the one goroutine that expires
}

// newReservations rounds size up to a power of two.
func newReservations(size int) *reservations {
	n := 1
	for n < size {
		n *= 2
	}
	return &reservations{slots: make([]atomic.Pointer[Decision], n), wheel: newWheel(n)}
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

// find returns the decision of that sequence, or nil.
func (r *reservations) find(sequence, nonce uint64) *Decision {
	if d := r.slot(sequence).Load(); d != nil && d.sequence == sequence && d.nonce == nonce {
		return d
	}
	return nil
}

// finish ends d and gives its place back, once: the first to store an end
// releases. It reports whether o counts. An outcome that comes after the
// reservation had ended otherwise is late: it counts, too, and takes the place of
// that end in the record.
func (r *reservations) finish(d *Decision, o *Outcome) (counts, late bool) {
	reported := o.Result <= ResultCancelled
	live := d.Head.Live
	if d.end.CompareAndSwap(nil, o) {
		switch {
		case reported:
			live.Release()
		case o.Result == ResultExpired:
			live.Expire()
		default:
			live.Evict()
		}
		r.open.Add(-1)
		return true, false
	}
	if old := d.end.Load(); reported && old.Result > ResultCancelled && d.end.CompareAndSwap(old, o) {
		live.ReportedLate()
		return true, true
	}
	return false, false
}

// RecentQuery selects among the recent decisions.
type RecentQuery struct {
	Limit     int    // at most this many, at least 1
	ModelType string // "": any
	Head      string // id, "": any
	Before    Place  // only decisions that stand before it; zero: from the newest on
}

// recent returns decisions that q selects, newest first.
func (r *reservations) recent(q RecentQuery) []*Decision {
	newest := r.sequence.Load()
	from := newest
	switch {
	case q.Before.failed > 0:
		from = min(from, q.Before.made)
	case q.Before.made > 0:
		from = min(from, q.Before.made-1)
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

// Newest is the sequence of the newest decision, 0 before the first.
func (r *Router) Newest() uint64 { return r.recent.sequence.Load() }

// Since appends to list the decisions after the one with the given sequence,
// oldest first and at most limit of them. It returns the sequence up to which
// it looked, and how many decisions before that it could not give: those that
// the ring no longer has.
func (r *Router) Since(sequence uint64, limit int, list []*Decision) (_ []*Decision, seen, lost uint64) {
	newest := r.recent.sequence.Load()
	if size := uint64(len(r.recent.slots)); newest > size && sequence < newest-size {
		lost = newest - size - sequence
		sequence = newest - size
	}
	for n := 0; sequence < newest && n < limit; n++ {
		d := r.recent.slot(sequence + 1).Load()
		if d == nil || d.sequence < sequence+1 {
			break // numbered, and about to be stored
		}
		sequence++
		if d.sequence > sequence {
			lost++ // overwritten while we looked
			continue
		}
		list = append(list, d)
	}
	return list, sequence, lost
}

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

package routing

import (
	"sync"
	"sync/atomic"
)

// reservations keeps the recent decisions that found a head. One that is
// overwritten while its reservation is open gives its place back first, so the
// ring bounds both.
type reservations struct {
	ring
	newest atomic.Uint64 // number of the newest decision
	open   atomic.Int64
	wheel  wheel // of the one goroutine that expires

	mu    sync.Mutex
	moved map[int]bool // slots that Router.Again filled since the wheel was turned
}

func newReservations(size int) *reservations {
	r := &reservations{ring: newRing(size), moved: map[int]bool{}}
	r.wheel = newWheel(len(r.ring))
	return r
}

// add keeps d, in the slot of the attempt before it if there was one, else under
// a new number. It returns the decision that has no slot any more, or nil.
func (r *reservations) add(d *Decision) (old *Decision) {
	r.open.Add(1)
	before := d.Before()
	if before == nil || d.Hedges() {
		d.sequence = r.newest.Add(1)
		return r.at(d.sequence).Swap(d)
	}
	d.sequence = before.sequence
	if !r.at(d.sequence).CompareAndSwap(before, d) {
		return d
	}
	r.mu.Lock()
	r.moved[r.slot(d.sequence)] = true
	r.mu.Unlock()
	return nil
}

// finish ends d and gives its place back, once: the first to store an end
// releases. It reports whether o counts. An outcome after an end by time or
// eviction is late: it counts too, and replaces that end.
func (r *reservations) finish(d *Decision, o *Outcome) (counts, late bool) {
	reported := o.Result <= ResultCancelled
	live := d.Head.Live
	if d.end.CompareAndSwap(nil, o) {
		w := d.work
		if !d.firstToken.CompareAndSwap(0, ended) {
			w.Pending = 0 // given back with the first token, or in silence
			d.firstToken.CompareAndSwap(silent, ended)
		}
		switch {
		case reported:
			live.Release(w)
		case o.Result == ResultExpired:
			live.Expire(w)
		default:
			live.Evict(w)
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

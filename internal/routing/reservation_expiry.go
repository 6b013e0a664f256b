package routing

import "time"

// expiryTick is how late the end of a reservation's time may be noticed.
const expiryTick = 250 * time.Millisecond

// spokes is how many ticks a wheel has: 256 s, longer than most reservations. One
// that lasts longer is looked at once a turn.
const spokes = 1 << 10

// wheel finds the reservations whose time has run out, in constant time for each.
// It links the slots of the ring and not the decisions, so that it keeps none in
// memory that the ring has dropped.
type wheel struct {
	base  time.Time
	at    int64  // the tick that it was turned to last
	seen  uint64 // decisions up to this sequence are linked, or had ended
	first [spokes]int32
	// Of each slot: its neighbours on its spoke, and that spoke. All numbers are
	// one more than the index, and 0 is none.
	next, before []int32
	spoke        []int32
}

func newWheel(slots int) wheel {
	return wheel{next: make([]int32, slots), before: make([]int32, slots), spoke: make([]int32, slots)}
}

// tick is the first tick that is not before t.
func (w *wheel) tick(t time.Time) int64 {
	return int64((t.Sub(w.base) + expiryTick - 1) / expiryTick)
}

func (w *wheel) link(slot int, tick int64) {
	spoke := int(tick & (spokes - 1))
	old := w.first[spoke]
	w.next[slot], w.before[slot], w.spoke[slot] = old, 0, int32(spoke+1)
	if old > 0 {
		w.before[old-1] = int32(slot + 1)
	}
	w.first[spoke] = int32(slot + 1)
}

func (w *wheel) unlink(slot int) {
	spoke, next, before := w.spoke[slot], w.next[slot], w.before[slot]
	if spoke == 0 {
		return
	}
	if next > 0 {
		w.before[next-1] = before
	}
	if before > 0 {
		w.next[before-1] = next
	} else {
		w.first[spoke-1] = next
	}
	w.spoke[slot] = 0
}

// expire calls end for every open reservation whose time has run out at now; end
// may give it more time. What gave no sign of life in its time is not ahead any more. One goroutine calls it.
func (r *reservations) expire(now time.Time, end func(*Decision)) {
	w := &r.wheel
	if w.base.IsZero() {
		w.base = now
	}
	r.linkNew(now)
	to := int64(now.Sub(w.base) / expiryTick)
	w.at = max(w.at, to-spokes)
	for w.at < to {
		w.at++
		for i := w.first[w.at&(spokes-1)]; i > 0; {
			slot := int(i - 1)
			i = w.next[slot]
			w.unlink(slot)
			d := r.ring[slot].Load()
			if d.sequence > w.seen || d.end.Load() != nil || d.held() {
				continue // linkNew will see it, or there is nothing to do
			}
			if d.firstToken.Load() == 0 && d.silentNow(now) {
				d.silence()
			}
			if !now.Before(d.ExpiresAt()) {
				end(d)
			}
			if d.end.Load() == nil {
				w.link(slot, max(w.tick(d.due(now)), to+1))
			}
		}
	}
}

// linkNew links the decisions that were made since it was called last.
func (r *reservations) linkNew(now time.Time) {
	w := &r.wheel
	r.mu.Lock()
	for slot := range r.moved {
		w.unlink(slot)
		if d := r.ring[slot].Load(); !d.held() {
			w.link(slot, max(w.tick(d.due(now)), w.at+1))
		}
	}
	clear(r.moved)
	r.mu.Unlock()
	newest := r.newest.Load()
	w.seen = max(w.seen, r.oldest(newest)-1)
	for w.seen < newest {
		d := r.at(w.seen + 1).Load()
		if d == nil || d.sequence < w.seen+1 {
			return // numbered, and about to be stored
		}
		w.seen++
		if d.sequence > w.seen {
			continue // overwritten, and seen in its turn
		}
		slot := r.slot(d.sequence)
		w.unlink(slot) // of the decision that stood there before
		if d.end.Load() == nil && !d.held() {
			w.link(slot, max(w.tick(d.due(now)), w.at+1))
		}
	}
}

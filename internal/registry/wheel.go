package registry

import "time"

// wheelSlots and wheelTick make a wheel of 512 s; what is due later comes by
// again and is put back.
const (
	wheelSlots = 2048
	wheelTick  = 250 * time.Millisecond
)

// wheel finds the leases that may be due without looking at all of them. A
// report does not move its head: the wheel looks again when the old time comes
// and puts the head where it belongs then.
type wheel struct {
	slots [wheelSlots][]*entry
	base  time.Time
	at    int64 // ticks after base that have been looked at
}

// add puts e where it will be looked at when due. Where it stood for a later
// time before, it is passed over then.
func (w *wheel) add(e *entry, due time.Time) {
	tick := max(int64(due.Sub(w.base)/wheelTick)+1, w.at+1)
	tick = min(tick, w.at+wheelSlots-1)
	if e.lookAt != 0 && e.lookAt <= tick {
		return
	}
	e.lookAt = tick
	w.slots[tick%wheelSlots] = append(w.slots[tick%wheelSlots], e)
}

// advance calls look for every entry whose time came by now.
func (w *wheel) advance(now time.Time, look func(*entry)) {
	for target := int64(now.Sub(w.base) / wheelTick); w.at < target; {
		w.at++
		slot := &w.slots[w.at%wheelSlots]
		entries := *slot
		*slot = nil
		for _, e := range entries {
			if e.lookAt == w.at {
				e.lookAt = 0
				look(e)
			}
		}
	}
}

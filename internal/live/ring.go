package live

import (
	"sort"
	"strconv"
	"strings"
	"sync"

	"headway/internal/apiv1"
)

// place is how far a subscriber has read.
type place struct{ event, decision uint64 }

// rings keep what can be resumed after. One lock is over both, so that they have
// one order: each frame says how far the other ring was before it.
type rings struct {
	mu        sync.RWMutex
	events    ring
	decisions ring
}

// newest is the place of who has read all.
func (r *rings) newest() place {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return place{r.events.last, r.decisions.last}
}

// oldest is the first place after which nothing has left the rings.
func (r *rings) oldest() place {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return place{r.events.oldest(), r.decisions.oldest()}
}

// eventsAfter calls see for each event after the place and returns the newest
// one's place, and how many after the given place are gone.
func (r *rings) eventsAfter(place uint64, see func(*frame)) (newest, lost uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.events.after(place, see)
}

// putEvent adds an event.
func (r *rings) putEvent(f *frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.beside = r.decisions.last
	r.events.put(f)
}

// putDecision adds what happened to a decision, or with a weight of more than 1
// that so many were lost. encode is called once the place is known.
func (r *rings) putDecision(f *frame, weight uint64, encode func(place)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.seq, f.weight, f.beside = r.decisions.last+weight, weight, r.events.last
	encode(place{f.beside, f.seq})
	r.decisions.put(f)
}

// skipDecisions passes over decisions that nobody was there to be told of.
func (r *rings) skipDecisions(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.decisions.last += n
	if n > 0 {
		r.decisions.kept = 0
	}
}

// ring keeps the last frames. The lock of rings guards it.
type ring struct {
	frames []*frame
	puts   uint64 // frames that were ever put
	kept   uint64 // those that are there still
	first  uint64 // place before the first that was ever put
	last   uint64 // place of the newest
}

func newRing(size int) ring { return ring{frames: make([]*frame, size)} }

func (r *ring) put(f *frame) {
	if r.puts == 0 && r.last == 0 {
		r.first = f.seq - f.weight
	}
	r.frames[r.puts%uint64(len(r.frames))] = f
	r.puts++
	r.kept = min(r.kept+1, uint64(len(r.frames)))
	r.last = f.seq
}

// at returns one of the frames that are kept, from 0, the oldest.
func (r *ring) at(n uint64) *frame { return r.frames[(r.puts-r.kept+n)%uint64(len(r.frames))] }

// oldest is the place before the oldest frame.
func (r *ring) oldest() uint64 {
	if r.kept == 0 {
		return r.last
	}
	f := r.at(0)
	return f.seq - f.weight
}

// index is that of the first frame after a place.
func (r *ring) index(place uint64) uint64 {
	return uint64(sort.Search(int(r.kept), func(i int) bool { return r.at(uint64(i)).seq > place }))
}

// after calls see for each frame after the place and returns the newest one's
// place, and how many frames after the given place are gone.
func (r *ring) after(place uint64, see func(*frame)) (newest, lost uint64) {
	place = max(place, r.first)
	if place >= r.last {
		return place, 0
	}
	for i := r.index(place); i < r.kept; i++ {
		f := r.at(i)
		if before := f.seq - f.weight; before > place {
			lost += before - place
		}
		see(f)
		place = f.seq
	}
	return r.last, lost + r.last - place
}

// id is what a subscriber resumes after.
func (h *Hub) id(at place) string {
	return apiv1.EventID(h.o.Instance, at.event) + "-" + strconv.FormatUint(at.decision, 10)
}

// placeOf reads an id: one of ours, or an event's own, which has no place of a
// decision. whole says whether that is known, ours whether the id is of this run.
func (h *Hub) placeOf(id string) (at place, whole, ours bool) {
	instance, rest, _ := strings.Cut(id, "-")
	first, second, both := strings.Cut(rest, "-")
	var err error
	if at.event, err = strconv.ParseUint(first, 10, 64); err != nil || instance != h.o.Instance {
		return at, false, false
	}
	if both {
		at.decision, err = strconv.ParseUint(second, 10, 64)
	}
	r := &h.rings
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err != nil || at.event > h.o.Events.Last() || at.decision > r.decisions.last { // a snapshot may be ahead of what was read
		return at, false, false
	}
	if both {
		return at, true, true
	}
	if i := r.events.index(at.event - min(1, at.event)); i < r.events.kept && r.events.at(i).seq == at.event {
		at.decision, whole = r.events.at(i).beside, true
	}
	return at, whole, true
}

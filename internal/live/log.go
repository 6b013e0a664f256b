package live

import (
	"sort"
	"strconv"
	"strings"
	"sync"

	"headway/internal/apiv1"
)

// The kinds of entries. Each has its own numbers, since the number of an event
// is that of the internal stream.
const (
	events = iota
	decisions
	kinds
)

// place is how far a subscriber has read: the number of the last event, and that
// of the last decision.
type place [kinds]uint64

// entryLog keeps the last frames of both kinds, in the order in which they are
// sent. Each kind has its own bound, so that a burst of decisions removes no
// event.
type entryLog struct {
	limit [kinds]int // frames to keep

	mu     sync.RWMutex
	frames []*frame   // oldest first
	kept   [kinds]int // of frames
	last   place      // of the newest frame
	gone   place      // of the last frame that was removed
}

// newest is the place of a subscriber that has read everything.
func (l *entryLog) newest() place {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last
}

// oldest is the first place after which nothing is missing.
func (l *entryLog) oldest() place {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.gone
}

// addEvent adds the event with a number. A gap before it is a loss to every
// subscriber.
func (l *entryLog) addEvent(number uint64, f *frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number > l.last[events]+1 {
		l.skip(events, number-1)
	}
	l.last[events] = number
	l.add(events, f)
}

// addDecision adds the frame that build makes for its place. It counts for n
// decisions.
func (l *entryLog) addDecision(n uint64, build func(place) *frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last[decisions] += n
	l.add(decisions, build(l.last))
}

// add appends a frame and removes the oldest of its kind beyond the limit; l.mu
// must be held.
func (l *entryLog) add(kind int, f *frame) {
	f.entry, f.place = kind, l.last
	l.frames = append(l.frames, f)
	if l.kept[kind]++; l.kept[kind] <= l.limit[kind] {
		return
	}
	i := l.index(kind, l.gone[kind])
	l.gone[kind] = l.frames[i].place[kind]
	l.kept[kind]--
	copy(l.frames[1:i+1], l.frames[:i])
	l.frames[0] = nil
	l.frames = l.frames[1:]
}

// skip removes all frames of a kind and goes on after a number; l.mu must be
// held.
func (l *entryLog) skip(kind int, number uint64) {
	rest := make([]*frame, 0, len(l.frames)-l.kept[kind])
	for _, f := range l.frames {
		if f.entry != kind {
			rest = append(rest, f)
		}
	}
	l.frames, l.kept[kind], l.last[kind], l.gone[kind] = rest, 0, number, number
}

// skipDecisions removes the decisions, and counts n that are not recorded.
func (l *entryLog) skipDecisions(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > 0 {
		l.skip(decisions, l.last[decisions]+n)
	}
}

// index is that of the first frame of a kind after a number; l.mu must be held.
func (l *entryLog) index(kind int, number uint64) int {
	return sort.Search(len(l.frames), func(i int) bool { return l.frames[i].place[kind] > number })
}

// after calls see for each event, and each decision if they are wanted, after a
// place. It returns the newest place and how many of each kind are missing.
func (l *entryLog) after(from place, wantDecisions bool, see func(*frame)) (next, missing place) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	next = from
	begin := len(l.frames)
	for kind := range kinds {
		if kind == events || wantDecisions {
			next[kind] = max(from[kind], l.last[kind])
			missing[kind] = max(from[kind], l.gone[kind]) - from[kind]
			begin = min(begin, l.index(kind, from[kind]))
		}
	}
	for _, f := range l.frames[begin:] {
		if f.place[f.entry] > from[f.entry] && (f.entry == events || wantDecisions) {
			see(f)
		}
	}
	return next, missing
}

// id is what a client resumes after.
func (h *Hub) id(at place) string {
	return apiv1.EventID(h.o.Instance, at[events]) + "-" + strconv.FormatUint(at[decisions], 10)
}

// placeOf reads an id: one of Hub.id, or that of an event, which does not name a
// decision. complete reports whether the place of decisions is known, valid
// whether the id is from this run of the service.
func (h *Hub) placeOf(id string) (at place, complete, valid bool) {
	instance, numbers, _ := strings.Cut(id, "-")
	event, decision, both := strings.Cut(numbers, "-")
	var err error
	if at[events], err = strconv.ParseUint(event, 10, 64); err != nil || instance != h.o.Instance {
		return at, false, false
	}
	if both {
		at[decisions], err = strconv.ParseUint(decision, 10, 64)
	}
	l := &h.log
	l.mu.RLock()
	defer l.mu.RUnlock()
	// A snapshot can be ahead of the log, so that the stream is asked.
	if err != nil || at[events] > h.o.Events.Last() || at[decisions] > l.last[decisions] {
		return at, false, false
	}
	if both || at[events] == 0 {
		return at, both, true
	}
	if i := l.index(events, at[events]-1); i < len(l.frames) && l.frames[i].entry == events && l.frames[i].place[events] == at[events] {
		at[decisions], complete = l.frames[i].place[decisions], true
	}
	return at, complete, true
}

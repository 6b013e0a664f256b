package live

import (
	"strconv"
	"strings"

	"headway/api"
)

// subscriber is one who reads the ring. One goroutine uses it.
type subscriber struct {
	hub       *Hub
	transport string
	filter    filter
	at        place
}

// subscribe begins to read, with a snapshot or, if all is there still that came
// after the last event that was seen, with what came then. It returns what is to
// be sent first.
func (h *Hub) subscribe(transport, last string, f filter) (*subscriber, []byte) {
	s := &subscriber{hub: h, transport: transport, filter: f, at: place{decision: h.decisions.newest()}}
	if f.decisions {
		h.wanted.Add(1)
	}
	if last == "" {
		return s, s.afresh(0)
	}
	count, reason := uint64(0), lostRestart
	instance, number, _ := strings.Cut(last, "-")
	if n, err := strconv.ParseUint(number, 10, 64); err == nil && instance == h.o.Instance && n <= h.events.newest() {
		if _, count = h.events.after(n, func(*frame) {}); count == 0 {
			s.at.event = n
			return s, nil
		}
		reason = lostWindow
	}
	return s, append(s.of(lost(count, reason)), s.afresh(0)...)
}

// close stops reading.
func (s *subscriber) close() {
	if s.filter.decisions {
		s.hub.wanted.Add(-1)
	}
}

// afresh returns a snapshot that was not taken before a place, and goes on after
// it.
func (s *subscriber) afresh(since uint64) []byte {
	shot := s.hub.snapshot(&s.filter, since)
	s.at.event = shot.place
	if s.transport == overSSE {
		return shot.sse
	}
	return shot.ws
}

// of returns a frame's bytes for the transport.
func (s *subscriber) of(f *frame) []byte {
	if s.transport == overSSE {
		return f.sse
	}
	return f.ws
}

// next returns what is to be sent now, nothing when there is nothing new.
func (s *subscriber) next() []byte {
	from := s.at.event
	b := s.hub.take(&s.filter, s.transport, s.at)
	s.at = b.next
	if b.lostDecisions > 0 {
		s.hub.metrics.lost[s.transport].Add(float64(b.lostDecisions))
	}
	if b.lost == 0 {
		return b.b
	}
	// Those that are left are in the snapshot as well.
	fresh := s.afresh(b.next.event)
	count := s.at.event - from
	s.hub.metrics.lost[s.transport].Add(float64(count))
	return append(s.of(lost(count, lostSlow)), fresh...)
}

// bye is the last that a stream is told.
func bye() *frame {
	fr := &frame{kind: api.MessageBye}
	fr.encode(api.MessageBye, "", struct {
		Reason string `json:"reason"`
	}{"the service stops; connect again"})
	return fr
}

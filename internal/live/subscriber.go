package live

import "headway/api"

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
	s := &subscriber{hub: h, transport: transport, filter: f}
	if f.decisions {
		h.wantDecisions()
	}
	s.at = h.rings.newest()
	if last == "" {
		return s, s.afresh(0)
	}
	at, whole, ours := h.placeOf(last)
	if !ours {
		return s, append(s.of(lost(0, lostRestart)), s.afresh(0)...)
	}
	var first []byte
	oldest := h.rings.oldest()
	switch {
	case !f.decisions:
	case !whole: // the event is gone from which the place would be known
		first = s.of(lostDecisions(0, lostWindow))
	case at.decision < oldest.decision:
		first = s.of(lostDecisions(s.missed(oldest.decision-at.decision), lostWindow))
		s.at.decision = oldest.decision
	default:
		s.at.decision = at.decision
	}
	if at.event >= oldest.event {
		s.at.event = at.event
		return s, first
	}
	_, count := h.rings.eventsAfter(at.event, func(*frame) {})
	return s, append(append(first, s.of(lost(s.missed(count), lostWindow))...), s.afresh(0)...)
}

// missed counts what is told as lost.
func (s *subscriber) missed(count uint64) uint64 {
	s.hub.metrics.lost[s.transport].Add(float64(count))
	return count
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
	s.at.event = shot.place.event
	switch {
	case s.transport == overWebSocket:
		return shot.ws
	case !s.filter.decisions || s.at == shot.place:
		return shot.sse
	}
	return append(shot.sse[:shot.id:shot.id], s.hub.idLine(s.at)...)
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
	from := s.at
	b := s.hub.take(&s.filter, s.transport, s.at)
	if b.lost == 0 {
		s.at = b.next
		s.missed(b.lostDecisions)
		return b.b
	}
	// The events that are left are in the snapshot as well; the decisions come
	// after it.
	fresh := s.afresh(b.next.event)
	return append(s.of(lost(s.missed(s.at.event-from.event), lostSlow)), fresh...)
}

// bye is the last that a stream is told.
func bye() *frame {
	fr := &frame{kind: api.MessageBye}
	fr.encode(api.MessageBye, "", struct {
		Reason string `json:"reason"`
	}{"the service stops; connect again"})
	return fr
}

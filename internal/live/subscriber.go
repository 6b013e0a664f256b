package live

import "headway/api"

// subscriber reads the log at its own pace. One goroutine uses it at a time.
type subscriber struct {
	hub       *Hub
	transport string
	filter    filter
	at        place
}

// subscribe begins to read: after the id of the last event that the client saw,
// if nothing since is missing, and otherwise with a snapshot. It returns what to
// send first.
func (h *Hub) subscribe(transport, last string, f filter) (*subscriber, []byte) {
	s := &subscriber{hub: h, transport: transport, filter: f}
	if f.decisions {
		h.wantDecisions()
	}
	s.at = h.log.newest()
	if last == "" {
		return s, s.restart(0)
	}
	at, complete, valid := h.placeOf(last)
	if !valid {
		return s, append(lostEvents(0, lossRestart).of(transport), s.restart(0)...)
	}
	var first []byte
	oldest := h.log.oldest()
	switch {
	case !f.decisions:
	case !complete: // the event that would say which decisions came before it is gone
		first = lostDecisions(0, lossTooOld).of(transport)
	case at[decisions] < oldest[decisions]:
		first = lostDecisions(s.countLost(oldest[decisions]-at[decisions]), lossTooOld).of(transport)
		s.at[decisions] = oldest[decisions]
	default:
		s.at[decisions] = at[decisions]
	}
	if at[events] >= oldest[events] {
		s.at[events] = at[events]
		return s, first
	}
	lost := lostEvents(s.countLost(oldest[events]-at[events]), lossTooOld)
	return s, append(append(first, lost.of(transport)...), s.restart(0)...)
}

// countLost counts what is reported to the client as lost.
func (s *subscriber) countLost(n uint64) uint64 {
	if n > 0 {
		s.hub.metrics.lost.WithLabelValues(s.transport).Add(float64(n))
	}
	return n
}

// close stops reading.
func (s *subscriber) close() {
	if s.filter.decisions {
		s.hub.wanted.Add(-1)
	}
}

// restart returns a snapshot not older than an event, and goes on after it.
func (s *subscriber) restart(since uint64) []byte {
	shot := s.hub.snapshot(&s.filter, since)
	s.at[events] = shot.place[events]
	switch {
	case s.transport == overWebSocket:
		return shot.ws
	case !s.filter.decisions || s.at == shot.place:
		return shot.sse
	}
	return append(shot.sse[:shot.id:shot.id], s.hub.idLine(s.at)...)
}

// next returns what to send now, nothing if there is nothing new.
func (s *subscriber) next() []byte {
	from := s.at
	b := s.hub.batch(&s.filter, s.transport, from)
	if b.lostEvents == 0 {
		s.at = b.next
		s.countLost(b.lostDecisions)
		return b.bytes
	}
	// The snapshot includes the events that are left; the decisions follow it.
	snapshot := s.restart(b.next[events])
	return append(lostEvents(s.countLost(s.at[events]-from[events]), lossTooSlow).of(s.transport), snapshot...)
}

// bye is the last message of a stream.
func bye() *frame {
	return notice(api.MessageBye, struct {
		Reason string `json:"reason"`
	}{"the service stops; connect again"})
}

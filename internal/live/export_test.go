package live

import "headway/api"

// ReadMessage reads an envelope.
func ReadMessage(b []byte) (id, kind string, data []byte, err error) {
	m, err := readMessage(b)
	return string(m.id), m.kind, m.data, err
}

// Streams is how many are open.
func (h *Hub) Streams() int64 { return h.streams.Load() }

// Read is the last event that was read; a stream that begins goes on after it.
func (h *Hub) Read() uint64 { return h.log.newest()[events] }

// Wanted is how many streams want decisions.
func (h *Hub) Wanted() int64 { return h.wanted.Load() }

// OpenDecisions is how many decisions are kept whose end is waited for.
func (h *Hub) OpenDecisions() int {
	h.follower.mu.Lock()
	defer h.follower.mu.Unlock()
	return len(h.follower.open)
}

// Followed is the sequence of the last decision that was read.
func (h *Hub) Followed() uint64 {
	h.follower.mu.Lock()
	defer h.follower.mu.Unlock()
	return h.follower.seen
}

// Take makes the batch of a subscription.
func (h *Hub) Take(s api.Subscription) error {
	f, err := newFilter(s, "")
	if err != nil {
		return err
	}
	h.batch(&f, overSSE, place{})
	return nil
}

// Batches is how many are kept.
func (h *Hub) Batches() int {
	h.batches.mu.Lock()
	defer h.batches.mu.Unlock()
	return len(h.batches.made)
}

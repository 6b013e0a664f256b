package mockhead

import "headway/internal/engine"

// Counters are the totals of the head's engine.
func (h *Head) Counters() engine.Counters {
	_, c := h.runner.load()
	return c
}

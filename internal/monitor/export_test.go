package monitor

import "context"

// Bounds of queries.
const (
	MaxWaiting   = maxWaiting
	QueryTimeout = queryTimeout
)

// Tell delivers alerts until ctx ends.
func (m *Monitor) Tell(ctx context.Context) { m.teller.run(ctx) }

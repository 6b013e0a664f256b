package monitor

import "context"

// Bounds of queries.
const (
	MaxWaiting   = maxWaiting
	QueryTimeout = queryTimeout
)

// Notify delivers alerts until ctx ends.
func (m *Monitor) Notify(ctx context.Context) { m.notifier.run(ctx) }

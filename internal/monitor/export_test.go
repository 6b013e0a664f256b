package monitor

import "context"

// Tell delivers alerts until ctx ends.
func (m *Monitor) Tell(ctx context.Context) { m.teller.run(ctx) }

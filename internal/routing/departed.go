package routing

import (
	"maps"
	"sync/atomic"
	"time"

	"headway/internal/fleet"
)

// comesBack is how long a model type whose last head left stays known: the time of a
// restart. Meanwhile a request for it is one to send again, and may wait.
const comesBack = 10 * time.Minute

// maxDeparted bounds the model types that are kept of those that left.
const maxDeparted = 1000

// departed are the model types that heads served not long ago. The goroutine of Run
// writes them.
type departed struct {
	last atomic.Pointer[fleet.Snapshot] // that was looked at
	left atomic.Pointer[map[string]time.Time]
}

// look notes what left since the last look, and forgets what is too long ago.
func (d *departed) look(s *fleet.Snapshot, now time.Time) {
	last, left := d.last.Swap(s), d.left.Load()
	if left == nil {
		left = new(map[string]time.Time)
	}
	stays := func(model string, at time.Time) bool { return s.Pools[model] == nil && now.Sub(at) < comesBack }
	next := maps.Clone(*left)
	maps.DeleteFunc(next, func(model string, at time.Time) bool { return !stays(model, at) })
	if last != nil && last != s {
		for model := range last.Pools {
			if s.Pools[model] == nil && len(next) < maxDeparted {
				if next == nil {
					next = map[string]time.Time{}
				}
				next[model] = now
			}
		}
	}
	d.left.Store(&next)
}

// served reports whether a head served the model type not long before now.
func (d *departed) served(model string, now time.Time) bool {
	if last := d.last.Load(); last != nil && last.Pools[model] != nil {
		return true // it left since the last look
	}
	left := d.left.Load()
	if left == nil {
		return false
	}
	at, ok := (*left)[model]
	return ok && now.Sub(at) < comesBack
}

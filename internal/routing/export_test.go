package routing

import "headway/internal/strategy"

// RaceEnabled tells tests of other packages that the race detector is on.
const RaceEnabled = raceEnabled

// Sequence is the cursor of Router.Recent.
func (d *Decision) Sequence() uint64 { return d.sequence }

// SetMemory makes the router remember by m.
func SetMemory(r *Router, m strategy.Memory) { r.memory = m }

// CopiedPlaces is how many places the remembered candidates hold beside those of
// the snapshot, and how many they may.
func CopiedPlaces(r *Router) (held, limit int) { return int(r.cache.copied.Load()), maxCopied }

// SumOfCopiedPlaces is what the sets have, one by one.
func SumOfCopiedPlaces(r *Router) (sum int) {
	for i := range r.cache.slots {
		if e := r.cache.slots[i].Load(); e != nil {
			sum += int(e.copied)
		}
	}
	return sum
}

// MaxExplained is the most candidates that an Explanation lists.
const MaxExplained = maxExplained

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

// AskShadows returns what asks the shadows of the policy once, for a decision about
// req.
func AskShadows(r *Router, req *strategy.Request) func() {
	c := choice{policy: r.policy.Load(), snapshot: r.o.Fleet.Snapshot()}
	if err := c.resolve(r, req); err != nil {
		panic(err)
	}
	c.set, _ = r.cache.get(c.criteria, req.Labels, c.pool, c.policy)
	s, p := new(scratch), new(Sample)
	s.begin(&c, req, r.o.Now(), 1, r.memory, strategy.SessionHash(req.SessionKey, c.pool.ModelType))
	s.in.RecallPrompt()
	return func() {
		p.Shadows = p.Shadows[:0]
		s.in.Reweigh()
		r.shadow(p, &c, s)
	}
}

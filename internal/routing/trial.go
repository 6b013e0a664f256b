package routing

import (
	"math"

	"headway/internal/strategy"
)

// trialsLooked is how many of the ejected heads a decision looks at for a trial,
// and 1/trialShare the part of the decisions that do while several heads wait: a
// fleet that fails must not get all requests as trials.
const (
	trialsLooked = 4
	trialShare   = 4
)

// tryEjected gives the request to an ejected head as its trial, unless it is a
// further attempt. The heads that the strategy chooses are the alternatives.
func (r *Router) tryEjected(c *choice, s *scratch) *Decision {
	in, trials := &s.in, c.set.trials
	if len(trials) == 0 || c.before != nil || len(trials) > 1 && in.Rand.Uint64()%trialShare != 0 {
		return nil
	}
	from := in.Rand.Uint64() % uint64(len(trials))
	for i := range uint64(min(len(trials), trialsLooked)) {
		h := trials[(from+i)%uint64(len(trials))]
		if in.Excluded(h) || in.Skips(h) {
			continue
		}
		if s.work = in.Work(h); !h.Outcomes.TryTrial(h, s.work) {
			continue
		}
		n := 1
		if len(in.Tiers) > 0 {
			n += c.plan.Strategy.Choose(in, s.picks[1:])
			in.ForgetSession() // it keeps its head
		} else {
			in.Tiers, s.last = s.last, nil // it has a tier to stand in
		}
		s.picks[0] = strategy.Pick{Head: h, Cost: math.NaN()}
		d := r.decision(c, s, 0, n)
		d.Trial = true
		return d
	}
	return nil
}

package routing

import (
	"math"

	"headway/internal/fleet"
	"headway/internal/strategy"
)

// trialsLooked is how many of the ejected heads that may be tried a decision
// looks at, and trialShare which part of the decisions while several wait: a
// fleet that fails must not get all requests as trials.
const (
	trialsLooked = 4
	trialShare   = 4
)

// tryEjected gives the request to an ejected head as its trial. The heads that
// the strategy chooses are the alternatives.
func (r *Router) tryEjected(c *choice, s *scratch) *Decision {
	in, trials := &s.in, c.set.trials
	if len(trials) == 0 || len(trials) > 1 && in.Rand.Uint64()%trialShare != 0 {
		return nil
	}
	from := in.Rand.Uint64() % uint64(len(trials))
	for i := range uint64(min(len(trials), trialsLooked)) {
		h := trials[(from+i)%uint64(len(trials))]
		if in.Excluded(h) || !h.TryTrial() {
			continue
		}
		n := 1
		if len(in.Tiers) > 0 {
			n += c.plan.Strategy.Choose(in, s.picks[1:])
			in.Recalled = strategy.Recalled{} // the session keeps its head
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

// finish ends the decision's reservation. It counts that, and a true outcome that
// comes after another end, and lets the fleet and the memory know of it.
func (r *Router) finish(d *Decision, o *Outcome) {
	counts, late := r.recent.finish(d, o)
	if !counts {
		return
	}
	r.metrics.ended(d, o, late)
	end := o.ending()
	switch {
	case !d.Trial:
		d.Head.Observe(end, o.At)
	case !late || end != fleet.EndedUnknown: // that a trial proves nothing is taken at its first end
		d.Head.ObserveTrial(end, o.At)
	}
	if end != fleet.EndedUnreported {
		r.memory.Ended(d.Head, end, o.At.Sub(d.At))
	}
}

// ending is what the outcome says of the head: an answer of 4xx is the caller's
// fault, or for 429 the head's word that it is full.
func (o *Outcome) ending() fleet.Ending {
	switch {
	case o.Result == ResultOK:
		return fleet.EndedWell
	case o.Result == ResultError && (o.StatusCode < 400 || o.StatusCode > 499):
		return fleet.EndedBadly
	case o.Result > ResultCancelled:
		return fleet.EndedUnreported
	}
	return fleet.EndedUnknown
}

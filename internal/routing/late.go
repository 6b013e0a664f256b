package routing

import (
	"math"
	"time"

	"headway/internal/strategy"
)

// late is why a request is refused that heads have a place for: the soonest that one
// of them is likely to begin to answer is after the objective. Zero: it is not.
type late struct{ soonest, objective time.Duration }

// refuses finds whether the strategy refuses the request. A further attempt is not: the
// request has waited for the one before.
func (c *choice) refuses(s *scratch) late {
	by, ok := c.plan.Strategy.(strategy.Refuser)
	if !ok || c.before != nil {
		return late{}
	}
	objective := by.Objective(&s.in)
	if math.IsNaN(objective) {
		return late{}
	}
	if soonest := s.in.Soonest(objective); soonest > objective {
		return late{inMilliseconds(soonest), inMilliseconds(objective)}
	}
	return late{}
}

func inMilliseconds(ms float64) time.Duration {
	return time.Duration(min(ms*float64(time.Millisecond), math.MaxInt64/2))
}

// again is when it is worth another try: once what is over the objective is done.
func (e *NoHeadError) again() time.Duration { return max(e.Soonest-e.Objective, retryAfter) }

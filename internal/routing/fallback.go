package routing

import (
	"strings"

	"headway/internal/policy"
	"headway/internal/strategy"
)

// Fallback is what a decision stands in for: the model type that the request asked
// for, after aliases, had no head for it, or no place.
type Fallback struct {
	ModelType string
	Region    string // that the request named, "" when it named none that is known
	Why       Failure
}

// fallBack goes through what the policy says to try where c found none, and returns
// the first decision that finds a head; nil: none does. The fallbacks of a fallback
// are not tried.
func (r *Router) fallBack(c *choice, req *strategy.Request, none *NoHeadError) *Decision {
	if none.Failure == FailUnknownModel || c.hedges {
		return nil
	}
	for _, to := range c.policy.Fallbacks(none.ModelType, req.Region) {
		next, ok := redirect(req, to)
		if !ok {
			continue
		}
		n := choice{policy: c.policy, snapshot: c.snapshot, origin: c.origin}
		n.fallback = &Fallback{ModelType: strings.Clone(none.ModelType), Region: c.region, Why: none.Failure}
		d, err := r.choose(&n, &next)
		if err == nil {
			r.metrics.fallbacks[none.Failure].Inc()
			return d
		}
		if other, ok := err.(*NoHeadError); ok { //nolint:errorlint // it comes as it is
			none.Busy, none.Paused = none.Busy || other.Busy, sooner(none.Paused, other.Paused)
		}
	}
	return nil
}

// redirect is the request for the target. ok is false where the caller itself
// requires the region that it named, and the target is elsewhere.
func redirect(req *strategy.Request, to policy.Target) (next strategy.Request, ok bool) {
	next = *req
	if to.ModelType != "" {
		next.ModelType = to.ModelType
	}
	if to.Region != "" {
		next.Region = to.Region
	}
	return next, req.RegionMode != strategy.RegionRequire || next.Region == req.Region
}

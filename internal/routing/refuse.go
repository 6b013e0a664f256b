package routing

import (
	"strings"

	"headway/internal/fleet"
	"headway/internal/strategy"
)

// Refuse counts and keeps a request as one that found no place, without a look for
// one: it may not wait, and others who wait come first. The errors are those of
// Decide.
func (r *Router) Refuse(req *strategy.Request) error {
	c := choice{policy: r.policy.Load(), snapshot: r.o.Fleet.Snapshot(), origin: origin{queued: req.Queued, source: req.Source, ended: FailQueueFull}}
	err := c.resolve(r, req)
	if err == nil {
		err = c.busy(req, r.pools.full(c.model, c.policy.MaxInFlight(c.model)))
	}
	if none, ok := err.(*NoHeadError); ok { //nolint:errorlint // it comes as it is
		none.RetryAfter = retryAfter
		r.recordFailure(none, &c, req.Caller)
	}
	return err
}

// busy is that heads may take the request and none has a place for it, or none
// before its pause is over.
func (c *choice) busy(req *strategy.Request, closed bool) *NoHeadError {
	e := &NoHeadError{Failure: FailAtCapacity, ModelType: c.model, Region: req.Region, Busy: c.paused.IsZero(), Paused: c.paused}
	switch {
	case closed:
		e.Failure = FailPoolFull
	case !e.Busy:
		e.Failure = FailPaused
	}
	return e
}

// refuse finds out why none of the candidates could be taken.
func (c *choice) refuse(req *strategy.Request) *NoHeadError {
	e := &NoHeadError{ModelType: c.pool.ModelType, Region: req.Region, Counts: map[string]int{}, Required: c.mode == strategy.RegionRequire}
	c.explanation.finish("", false)
	if req.Explain {
		e.Explanation = c.explanation
	}
	for _, h := range c.pool.All.Heads {
		f := c.filter(h, req)
		switch {
		case f != "":
		case c.closed:
			f = filterPool
		case c.late != late{}:
			f = filterObjective
		}
		e.Counts[f]++
	}
	e.Failure = FailAtCapacity // unless a place came free between the choice and this look
	// The last filter that removed a head is what kept the request from one.
	for _, f := range []struct {
		filter  string
		failure Failure
	}{
		{filterCapacity, FailAtCapacity},
		{filterTried, FailTried},
		{filterExclude, FailExcluded},
		{filterLabels, FailLabels},
		{string(fleet.RefusedStatus), FailUnroutable},
		{string(fleet.RefusedUnhealthy), FailUnroutable},
		{string(fleet.RefusedAdmin), FailUnroutable},
		{filterRegion, FailRegion},
	} {
		if !c.closed && e.Counts[f.filter] > 0 {
			e.Failure = f.failure
			break
		}
	}
	switch {
	case c.closed:
		e.Failure = FailPoolFull
	case c.late != late{}:
		e.Failure, e.Soonest, e.Objective = FailObjective, c.late.soonest, c.late.objective
	case !c.paused.IsZero():
		e.Failure, e.Paused = FailPaused, c.paused
	}
	e.Busy = e.Failure == FailAtCapacity || e.Failure == FailPoolFull
	return e
}

// refused counts a request that a strategy refused.
func (r *Router) refused(by, model string) {
	r.metrics.strategies[by].refused.Add(1)
	for _, w := range r.o.Watchers {
		w.Refused(by, model, r.o.Now())
	}
}

// recordFailure counts and keeps a decision that found no head, by names that a
// head or the policy knows. One that had an attempt before is kept already.
func (r *Router) recordFailure(e *NoHeadError, c *choice, caller uint32) {
	if c.before != nil {
		return
	}
	model, region, failure := e.ModelType, e.Region, e.Reason()
	if c.pool == nil && !c.policy.NamesModel(model) {
		model = other
	}
	if region == "" || c.snapshot.Regions[region] == 0 && c.policy.Region(region) == "" {
		region = other
	}
	if e.Busy && c.ended != 0 {
		failure, c.lacked = c.ended, e.Failure
	}
	r.metrics.noHead(failure, model, region)
	if failure == FailObjective {
		r.refused(c.plan.Spec.Name, model)
	}
	d := &Decision{
		Failure: failure, Strategy: strategyNone, ModelType: strings.Clone(e.ModelType), Region: strings.Clone(e.Region),
		PolicyRevision: c.policy.Revision, Rule: int32(c.plan.Rule), At: r.o.Now(), nonce: r.random(), caller: caller,
	}
	if c.origin != (origin{}) {
		of := c.origin
		d.origin = &of
	}
	e.Decision = d
	r.failures.add(d, &r.recent.newest)
	if c.explanation == nil { // there was nothing to choose from
		c.explanation = &Explanation{
			PolicyRevision: c.policy.Revision, SnapshotRevision: c.snapshot.Revision, Rule: c.plan.Rule,
			Strategy: strategyNone, Region: d.Region, RegionMode: c.mode,
		}
	}
	r.explained.keep(d, c.explanation)
}

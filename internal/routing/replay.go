package routing

import (
	"time"

	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/strategy"
)

// Bounds of a replay: it serves a person who waits.
const (
	maxReplayed      = 10_000
	maxReplayTime    = 2 * time.Second
	maxReplayedShown = 20
)

// Replay says which of the recent decisions another policy would send elsewhere.
// Decisions do not keep session keys, labels and excluded heads.
type Replay struct {
	Decisions int        // replayed: at most the last 10,000, and what 2 s allow
	Moved     int        // chose another head
	Failed    int        // found a head under the policy in force and none under the other
	Unjudged  int        // got a head by a strategy that may refuse: without prompts it is not known
	Examples  []Replayed // up to 20 of those that moved or failed, newest first
}

// Replayed is one decision made again under the policy in force and another.
type Replayed struct {
	Decision                     *Decision
	Before, After                *fleet.Head // After is nil when none was found
	StrategyBefore, StrategyNext string
}

// Replay makes the recent decisions again under the policy in force and under
// next: on a copy of the fleet as it is now, with the same random numbers and
// turns, so that what both treat alike goes to the same head. Nothing is
// reserved, counted or remembered.
func (r *Router) Replay(next *policy.Policy) Replay {
	now, snapshot := r.o.Now(), r.o.Fleet.Snapshot().Frozen()
	before, after := rehearsal{policy: r.Policy()}, rehearsal{policy: next}
	var result Replay
	newest := r.recent.newest.Load()
	for _, d := range r.recent.recent(newest, r.recent.oldest(newest), RecentQuery{Limit: maxReplayed}) {
		if r.since(now) > maxReplayTime {
			break
		}
		result.Decisions++
		was, wasBy := before.again(r, d, snapshot, now)
		is, isBy := after.again(r, d, snapshot, now)
		if is != nil && after.refusable {
			result.Unjudged++
		}
		switch {
		case was == is:
			continue
		case is == nil:
			result.Failed++
		default:
			result.Moved++
		}
		if len(result.Examples) < maxReplayedShown {
			result.Examples = append(result.Examples, Replayed{d, was, is, wasBy, isBy})
		}
	}
	return result
}

// rehearsal decides by one policy. It has sets of candidates of its own, so that
// those of the router keep their turns.
type rehearsal struct {
	policy  *policy.Policy
	sets    map[criteria]*candidates
	scratch scratch

	refusable bool // the strategy that chose last may refuse requests
}

// again is the head that the decision would get, or nil, and the strategy that
// chose.
func (r *rehearsal) again(router *Router, d *Decision, snapshot *fleet.Snapshot, now time.Time) (*fleet.Head, string) {
	req := &strategy.Request{ModelType: d.ModelType, Region: d.Region}
	if f := d.Fallback(); f != nil {
		req.ModelType, req.Region = f.ModelType, f.Region
	}
	if d.Rule == RuleByCaller && r.policy.CallerMay("strategy") {
		req.Strategy = d.Strategy
	}
	h, name := r.choose(router, d, req, snapshot, now)
	for _, to := range r.policy.Fallbacks(r.policy.Model(req.ModelType), req.Region) {
		if h != nil {
			break
		}
		next, _ := redirect(req, to)
		h, name = r.choose(router, d, &next, snapshot, now)
	}
	return h, name
}

// choose is again for the request as it stands.
func (r *rehearsal) choose(router *Router, d *Decision, req *strategy.Request, snapshot *fleet.Snapshot, now time.Time) (*fleet.Head, string) {
	c := choice{policy: r.policy, snapshot: snapshot, rehearsed: true}
	err := c.resolve(router, req)
	if c.plan.Spec == nil {
		return nil, ""
	}
	name := c.plan.Spec.Name
	r.refusable = strategy.Refuses(c.plan.Strategy, c.model)
	if err != nil {
		return nil, name
	}
	if c.set = r.sets[c.criteria]; c.set == nil {
		c.set = newCandidates(c.criteria, nil, c.pool, r.policy, nil, func() uint64 { return 0 })
		if r.sets == nil {
			r.sets = map[criteria]*candidates{}
		}
		r.sets[c.criteria] = c.set
	}
	s := &r.scratch
	s.begin(&c, req, now, d.nonce, nil, d.nonce|1)
	if c.refuses(s) != (late{}) {
		return nil, name
	}
	if i, n := router.place(&c, s); n > 0 {
		return s.picks[i].Head, name
	}
	return nil, name
}

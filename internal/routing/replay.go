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

// Replay says which of the recent decisions another policy would send
// elsewhere. Session keys, labels and excluded heads of a decision are not
// kept, so that they play no part.
type Replay struct {
	Decisions int        // replayed: at most the last 10,000, and what 2 s allow
	Moved     int        // chose another head
	Failed    int        // found a head under the policy in force and none under the other
	Examples  []Replayed // up to 20 of those that moved or failed, newest first
}

// Replayed is one decision made again under the policy in force and another.
type Replayed struct {
	Decision                     *Decision
	Before, After                *fleet.Head // After is nil when none was found
	StrategyBefore, StrategyNext string
}

// Replay makes the recent decisions again under the policy in force and under
// next, on the fleet as it is now and with the same random numbers and turns,
// so that whatever next treats alike goes to the same head. Nothing is
// reserved, counted or remembered.
func (r *Router) Replay(next *policy.Policy) Replay {
	snapshot := r.fleet.Snapshot()
	now := r.now()
	before, after := newRehearsal(r.Policy(), snapshot, now), newRehearsal(next, snapshot, now)
	var result Replay
	for _, d := range r.recent.recent(RecentQuery{Limit: maxReplayed}) {
		if r.since(now) > maxReplayTime {
			break
		}
		result.Decisions++
		was, wasBy := before.choose(d)
		is, isBy := after.choose(d)
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

// rehearsal decides by one policy without a trace.
type rehearsal struct {
	policy   *policy.Policy
	snapshot *fleet.Snapshot
	now      time.Time
	sets     map[criteria]*candidates
	scratch  scratch
}

func newRehearsal(p *policy.Policy, s *fleet.Snapshot, now time.Time) *rehearsal {
	return &rehearsal{policy: p, snapshot: s, now: now, sets: map[criteria]*candidates{}}
}

// choose is the head that the decision would get, or nil, and the strategy
// that chose.
func (r *rehearsal) choose(d *Decision) (*fleet.Head, string) {
	pool := r.snapshot.Pools[r.policy.Model(d.ModelType)]
	if pool == nil {
		return nil, ""
	}
	plan := r.policy.Plan(pool.ModelType, d.Region)
	if d.Rule == RuleByCaller && r.policy.CallerMay("strategy") {
		if chosen, spec, ok := r.policy.Named(d.Strategy); ok {
			plan.Strategy, plan.Spec = chosen, spec
		}
	}
	key := criteria{model: pool.ModelType, region: d.Region, mode: plan.RegionMode}
	set := r.sets[key]
	if set == nil {
		set = newCandidates(key, pool, r.policy, nil, func() uint64 { return 0 })
		r.sets[key] = set
	}
	s := &r.scratch
	s.last, s.in = set.tiers[set.usual:], strategy.Input{
		Request: &strategy.Request{ModelType: pool.ModelType, Region: d.Region}, ModelType: pool.ModelType,
		Now: r.now, Clock: fleet.Clock(r.now), Rand: strategy.NewRand(d.nonce), SessionHash: d.nonce | 1,
		Tiers: set.tiers[:set.usual],
	}
	found := s.eachTier(plan.Spec.AcrossRegions, func() bool { return plan.Strategy.Choose(&s.in, s.picks[:]) > 0 })
	if !found {
		return nil, plan.Spec.Name
	}
	return s.picks[0].Head, plan.Spec.Name
}

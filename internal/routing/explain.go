package routing

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"headway/internal/fleet"
	"headway/internal/strategy"
)

// Explanation is what a decision saw, asked for by Request.Explain.
type Explanation struct {
	PolicyRevision   uint64
	SnapshotRevision uint64
	Rule             int // index into the policy's rules, -1: default_strategy
	Strategy         string
	Formula          string
	Delegate         string // the strategy that Strategy hands this model type to, "": none
	Region           string
	RegionMode       strategy.RegionMode
	Tokens           float64 // of the prompt, as known or assumed; 0: there was nothing to choose from
	Assumed          bool    // the request did not say how many
	Candidates       []Candidate
	Omitted          int // candidates left out because there were more than maxExplained
	CacheHit         bool

	across bool // the strategy compares heads of all regions
}

// maxExplained is the most candidates that an Explanation lists.
const maxExplained = 256

// Candidate is one head as a decision saw it.
type Candidate struct {
	HeadID    string
	Region    string
	Distance  float64 // ms, NaN: unknown
	Filter    string  // the filter that removed it, "" if none did
	Cost      float64 // lower is better; NaN: not compared
	Predicted float64 // time to the first token in ms; NaN: unknown
	Chosen    bool
	Signals   []strategy.Signal
	Terms     []strategy.Term // that Cost is made of; nil: the strategy names none
}

// Filters that remove heads, besides the refusals of fleet, in their order.
const (
	filterRegion    = "region"    // required, and the head is elsewhere
	filterLabels    = "labels"    // the head lacks a label that the request wants
	filterExclude   = "exclude"   // the caller excluded the head
	filterTried     = "tried"     // an attempt before this one was there
	filterCapacity  = "capacity"  // the head is at its max_in_flight
	filterFull      = "full"      // the head reports that it is full, and others do not
	filterPool      = "pool_full" // as many requests of the model type are under way as the policy allows
	filterPaused    = "paused"    // the head asked for a pause, and others did not
	filterObjective = "objective" // the head is not likely to begin to answer in time, nor is another
	filterEjected   = "ejected"   // the head is ejected, and others may serve the request
	filterFarther   = "farther"   // a nearer region had a head for the request
)

// filter names the first filter that removes h, or "".
func (c *choice) filter(h *fleet.Head, req *strategy.Request) string {
	switch {
	case c.mode == strategy.RegionRequire && h.Region != c.region:
		return filterRegion
	case !h.Routable() && !h.Ejected():
		return string(h.Refusal())
	case !hasLabels(h, req.Labels):
		return filterLabels
	case slices.Contains(req.Exclude, h.ID):
		return filterExclude
	case c.before.tried(h.ID):
		return filterTried
	case h.MaxInFlight > 0 && h.Live.InFlight() >= h.MaxInFlight:
		return filterCapacity
	case h.Ejected():
		return filterEjected
	}
	return ""
}

// Bounds of the explanations that are kept: the newest, which together list at most
// maxKeptCandidates, about 600 bytes each. In a fleet of a dozen heads these are
// the last 4,000.
const (
	maxExplanations   = 10_000
	maxKeptCandidates = 50_000
)

// explainRate bounds the candidates a second of explanations that were not asked
// for: about a hundredth of a processor.
const explainRate = 10_000

// explained are the decisions that have an explanation, oldest first. Only they
// take the lock.
type explained struct {
	mu         sync.Mutex
	decisions  []*Decision
	candidates int
	allowance  float64 // candidates that may be written down unasked
	at         time.Time
}

// affords takes n candidates from the allowance, and reports whether it had them.
func (e *explained) affords(n int, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.allowance = min(e.allowance+max(now.Sub(e.at).Seconds(), 0)*explainRate, maxKeptCandidates)
	e.at = now
	if float64(n) > e.allowance {
		return false
	}
	e.allowance -= float64(n)
	return true
}

// keep gives d its explanation, and drops the oldest ones beyond the bounds.
func (e *explained) keep(d *Decision, explanation *Explanation) {
	d.explanation.Store(explanation)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.decisions = append(e.decisions, d)
	e.candidates += len(explanation.Candidates)
	for len(e.decisions) > maxExplanations || e.candidates > maxKeptCandidates {
		old := e.decisions[0]
		e.decisions[0] = nil
		e.decisions = e.decisions[1:]
		e.candidates -= len(old.explanation.Swap(nil).Candidates)
	}
}

// explain writes down what the decision is about to see.
func (r *Router) explain(c *choice, in *strategy.Input) *Explanation {
	e := &Explanation{
		PolicyRevision: c.policy.Revision, SnapshotRevision: c.snapshot.Revision,
		Rule: c.plan.Rule, Strategy: c.plan.Spec.Name, Formula: c.plan.Spec.Formula,
		Region: c.region, RegionMode: c.mode, CacheHit: c.hit, across: c.plan.Spec.AcrossRegions,
	}
	in.RecallPrompt()
	e.Tokens, e.Assumed = in.Tokens(), in.Request.InputTokens <= 0
	if d, ok := c.plan.Strategy.(interface{ Delegate(modelType string) string }); ok {
		e.Delegate = d.Delegate(c.pool.ModelType)
	}
	costs, terms := map[*fleet.Head]float64{}, map[*fleet.Head][]strategy.Term{}
	at, fullOnly, passed := in.At, in.FullOnly, in.Passed
	tiers := in.Tiers
	for round := range 4 {
		in.Tiers, in.FullOnly = c.set.tiers, round&1 == 0
		if round > 1 {
			in.Tiers = c.set.last
		}
		for in.At = range in.Tiers {
			heads := in.Heads()
			scores := make([]float64, len(heads))
			c.plan.Strategy.Score(in, scores)
			for i, h := range heads {
				if _, scored := costs[h]; !scored || !math.IsInf(scores[i], 1) {
					costs[h], terms[h] = scores[i], strategy.Terms(c.plan.Strategy, in, scores, i)
				}
			}
		}
	}
	in.Tiers, in.At, in.FullOnly, in.Passed = tiers, at, fullOnly, passed
	for _, h := range c.pool.All.Heads {
		cost, scored := costs[h]
		predicted := math.NaN()
		if scored {
			predicted = in.See(h).Predicted
		} else {
			cost = math.NaN()
		}
		distance := 0.0
		if c.region != "" {
			distance = c.policy.Distance(c.region, h.Region)
		}
		filter := c.filter(h, in.Request)
		if filter == "" && h.Live.Full(h.Live.InFlight(), h.MaxInFlight, in.Now) {
			filter = filterFull
			if !h.Live.AwayUntil(in.Now).IsZero() {
				filter = filterPaused
			}
		}
		e.Candidates = append(e.Candidates, Candidate{
			HeadID: h.ID, Region: h.Region, Distance: distance,
			Filter: filter, Cost: cost, Predicted: predicted, Signals: strategy.Signals(h, in.Now, scored && !math.IsNaN(cost)), Terms: terms[h],
		})
	}
	e.sort()
	return e
}

// sort has heads that nothing removed come first, cheapest first, and of these last
// those that were not compared, whose cost is NaN.
func (e *Explanation) sort() {
	slices.SortStableFunc(e.Candidates, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(min(len(a.Filter), 1), min(len(b.Filter), 1)), cmp.Compare(-b.Cost, -a.Cost))
	})
}

// close says that nothing but this filter keeps the request from the heads that no
// other removed.
func (e *Explanation) close(filter string) {
	if e == nil {
		return
	}
	for i := range e.Candidates {
		if e.Candidates[i].Filter == "" {
			e.Candidates[i].Filter = filter
		}
	}
}

// finish marks the head that was taken, "" for none, and keeps at most maxExplained
// candidates, that head among them.
func (e *Explanation) finish(id string, trial bool) {
	if e == nil {
		return
	}
	at := func() int { return slices.IndexFunc(e.Candidates, func(c Candidate) bool { return c.HeadID == id }) }
	taken := at()
	if taken >= 0 {
		filter := e.Candidates[taken].Filter
		e.Candidates[taken].Chosen, e.Candidates[taken].Filter = true, ""
		if !trial && filter != "" { // the last resort: the filter removed none of them
			for i := range e.Candidates {
				if e.Candidates[i].Filter == filter {
					e.Candidates[i].Filter = ""
				}
			}
		}
	}
	if taken >= 0 && !trial && e.leaveFarther(&e.Candidates[taken]) {
		e.sort()
		taken = at()
	}
	if extra := len(e.Candidates) - maxExplained; extra > 0 {
		if taken >= maxExplained {
			e.Candidates[maxExplained-1] = e.Candidates[taken]
		}
		e.Omitted = extra
		e.Candidates = slices.Clone(e.Candidates[:maxExplained])
	}
}

// leaveFarther names what kept the request from heads of regions farther than that of
// the chosen one, however little they cost: a strategy that does not compare regions
// goes there only from a region that has no head for it. Regions of unknown distance
// are the farthest, and as far as each other. It reports whether there are left.
func (e *Explanation) leaveFarther(chosen *Candidate) (left bool) {
	if e.across || e.Region == "" || math.IsNaN(chosen.Distance) {
		return false
	}
	for i := range e.Candidates {
		c := &e.Candidates[i]
		if c.Filter == "" && c.Region != chosen.Region && !(c.Distance <= chosen.Distance) {
			c.Filter, left = filterFarther, true
		}
	}
	return left
}

package routing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/strategy"
	"headway/internal/strict"
)

// Options are what a Router is made of.
type Options struct {
	Fleet          Fleet                 // required
	Events         *event.Stream         // required
	Metrics        prometheus.Registerer // required
	Log            *slog.Logger          // required
	Policies       policy.Store          // nil: policies live as long as the process
	Begin          audit.BeginFunc       // records changes; nil: audit.Unrecorded
	Now            func() time.Time      // nil: time.Now
	Seed           uint64                // of all randomness; 0: random
	ReservationTTL time.Duration         // of requests that ask for none; 0: DefaultReservationTTL
	MaxTTL         time.Duration         // the longest that a request may ask for, at least ReservationTTL; 0: DefaultMaxTTL
	ExplainShare   float64               // of decisions whose explanation is kept without being asked for, 0 to 1
	Recent         int                   // decisions kept, rounded up to a power of two; 0: DefaultRecent
}

// Fleet is where the router reads heads: one call, which must be cheap and
// return an immutable snapshot.
type Fleet interface {
	Snapshot() *fleet.Snapshot
}

// Defaults of Options.
const (
	DefaultReservationTTL = 2 * time.Minute
	DefaultMaxTTL         = time.Hour
	DefaultRecent         = 1 << 16
)

// retryAfter is what a caller that found no head is told to wait: about as
// long as a head takes to come back with its next report.
const retryAfter = time.Second

// Router decides. All methods are safe for concurrent use.
type Router struct {
	fleet     Fleet
	events    *event.Stream
	log       *slog.Logger
	now       func() time.Time
	since     func(time.Time) time.Duration
	ttl       time.Duration
	maxTTL    time.Duration
	share     float64
	seed      uint64
	seeded    atomic.Uint64
	metrics   *metrics
	cache     *candidateCache
	sessions  *strategy.SessionTable
	recent    *reservations
	failed    failed
	explained explained
	scratch   sync.Pool
	policy    atomic.Pointer[policy.Policy]

	mu       sync.Mutex // one policy change at a time
	policies policy.Store
	begin    audit.BeginFunc
}

// New makes a router that decides by the default policy.
func New(o Options) (*Router, error) {
	switch {
	case o.Fleet == nil || o.Events == nil || o.Metrics == nil || o.Log == nil:
		return nil, errors.New("routing: Fleet, Events, Metrics and Log are required")
	case o.ReservationTTL < 0 || o.MaxTTL < 0 || o.Recent < 0 || o.Recent > 1<<26:
		return nil, errors.New("routing: ReservationTTL, MaxTTL and Recent must not be negative, Recent at most 2^26")
	}
	r := &Router{
		fleet: o.Fleet, events: o.Events, log: o.Log, now: o.Now, ttl: o.ReservationTTL,
		share: o.ExplainShare, seed: o.Seed, sessions: strategy.NewSessionTable(), policies: o.Policies, begin: o.Begin,
	}
	r.since = func(t time.Time) time.Duration { return r.now().Sub(t) }
	if r.now == nil {
		r.now, r.since = time.Now, time.Since // Since reads one clock, Now two
	}
	if r.begin == nil {
		r.begin = audit.Unrecorded
	}
	if r.ttl == 0 {
		r.ttl = DefaultReservationTTL
	}
	r.maxTTL = max(cmp.Or(o.MaxTTL, DefaultMaxTTL), r.ttl)
	if o.Recent == 0 {
		o.Recent = DefaultRecent
	}
	r.recent = newReservations(o.Recent)
	r.cache = newCandidateCache(r.random)
	r.scratch.New = func() any { return new(scratch) }
	r.policy.Store(policy.Default())
	var err error
	if r.metrics, err = newMetrics(o.Metrics, r); err != nil {
		return nil, fmt.Errorf("routing: metrics: %w", err)
	}
	return r, nil
}

// Run ends reservations whose time ran out and forgets candidates that are no
// longer any, until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	tick := time.NewTicker(expiryTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.Expire()
			r.cache.forget(r.fleet.Snapshot(), r.policy.Load())
		}
	}
}

// Expire ends reservations whose time ran out, unless their head says that as
// many requests as are counted there still run: a place is not given twice while
// both are there. Run calls it; a simulation that has its own clock calls it
// itself, from one goroutine.
func (r *Router) Expire() {
	now := r.now()
	var end *Outcome // State by all that end now
	r.recent.expire(now, func(d *Decision) {
		if now.Before(d.At.Add(r.maxTTL)) && d.Head.Live.Runs(now) {
			d.renew(now.Add(max(d.ttl/8, expiryTick)))
			r.metrics.kept.Inc()
			return
		}
		if end == nil {
			end = &Outcome{Result: ResultExpired, At: now}
		}
		r.finish(d, end)
	})
}

// evicted is the end of every reservation that made room for a newer one; it
// is State, since a decision may allocate only itself.
var evicted = Outcome{Result: ResultEvicted}

// scratch is the memory of one Decide that does not leave it.
type scratch struct {
	in    strategy.Input
	last  []strategy.Tier // the last resort: tiers of ejected heads
	picks [1 + strategy.MaxAlternatives]strategy.Pick
	more  [strategy.MaxAlternatives]strategy.Pick
}

// choice is what a decision knows before it chooses.
type choice struct {
	policy   *policy.Policy
	snapshot *fleet.Snapshot
	pool     *fleet.Pool
	plan     policy.Plan
	mode     strategy.RegionMode
	region   string // canonical, "" when none was named or nobody knows it
	set      *candidates
	hit      bool

	explanation *Explanation // nil: there is none so far
}

// Decide chooses a head for the request and reserves a place there. The errors
// are *NoHeadError, *OverrideError and *strict.InvalidError.
func (r *Router) Decide(req *strategy.Request) (*Decision, error) {
	now := r.now()
	c := choice{policy: r.policy.Load(), snapshot: r.fleet.Snapshot()}
	if err := r.resolve(req, &c); err != nil {
		return nil, err
	}
	s, _ := r.scratch.Get().(*scratch)
	in := &s.in
	in.Request, in.ModelType, in.Now, in.At = req, c.pool.ModelType, now, 0
	in.Tiers, s.last = c.set.tiers[:c.set.usual], c.set.tiers[c.set.usual:]
	in.Clock, in.Resort, in.Passed, in.Keyless = fleet.Clock(now), false, false, false
	in.Rand = strategy.NewRand(r.random())
	in.Sessions, in.SessionHash, in.Lookup = r.sessions, strategy.SessionHash(req.SessionKey, c.pool.ModelType), strategy.NotLooked
	if req.Explain || r.share > 0 && in.Rand.Float64() < r.share && r.affords(&c, now) {
		c.explanation = r.explain(&c, in)
	}
	d := r.reserve(&c, s)
	if d != nil {
		if c.explanation.finish(d.Head.ID, d.Trial); c.explanation != nil {
			r.explained.keep(d, c.explanation)
		}
		r.note(c.set, d, s)
	} else if c.explanation == nil && r.affords(&c, now) {
		c.explanation = r.explain(&c, in)
	}
	clear(s.picks[:])
	in.Request, in.Tiers, s.last = nil, nil, nil
	r.scratch.Put(s)
	if d == nil {
		c.explanation.finish("", false)
		return nil, r.refuse(req, &c)
	}
	return d, nil
}

// affords reports whether an explanation that was not asked for may be written.
func (r *Router) affords(c *choice, now time.Time) bool {
	return r.explained.affords(len(c.pool.All.Heads), now)
}

// resolve finds the pool, the strategy and the candidates of a request.
func (r *Router) resolve(req *strategy.Request, c *choice) error {
	model := c.policy.Model(req.ModelType)
	c.pool = c.snapshot.Pools[model]
	if c.pool == nil {
		no := &NoHeadError{Failure: FailNoHeads, ModelType: model, Region: req.Region}
		if !c.policy.NamesModel(model) {
			no.Failure, no.Nearest = FailUnknownModel, nearestModel(model, c.policy, c.snapshot)
		}
		return r.fail(no, model, req.Region, c)
	}
	c.plan = c.policy.Plan(model, req.Region)
	if req.Strategy != "" {
		if !c.policy.CallerMay("strategy") {
			return &OverrideError{Field: "/strategy"}
		}
		chosen, spec, ok := c.policy.Named(req.Strategy)
		if !ok {
			return &strict.InvalidError{Faults: []strict.Fault{{Pointer: "/strategy", Reason: policy.UnknownStrategy(req.Strategy)}}}
		}
		c.plan.Strategy, c.plan.Spec, c.plan.Rule = chosen, spec, RuleByCaller
	}
	c.mode = c.plan.RegionMode
	if req.RegionMode != strategy.RegionDefault && req.RegionMode != c.mode {
		if !c.policy.CallerMay("region_mode") {
			return &OverrideError{Field: "/region_mode"}
		}
		c.mode = req.RegionMode
	}
	switch {
	case len(req.Exclude) > 0 && !c.policy.CallerMay("exclude"):
		return &OverrideError{Field: "/exclude"}
	case len(req.Labels) > 0 && !c.policy.CallerMay("labels"):
		return &OverrideError{Field: "/labels"}
	case req.Explain && !c.policy.CallerMay("explain"):
		return &OverrideError{Field: "/explain"}
	case req.TTL < 0 || req.TTL > r.maxTTL:
		return &strict.InvalidError{Faults: []strict.Fault{{Pointer: "/ttl_seconds", Reason: fmt.Sprintf("must be 1 to %d, the longest that decisions.max_reservation_ttl lets a reservation last", int64(r.maxTTL/time.Second))}}}
	}
	if req.Region == "" && c.mode == strategy.RegionRequire {
		return &strict.InvalidError{Faults: []strict.Fault{{Pointer: "/region", Reason: "is required: the policy serves this model type only in the region that a request names"}}}
	}
	if req.Region != "" {
		if c.region = c.canonicalRegion(req.Region); c.region == "" && c.mode == strategy.RegionRequire {
			e := &NoHeadError{Failure: FailRegion, ModelType: c.pool.ModelType, Region: req.Region}
			e.stray = c.snapshot.Regions[req.Region] == 0
			return r.fail(e, model, req.Region, c)
		}
	}
	c.set, c.hit = r.cache.get(criteria{
		model: c.pool.ModelType, region: c.region, mode: c.mode, labels: encodeLabels(req.Labels),
	}, c.pool, c.policy)
	r.metrics.candidates.count(c.hit)
	return nil
}

// canonicalRegion returns the region in the memory of the snapshot or the
// policy, or "" if neither knows it.
func (c *choice) canonicalRegion(region string) string {
	if g := c.pool.Regions[region]; g != nil {
		return g.Region
	}
	return c.policy.Region(region)
}

// note counts the decision and keeps it among the recent ones.
func (r *Router) note(set *candidates, d *Decision, s *scratch) {
	if s.in.Keyless {
		r.metrics.keyless.Inc()
	}
	if s.in.Lookup != strategy.NotLooked {
		r.metrics.sessions.count(s.in.Lookup == strategy.Found)
		r.sessions.Remember(s.in.SessionHash, d.Head)
	}
	d.stats = r.metrics.decided(set, d)
	if old := r.recent.add(d); old != nil && old.end.Load() == nil {
		r.finish(old, &evicted)
	}
	r.metrics.duration.observe(r.since(s.in.Now))
}

// refuse finds out why none of the candidates could be taken.
func (r *Router) refuse(req *strategy.Request, c *choice) error {
	e := &NoHeadError{ModelType: c.pool.ModelType, Region: req.Region, Counts: map[string]int{}}
	if req.Explain {
		e.Explanation = c.explanation
	}
	want := req.Labels
	for _, h := range c.pool.All.Heads {
		e.Counts[c.filter(h, want, req)]++
	}
	// The last filter that removed a head is the one nearest to letting the
	// request through.
	for _, f := range []struct {
		filter  string
		failure Failure
	}{
		{FilterCapacity, FailAtCapacity},
		{FilterExclude, FailExcluded},
		{FilterLabels, FailLabels},
		{string(fleet.RefusedStatus), FailUnroutable},
		{string(fleet.RefusedUnhealthy), FailUnroutable},
		{string(fleet.RefusedAdmin), FailUnroutable},
		{FilterRegion, FailRegion},
	} {
		if e.Counts[f.filter] > 0 {
			e.Failure = f.failure
			break
		}
	}
	if e.Failure == "" { // a place came free between the choice and this look
		e.Failure = FailAtCapacity
	}
	return r.fail(e, c.pool.ModelType, c.region, c)
}

// fail counts a decision that found no head.
func (r *Router) fail(e *NoHeadError, model, region string, c *choice) error {
	e.RetryAfter = retryAfter
	if c.pool == nil && !c.policy.NamesModel(model) {
		model = ""
	}
	if region != "" && c.snapshot.Regions[region] == 0 && c.policy.Region(region) == "" {
		region = ""
	}
	reason := e.Failure
	if e.stray {
		reason = failUnknownRegion
	}
	r.metrics.failed(reason, model, region)
	d := &Decision{
		Failure: e.Failure, Strategy: strategyNone, ModelType: strings.Clone(e.ModelType), Region: strings.Clone(e.Region),
		PolicyRevision: c.policy.Revision, Rule: int32(c.plan.Rule), At: r.now(), nonce: r.random(),
	}
	r.failed.add(d, r.recent.sequence.Load())
	if c.explanation == nil { // there was nothing to choose from
		c.explanation = &Explanation{
			PolicyRevision: c.policy.Revision, SnapshotRevision: c.snapshot.Revision, Rule: c.plan.Rule,
			Strategy: strategyNone, Region: d.Region, RegionMode: c.mode,
		}
	}
	r.explained.keep(d, c.explanation)
	return e
}

func (r *Router) random() uint64 {
	if r.seed == 0 {
		return rand.Uint64()
	}
	return strategy.Mix(r.seed, r.seeded.Add(1))
}

// Decision returns a recent decision, also one that found no head, or
// ErrDecisionNotFound.
func (r *Router) Decision(id string) (*Decision, error) {
	number, nonce, ok := parseID(id)
	if d := r.failed.find(number&^failedBit, nonce); ok && number&failedBit != 0 && d != nil {
		return d, nil
	}
	return r.made(id)
}

// made returns a recent decision that found a head, or ErrDecisionNotFound.
func (r *Router) made(id string) (*Decision, error) {
	if number, nonce, ok := parseID(id); ok {
		if d := r.recent.find(number, nonce); d != nil {
			return d, nil
		}
	}
	return nil, ErrDecisionNotFound
}

// Recent returns the recent decisions that q selects, newest first, those that
// found no head among them.
func (r *Router) Recent(q RecentQuery) []*Decision {
	return merge(r.recent.recent(q), r.failed.recent(q), q.Limit)
}

// FirstToken notes that the head began to answer, at the first call for a
// decision, which reinstates an ejected head whose trial this is. Each call renews
// the reservation by the time that it was made for.
func (r *Router) FirstToken(id string) error {
	d, err := r.made(id)
	if err != nil {
		return err
	}
	now := r.now()
	if d.firstToken.CompareAndSwap(0, max(int64(now.Sub(d.At)), 1)) && d.Trial {
		d.Head.TrialAnswers()
	}
	d.renew(now.Add(d.ttl))
	return nil
}

// Finish ends a decision's reservation with what the caller reports. Only the
// first outcome counts, also when it comes after the reservation's time.
func (r *Router) Finish(id string, o Outcome) error {
	d, err := r.made(id)
	if err != nil {
		return err
	}
	r.End(d, o)
	return nil
}

// End is Finish for a caller that still holds the decision.
func (r *Router) End(d *Decision, o Outcome) {
	o.At = r.now()
	r.finish(d, &o)
}

// Open is the number of reservations that have not ended.
func (r *Router) Open() int64 { return r.recent.open.Load() }

// Policy is the current policy.
func (r *Router) Policy() *policy.Policy { return r.policy.Load() }

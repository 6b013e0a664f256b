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
	"headway/internal/strict"
)

// Options are what a Router is made of.
type Options struct {
	Fleet          Fleet                 // required
	Events         *event.Stream         // required
	Metrics        prometheus.Registerer // required
	Log            *slog.Logger          // required
	Policies       PolicyStore           // nil: policies live as long as the process
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
	sessions  *sessionTable
	recent    *reservations
	failed    failed
	explained explained
	scratch   sync.Pool
	policy    atomic.Pointer[Policy]

	mu       sync.Mutex // one policy change at a time
	policies PolicyStore
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
		share: o.ExplainShare, seed: o.Seed, sessions: newSessionTable(), policies: o.Policies, begin: o.Begin,
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
	policy, faults := Compile(DefaultDocument())
	if len(faults) > 0 {
		return nil, fmt.Errorf("routing: the default policy: %w", &strict.InvalidError{Faults: faults})
	}
	r.policy.Store(policy)
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
	var end *Outcome // shared by all that end now
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
// is shared, since a decision may allocate only itself.
var evicted = Outcome{Result: ResultEvicted}

// scratch is the memory of one Decide that does not leave it.
type scratch struct {
	in    Input
	picks [1 + MaxAlternatives]Pick
}

// choice is what a decision knows before it chooses.
type choice struct {
	policy   *Policy
	snapshot *fleet.Snapshot
	pool     *fleet.Pool
	plan     plan
	mode     RegionMode
	region   string // canonical, "" when none was named or nobody knows it
	set      *candidates
	hit      bool

	explanation *Explanation // nil: there is none so far
}

// Decide chooses a head for the request and reserves a place there. The errors
// are *NoHeadError, *OverrideError and *strict.InvalidError.
func (r *Router) Decide(req *Request) (*Decision, error) {
	now := r.now()
	c := choice{policy: r.policy.Load(), snapshot: r.fleet.Snapshot()}
	if err := r.resolve(req, &c); err != nil {
		return nil, err
	}
	s, _ := r.scratch.Get().(*scratch)
	in := &s.in
	in.Request, in.ModelType, in.Now, in.At = req, c.pool.ModelType, now, 0
	in.Tiers, in.last = c.set.tiers[:c.set.usual], c.set.tiers[c.set.usual:]
	in.clock, in.resort, in.passed, in.keyless = fleet.Clock(now), false, false, false
	in.Rand = NewRand(r.random())
	in.sessions, in.session, in.lookup = r.sessions, sessionHash(req.SessionKey, c.pool.ModelType), notLooked
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
	in.Request, in.Tiers, in.last = nil, nil, nil
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
func (r *Router) resolve(req *Request, c *choice) error {
	model := c.policy.model(req.ModelType)
	c.pool = c.snapshot.Pools[model]
	if c.pool == nil {
		no := &NoHeadError{Failure: FailNoHeads, ModelType: model, Region: req.Region}
		if !c.policy.namesModel(model) {
			no.Failure, no.Nearest = FailUnknownModel, nearestModel(model, c.policy, c.snapshot)
		}
		return r.fail(no, model, req.Region, c)
	}
	c.plan = c.policy.plan(model, req.Region)
	if req.Strategy != "" {
		if !c.policy.callerMay("strategy") {
			return &OverrideError{Field: "/strategy"}
		}
		strategy, spec, ok := c.policy.named(req.Strategy)
		if !ok {
			return &strict.InvalidError{Faults: []strict.Fault{{Pointer: "/strategy", Reason: unknownStrategy(req.Strategy)}}}
		}
		c.plan.strategy, c.plan.spec, c.plan.rule = strategy, spec, RuleByCaller
	}
	c.mode = c.plan.regionMode
	if req.RegionMode != RegionDefault && req.RegionMode != c.mode {
		if !c.policy.callerMay("region_mode") {
			return &OverrideError{Field: "/region_mode"}
		}
		c.mode = req.RegionMode
	}
	switch {
	case len(req.Exclude) > 0 && !c.policy.callerMay("exclude"):
		return &OverrideError{Field: "/exclude"}
	case len(req.Labels) > 0 && !c.policy.callerMay("labels"):
		return &OverrideError{Field: "/labels"}
	case req.Explain && !c.policy.callerMay("explain"):
		return &OverrideError{Field: "/explain"}
	case req.TTL < 0 || req.TTL > r.maxTTL:
		return &strict.InvalidError{Faults: []strict.Fault{{Pointer: "/ttl_seconds", Reason: fmt.Sprintf("must be 1 to %d, the longest that decisions.max_reservation_ttl lets a reservation last", int64(r.maxTTL/time.Second))}}}
	}
	if req.Region == "" && c.mode == RegionRequire {
		return &strict.InvalidError{Faults: []strict.Fault{{Pointer: "/region", Reason: "is required: the policy serves this model type only in the region that a request names"}}}
	}
	if req.Region != "" {
		if c.region = c.canonicalRegion(req.Region); c.region == "" && c.mode == RegionRequire {
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
	return c.policy.region(region)
}

// note counts the decision and keeps it among the recent ones.
func (r *Router) note(set *candidates, d *Decision, s *scratch) {
	if s.in.keyless {
		r.metrics.keyless.Inc()
	}
	if s.in.lookup != notLooked {
		r.metrics.sessions.count(s.in.lookup == found)
		r.sessions.remember(s.in.session, d.Head)
	}
	d.stats = r.metrics.decided(set, d)
	if old := r.recent.add(d); old != nil && old.end.Load() == nil {
		r.finish(old, &evicted)
	}
	r.metrics.duration.observe(r.since(s.in.Now))
}

// refuse finds out why none of the candidates could be taken.
func (r *Router) refuse(req *Request, c *choice) error {
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
	if c.pool == nil && !c.policy.namesModel(model) {
		model = ""
	}
	if region != "" && c.snapshot.Regions[region] == 0 && c.policy.region(region) == "" {
		region = ""
	}
	reason := e.Failure
	if e.stray {
		reason = failUnknownRegion
	}
	r.metrics.failed(reason, model, region)
	d := &Decision{
		Failure: e.Failure, Strategy: strategyNone, ModelType: strings.Clone(e.ModelType), Region: strings.Clone(e.Region),
		PolicyRevision: c.policy.Revision, Rule: int32(c.plan.rule), At: r.now(), nonce: r.random(),
	}
	r.failed.add(d, r.recent.sequence.Load())
	if c.explanation == nil { // there was nothing to choose from
		c.explanation = &Explanation{
			PolicyRevision: c.policy.Revision, SnapshotRevision: c.snapshot.Revision, Rule: c.plan.rule,
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
	return Mix(r.seed, r.seeded.Add(1))
}

// sessionHash is FNV-1a over the model and the key, 0 for no key; a blank one is
// none, or all who send it would share a session. It is the
// same on every instance, so that instances agree on a session's head.
func sessionHash(key, model string) uint64 {
	if strings.TrimSpace(key) == "" {
		return 0
	}
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(model) {
		h = (h ^ uint64(model[i])) * prime
	}
	h *= prime
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * prime
	}
	return max(Mix(h, 0), 1)
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
func (r *Router) Policy() *Policy { return r.policy.Load() }

package routing

import (
	"cmp"
	"context"
	crand "crypto/rand"
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
	Policies       policy.Store          // required
	Audit          audit.Recorder        // nil: audit.Unrecorded
	Now            func() time.Time      // nil: time.Now
	Seed           uint64                // of all randomness; 0: random
	ReservationTTL time.Duration         // of requests that ask for none; 0: 2 minutes
	MaxTTL         time.Duration         // the longest that a request may ask for, at least ReservationTTL; 0: an hour
	ExplainShare   float64               // of decisions whose explanation is kept without being asked for, 0 to 1
	Recent         int                   // decisions kept, rounded up to a power of two; 0: 65,536
	Memory         *strategy.Known       // nil: one with a secret of its own
	Watchers       []Watcher             // of what placements lead to
	Freed          func(*fleet.Head)     // called with the head of each place that is given back; it must not block; nil: none
}

// Fleet is where the router reads heads. Snapshot is safe for concurrent use, cheap,
// and returns an immutable value.
type Fleet interface {
	Snapshot() *fleet.Snapshot
}

// retryAfter is how long a caller that found no head should wait: about as long
// as a head takes to come back with its next report.
const retryAfter = time.Second

// Router decides. All methods are safe for concurrent use.
type Router struct {
	o         Options // complete
	since     func(time.Time) time.Duration
	seeded    atomic.Uint64
	metrics   *metrics
	cache     *candidateCache
	memory    strategy.Memory
	recent    *reservations
	failures  failures
	explained explained
	pools     pools
	departed  departed
	sampler   sampler
	shadowed  atomic.Bool // some decision was compared with those of others
	scratch   sync.Pool
	policy    atomic.Pointer[policy.Policy]
	mu        sync.Mutex // one policy change at a time
}

// New makes a router that decides by the default policy.
func New(o Options) (*Router, error) {
	switch {
	case o.Fleet == nil || o.Policies == nil || o.Events == nil || o.Metrics == nil || o.Log == nil:
		return nil, errors.New("routing: Fleet, Policies, Events, Metrics and Log are required")
	case o.ReservationTTL < 0 || o.MaxTTL < 0 || o.Recent < 0 || o.Recent > 1<<26:
		return nil, errors.New("routing: ReservationTTL, MaxTTL and Recent must not be negative, Recent at most 2^26")
	}
	since := func(t time.Time) time.Duration { return o.Now().Sub(t) }
	if o.Now == nil {
		o.Now, since = time.Now, time.Since // Since reads one clock, Now two
	}
	if o.Audit == nil {
		o.Audit = audit.Unrecorded{}
	}
	o.ReservationTTL = cmp.Or(o.ReservationTTL, 2*time.Minute)
	o.MaxTTL = max(cmp.Or(o.MaxTTL, time.Hour), o.ReservationTTL)
	if o.Memory == nil {
		var secret [16]byte
		_, _ = crand.Read(secret[:]) // it never fails
		o.Memory = strategy.NewKnown(strategy.KnownOptions{Secret: secret})
	}
	r := &Router{
		o: o, since: since, memory: o.Memory,
		recent: newReservations(cmp.Or(o.Recent, 1<<16)), failures: failures{ring: newRing(maxFailures)},
	}
	r.cache = newCandidateCache(r.random)
	r.scratch.New = func() any { return new(scratch) }
	r.sampler.pool.New = func() any { return new(Sample) }
	r.sampler.period(o.Now())
	r.policy.Store(policy.Default())
	r.metrics = newMetrics(o.Metrics, r, o.Memory.Sessions)
	return r, nil
}

// Run takes over the policies that other processes store, ends reservations whose
// time ran out and forgets candidates that are no longer current, until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	beside.Go(func() { r.follow(ctx) })
	tick := time.NewTicker(expiryTick)
	defer tick.Stop()
	asked, doubted, looked := pauses{}, distrusted{}, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.Expire()
			s, now := r.o.Fleet.Snapshot(), r.o.Now()
			r.cache.forget(s, r.policy.Load())
			r.departed.look(s, now)
			if now.Sub(looked) >= time.Second {
				asked.look(s.Sorted(), now, r.o.Log)
				r.o.Memory.Keep(s.Of)
				doubted.look(r.o.Memory.Paces(), r.o.Log)
				looked = now
			}
		}
	}
}

// Expire ends reservations whose time ran out, unless their head reports that as
// many requests as are counted there still run: no place is given twice. Run calls
// it; a simulation with its own clock calls it itself, from one goroutine.
func (r *Router) Expire() {
	now := r.o.Now()
	r.sampler.period(now)
	var end *Outcome // shared by all that end now
	r.recent.expire(now, func(d *Decision) {
		if now.Before(d.At.Add(r.o.MaxTTL)) && d.Head.Live.Runs(now) {
			d.renew(now.Add(max(d.lifetime()/8, expiryTick)))
			r.metrics.kept.Inc()
			return
		}
		if end == nil {
			end = &Outcome{Result: ResultExpired, At: now}
		}
		r.finish(d, end)
	})
}

// evicted ends every reservation that made room for a newer one. It is shared,
// since a decision may allocate only itself.
var evicted = Outcome{Result: ResultEvicted}

// choice is what a decision knows before it chooses.
type choice struct {
	policy    *policy.Policy
	snapshot  *fleet.Snapshot
	rehearsed bool // nothing is reserved, counted or remembered
	origin
	pool     *fleet.Pool
	plan     policy.Plan
	criteria // region is "" when none was named or no head and no policy knows it
	set      *candidates
	hit      bool
	closed   bool      // as many places of the pool are taken as the policy allows
	paused   time.Time // when the first candidate is back, if each asked for a pause
	late     late

	explanation *Explanation // nil: there is none so far
}

// Decide chooses a head for the request and reserves a place there. The errors
// are *NoHeadError, *OverrideError and *strict.InvalidError.
func (r *Router) Decide(req *strategy.Request) (*Decision, error) { return r.decide(req, origin{}) }

// DecideLast is Decide for a request that has waited for a place for as long as it
// may: that is the failure, if it still lacks one.
func (r *Router) DecideLast(req *strategy.Request) (*Decision, error) {
	return r.decide(req, origin{ended: FailQueueTimeout})
}

// decide is Decide, or the next attempt after another.
func (r *Router) decide(req *strategy.Request, of origin) (*Decision, error) {
	of.queued, of.source = req.Queued, req.Source
	c := choice{policy: r.policy.Load(), snapshot: r.o.Fleet.Snapshot(), origin: of}
	d, err := r.choose(&c, req)
	none, ok := err.(*NoHeadError) //nolint:errorlint // it comes as it is
	if !ok {
		return d, err
	}
	if d := r.fallBack(&c, req, none); d != nil {
		return d, nil
	}
	if none.RetryAfter = none.again(); !req.Waits {
		r.recordFailure(none, &c, req.Caller)
	}
	return nil, none
}

// PausedUntil is when the first of the heads takes requests again that the request
// may go to and that asked for a pause; zero: none asked.
func (r *Router) PausedUntil(req *strategy.Request) (least time.Time) {
	c := choice{policy: r.policy.Load(), snapshot: r.o.Fleet.Snapshot(), rehearsed: true}
	if c.resolve(r, req) != nil {
		return least
	}
	now := r.o.Now()
	set, _ := r.cache.get(c.criteria, req.Labels, c.pool, c.policy)
	for tier := range set.allTiers() {
		for _, h := range tier.Heads {
			least = sooner(least, h.Live.AwayUntil(now))
		}
	}
	return least
}

// sooner is the earlier of two times, of which zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// choose is one decision for the model type and the region of the request, and for
// no other.
func (r *Router) choose(c *choice, req *strategy.Request) (*Decision, error) {
	now := r.o.Now()
	if err := c.resolve(r, req); err != nil {
		return nil, err
	}
	c.set, c.hit = r.cache.get(c.criteria, req.Labels, c.pool, c.policy)
	r.metrics.candidates.count(c.hit)
	s, _ := r.scratch.Get().(*scratch)
	s.begin(c, req, now, r.random(), r.memory, strategy.SessionHash(req.SessionKey, c.pool.ModelType))
	if req.Explain || r.o.ExplainShare > 0 && s.in.Rand.Float64() < r.o.ExplainShare && r.affords(c, now) {
		c.explanation = r.explain(c, &s.in)
	}
	if req.InputTokens > 0 || len(req.PrefixHashes) > 0 {
		s.in.RecallPrompt() // for each strategy the work counts
	}
	sample := r.sample(c, s)
	var d *Decision
	if c.late = c.refuses(s); c.late == (late{}) {
		d = r.take(c, s)
	}
	full := d == nil && c.late == (late{}) && (c.closed || s.mayServe())
	if full && req.SkipAway && !c.closed {
		c.paused = s.paused()
	}
	if d != nil {
		if sample != nil {
			d.marks |= sampled
		}
		r.note(c, d, s)
	} else if c.explanation == nil && !req.Waits && r.affords(c, now) {
		c.explanation = r.explain(c, &s.in)
	}
	switch {
	case c.closed:
		c.explanation.close(filterPool)
	case c.late != late{}:
		c.explanation.close(filterObjective)
	}
	r.watched(sample, d, c, s)
	clear(s.picks[:])
	s.in.Request, s.in.Exclude, s.in.Tiers, s.last = nil, nil, nil, nil
	r.scratch.Put(s)
	switch {
	case d != nil:
		return d, nil
	case full && req.Waits: // it comes again and again
		return nil, c.busy(req, c.closed)
	}
	return nil, c.refuse(req)
}

// affords reports whether an explanation that was not asked for may be written.
func (r *Router) affords(c *choice, now time.Time) bool {
	return r.explained.affords(len(c.pool.All.Heads), now)
}

// resolve finds the pool, the plan and the criteria of a request.
func (c *choice) resolve(r *Router, req *strategy.Request) error {
	model := c.policy.Model(req.ModelType)
	c.pool = c.snapshot.Pools[model]
	if c.pool == nil {
		none := &NoHeadError{Failure: FailNoHeads, ModelType: model, Region: req.Region}
		if !c.policy.NamesModel(model) && !r.departed.served(model, r.o.Now()) {
			none.Failure, none.Nearest = FailUnknownModel, nearestModel(model, c.policy, c.snapshot)
		}
		return none
	}
	c.plan = c.policy.Plan(model, req.Region)
	if model != req.ModelType && c.fallback == nil {
		c.asked = strings.Clone(req.ModelType)
	}
	c.model, c.mode, c.labels = c.pool.ModelType, cmp.Or(req.RegionMode, c.plan.RegionMode), encodeLabels(req.Labels)
	if err := c.override(req); err != nil {
		return err
	}
	if s, ok := c.plan.Strategy.(strategy.Resident); ok && s.Stays(c.model, req.Region) {
		c.mode = strategy.RegionRequire
	}
	switch {
	case req.TTL < 0 || req.TTL > r.o.MaxTTL:
		return invalid("/ttl_seconds", "must be 1 to %d, the longest that decisions.max_reservation_ttl lets a reservation last", int64(r.o.MaxTTL/time.Second))
	case req.Region == "" && c.mode == strategy.RegionRequire:
		return invalid("/region", "is required: the policy serves this model type only in the region that a request names")
	}
	if req.Region != "" {
		if c.region = c.canonicalRegion(req.Region); c.region == "" && c.mode == strategy.RegionRequire {
			return &NoHeadError{Failure: FailRegion, ModelType: c.model, Region: req.Region, Required: true, Stray: c.snapshot.Regions[req.Region] == 0}
		}
	}
	return nil
}

// override checks what the request chooses itself, and takes its strategy.
func (c *choice) override(req *strategy.Request) error {
	reserved := ""
	switch may := c.policy.CallerMay; {
	case req.Strategy != "" && !may("strategy"):
		reserved = "/strategy"
	case c.mode != c.plan.RegionMode && !may("region_mode"):
		reserved = "/region_mode"
	case len(req.Exclude) > 0 && !may("exclude"):
		reserved = "/exclude"
	case len(req.Labels) > 0 && !may("labels"):
		reserved = "/labels"
	case req.Explain && !req.Reads && !may("explain"):
		reserved = "/explain"
	}
	if reserved != "" {
		return &OverrideError{Field: reserved}
	}
	if req.Strategy == "" {
		return nil
	}
	named, ok := c.policy.Named(req.Strategy)
	if !ok {
		return invalid("/strategy", "%s", policy.UnknownStrategy(req.Strategy))
	}
	c.plan.Instance, c.plan.Rule = named, RuleByCaller
	return nil
}

func invalid(pointer, format string, args ...any) error {
	return &strict.InvalidError{Faults: []strict.Fault{{Pointer: pointer, Reason: fmt.Sprintf(format, args...)}}}
}

// canonicalRegion is the region as the snapshot or the policy has it in memory, ""
// if neither knows it.
func (c *choice) canonicalRegion(region string) string {
	if g := c.pool.Regions[region]; g != nil {
		return g.Region
	}
	return c.policy.Region(region)
}

// note counts the decision, keeps it among the recent ones and remembers it.
func (r *Router) note(c *choice, d *Decision, s *scratch) {
	if c.explanation != nil {
		c.explanation.finish(d.Head.ID, d.Trial)
		r.explained.keep(d, c.explanation)
	}
	if d.Astray {
		r.metrics.astray.Inc()
	}
	if s.in.Keyless {
		r.metrics.keyless.Inc()
	}
	if s.in.Recalled.Asked {
		r.metrics.sessions.count(s.in.Recalled.Found)
	}
	r.memory.Placed(&s.in, d.Head, d.work)
	d.stats = r.metrics.decided(c.set, d)
	if old := r.recent.add(d); old != nil && old.end.Load() == nil && !old.held() {
		r.finish(old, &evicted)
	}
	r.metrics.duration.observe(r.since(s.in.Now))
}

func (r *Router) random() uint64 {
	if r.o.Seed == 0 {
		return rand.Uint64()
	}
	return strategy.Mix(r.o.Seed, r.seeded.Add(1))
}

// FirstToken notes that the head began to answer, at the first call for a decision;
// it reinstates an ejected head whose trial this is. Each call renews the
// reservation by the time that it was made for. For a held one it does nothing.
func (r *Router) FirstToken(id string) error {
	d, err := r.made(id)
	if err != nil || d.held() {
		return err
	}
	d.renew(r.Begun(d).Add(d.lifetime()))
	return nil
}

// Begun is FirstToken for the caller that holds the decision. It returns the time.
func (r *Router) Begun(d *Decision) time.Time { return r.begun(d, d.work, false) }

// Answered is Begun where the whole answer came at once: how long the head took for the
// prompt is not known then.
func (r *Router) Answered(d *Decision) time.Time {
	return r.begun(d, fleet.Work{}, true)
}

func (r *Router) begun(d *Decision, learned fleet.Work, whole bool) time.Time {
	now := r.o.Now()
	after := max(now.Sub(d.At), 1)
	if pending, first := d.begins(after); first {
		d.Head.Live.Answers(pending, whole)
		if !whole {
			d.Head.Live.Began(d.At)
		}
		r.memory.FirstToken(d.Head, d.ModelType, learned, after, now)
		if d.Trial {
			d.Head.Outcomes.TrialAnswers(d.Head)
		}
	}
	return now
}

// Finish ends a decision's reservation with what the caller reports. The first
// outcome counts, also after the reservation's time. A held one does not end.
func (r *Router) Finish(id string, o Outcome) error {
	d, err := r.made(id)
	if err != nil || d.held() {
		return err
	}
	r.End(d, o)
	return nil
}

// End is Finish for a caller that still holds the decision, and ends a held one.
func (r *Router) End(d *Decision, o Outcome) {
	o.At = r.o.Now()
	r.finish(d, &o)
}

// Open is the number of reservations that have not ended.
func (r *Router) Open() int64 { return r.recent.open.Load() }

// Policy is the current policy.
func (r *Router) Policy() *policy.Policy { return r.policy.Load() }

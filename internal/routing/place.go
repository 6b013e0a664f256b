package routing

import (
	"cmp"
	"math"
	"slices"
	"time"

	"headway/internal/fleet"
	"headway/internal/strategy"
)

// attempts is how often a tier is chosen from when others took the last place of
// each head that was chosen.
const attempts = 3

// scratch is the memory of one decision that does not leave it.
type scratch struct {
	in      strategy.Input
	last    []strategy.Tier // the last resort: tiers of ejected heads
	session uint64
	work    fleet.Work // of the place that was taken; what is known of the pool may change meanwhile
	picks   [1 + strategy.MaxAlternatives]strategy.Pick
	more    [strategy.MaxAlternatives]strategy.Pick
}

// begin prepares for the choice among the candidates of c.
func (s *scratch) begin(c *choice, req *strategy.Request, now time.Time, seed uint64, m strategy.Memory, session uint64) {
	s.session = session
	s.in.Begin(req, c.pool.ModelType, now, seed, m, session)
	if c.before != nil {
		s.in.Exclude = c.before.leaveOut(req.Exclude)
	}
	s.in.Tiers, s.last = c.set.tiers, c.set.last
}

// place goes through the tiers until the strategy chooses a head that has a place,
// and takes that, but not in a rehearsal. It returns which of how many picks the
// head is; of 0 if none was found.
func (r *Router) place(c *choice, s *scratch) (pick, picks int) {
	in, across := &s.in, c.plan.Spec.AcrossRegions
	for in.At = -1; s.nextTier(across); {
		spills := c.region != "" && !across && in.Tier().Region != c.region
		if spills && !c.rehearsed && c.explanation == nil && r.affords(c, in.Now) {
			c.explanation = r.explain(c, in)
		}
		for range attempts {
			n := c.plan.Strategy.Choose(in, s.picks[:])
			if n == 0 {
				break
			}
			for i := range n {
				h := s.picks[i].Head
				s.work = in.Work(h)
				if c.rehearsed || h.Live.TryAcquire(h.MaxInFlight, s.work) {
					return i, n
				}
			}
			in.Reweigh()
		}
	}
	return 0, 0
}

// nextTier moves on to the next tier to choose from; a strategy across regions
// chooses from all of them at the first. When no tier has another head, those that
// report that they are full follow. Ejected ones follow only if no other head may
// serve the request: one at max_in_flight has a place soon, a broken head fails.
func (s *scratch) nextTier(across bool) bool {
	in := &s.in
	in.At++
	for in.At >= len(in.Tiers) || across && in.At > 0 {
		switch {
		case !in.FullOnly && in.Passed:
			in.FullOnly = true
		case len(s.last) > 0 && !s.mayServe():
			in.Tiers, s.last, in.FullOnly, in.Passed = s.last, nil, false, false
		default:
			return false
		}
		in.At = 0
	}
	return true
}

// mayServe reports whether some head of the tiers may serve the request, with or
// without a free place.
func (s *scratch) mayServe() bool {
	in := &s.in
	for i := range in.Tiers {
		for _, h := range in.Tiers[i].Heads {
			if !in.Excluded(h) {
				return true
			}
		}
	}
	return false
}

// paused is when the first of the heads that may serve the request takes requests
// again, if each asked for a pause; else it is zero.
func (s *scratch) paused() (least time.Time) {
	in := &s.in
	for i := range in.Tiers {
		for _, h := range in.Tiers[i].Heads {
			if in.Excluded(h) {
				continue
			}
			until := h.Live.AwayUntil(in.Now)
			if until.IsZero() {
				return until
			}
			least = sooner(least, until)
		}
	}
	return least
}

// decision is that pick i of n was taken.
func (r *Router) decision(c *choice, s *scratch, i, n int) *Decision {
	in := &s.in
	tier, across := in.Tier(), c.plan.Spec.AcrossRegions
	away := c.region != "" && s.picks[i].Head.Region != c.region
	d := &Decision{
		Head: s.picks[i].Head, Cost: s.picks[i].Cost,
		Strategy: c.plan.Spec.Name, ModelType: c.pool.ModelType, Region: c.region,
		PolicyRevision: c.policy.Revision, Rule: int32(c.plan.Rule),
		At: in.Now, ttl: milliseconds(cmp.Or(in.Request.TTL, r.o.ReservationTTL)), caller: in.Request.Caller,
		work: s.work, predicted: float32(in.Predict(s.picks[i].Head, s.work)),
		Distance: tier.Distance, Candidates: c.compared(in),
		Spilled: away && !across, Cheaper: away && across, Astray: c.region == "" && in.Request.Region != "",
		Sticky: in.Recalled.Head == s.picks[i].Head,
		nonce:  in.Rand.Uint64(),
	}
	if c.region != "" && tier.Region != d.Head.Region {
		d.Distance = c.policy.Distance(c.region, d.Head.Region)
	}
	if c.origin != (origin{}) {
		of := c.origin
		d.origin = &of
	}
	if c.before != nil && !c.hedges {
		d.nonce = c.before.nonce
	}
	if in.Request.Held {
		d.ttl = 0
	}
	d.lasts.Store(int64(d.lifetime()))
	for j := range n {
		if j != i {
			d.alternatives[d.n] = s.picks[j]
			d.n++
		}
	}
	c.fillAlternatives(d, s)
	return d
}

// milliseconds is the lifetime of a reservation, at least one.
func milliseconds(d time.Duration) int32 { return int32(max(d/time.Millisecond, 1)) }

// compared is how many heads the strategy had to choose from.
func (c *choice) compared(in *strategy.Input) int32 {
	tiers := in.Tiers[in.At : in.At+1]
	if c.plan.Spec.AcrossRegions {
		tiers = in.Tiers
	}
	n := 0
	for i := range tiers {
		n += len(tiers[i].Heads)
		if len(in.Exclude) > 0 {
			for _, h := range tiers[i].Heads {
				if in.Excluded(h) {
					n--
				}
			}
		}
	}
	return int32(min(n, math.MaxInt32))
}

// fillAlternatives adds heads of farther tiers if the chosen one has too few: a
// caller whose head fails needs another.
func (c *choice) fillAlternatives(d *Decision, s *scratch) {
	in := &s.in
	across := c.plan.Spec.AcrossRegions
	chosen, recalled := in.At, in.Recalled
	for in.At++; !across && in.At < len(in.Tiers) && d.n < strategy.MaxAlternatives; in.At++ {
		n := c.plan.Strategy.Choose(in, s.more[:])
		for _, p := range s.more[:n] {
			if d.n < strategy.MaxAlternatives && !d.names(p.Head) {
				d.alternatives[d.n] = p
				d.n++
			}
		}
	}
	if !in.FullOnly && in.Passed { // last of all those that report that they are full, in no order
		in.FullOnly = true
		for i := range in.Tiers {
			d.n = uint8(strategy.Fill(in, in.Tiers[i].Heads, d.alternatives[:], int(d.n)))
		}
	}
	in.At, in.Recalled = chosen, recalled
}

// names reports whether the decision has the head, chosen or as an alternative.
func (d *Decision) names(h *fleet.Head) bool {
	return d.Head == h || slices.ContainsFunc(d.Alternatives(), func(p strategy.Pick) bool { return p.Head == h })
}

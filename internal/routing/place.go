package routing

import (
	"cmp"
	"math"

	"headway/internal/fleet"
	"headway/internal/strategy"
)

// attempts is how often a decision chooses again when others took the last
// place of each head that it chose.
const attempts = 3

// reserve goes through the tiers until a head of one has a place. An ejected
// head whose trial is due comes first.
func (r *Router) reserve(c *choice, s *scratch) (d *Decision) {
	if len(c.set.trials) > 0 {
		if d = r.tryEjected(c, s); d != nil {
			return d
		}
	}
	across := c.plan.Spec.AcrossRegions
	s.eachTier(across, func() bool {
		spills := c.region != "" && !across && s.in.Tier().Region != c.region
		if spills && c.explanation == nil && r.affords(c, s.in.Now) {
			c.explanation = r.explain(c, &s.in)
		}
		for range attempts {
			n := c.plan.Strategy.Choose(&s.in, s.picks[:])
			if n == 0 {
				break
			}
			for i := range n {
				h := s.picks[i].Head
				if h.Live.TryAcquire(h.MaxInFlight) {
					d = r.decision(c, s, i, n)
					return true
				}
			}
		}
		return false
	})
	return d
}

// eachTier calls choose with each tier in turn, or once where a strategy looks
// at all of them, until it says true. Heads that are full by their own word are
// looked at when no tier has another. Ejected ones are where there is no other: a
// request for heads that are only at max_in_flight has a place soon, and fails at
// a head that is broken.
func (s *scratch) eachTier(across bool, choose func() bool) bool {
	in := &s.in
	for {
		for in.At = 0; in.At < len(in.Tiers); in.At++ {
			if choose() {
				return true
			}
			if across {
				break
			}
		}
		switch {
		case !in.Resort && in.Passed:
			in.Resort = true
		case len(s.last) > 0 && !s.mayServe():
			in.Tiers, s.last, in.Resort, in.Passed = s.last, nil, false, false
		default:
			return false
		}
	}
}

// mayServe reports whether some head of the tiers may serve the request, whether
// it has room or not.
func (s *scratch) mayServe() bool {
	in := &s.in
	for i := range in.Tiers {
		for _, h := range in.Tiers[i].Heads {
			if len(in.Request.Exclude) == 0 || !in.Excluded(h) {
				return true
			}
		}
	}
	return false
}

// decision writes down that pick i of n was taken.
func (r *Router) decision(c *choice, s *scratch, i, n int) *Decision {
	in := &s.in
	tier, across := in.Tier(), c.plan.Spec.AcrossRegions
	away := c.region != "" && s.picks[i].Head.Region != c.region
	d := &Decision{
		Head: s.picks[i].Head, Cost: s.picks[i].Cost,
		Strategy: c.plan.Spec.Name, ModelType: c.pool.ModelType, Region: c.region,
		PolicyRevision: c.policy.Revision, Rule: int32(c.plan.Rule),
		At: in.Now, ttl: cmp.Or(in.Request.TTL, r.ttl),
		Distance: tier.Distance, Candidates: c.compared(in),
		Spilled: away && !across, Cheaper: away && across, Astray: c.region == "" && in.Request.Region != "",
		Sticky: in.Lookup == strategy.Found && in.Held == s.picks[i].Head,
		nonce:  in.Rand.Uint64(),
	}
	if c.region != "" && tier.Region != d.Head.Region {
		d.Distance = c.policy.Distance(c.region, d.Head.Region)
	}
	d.lasts.Store(int64(d.ttl))
	for j := range n {
		if j != i {
			d.alternatives[d.n] = s.picks[j]
			d.n++
		}
	}
	c.fillAlternatives(d, s)
	return d
}

// compared is how many heads the strategy had to choose from.
func (c *choice) compared(in *strategy.Input) int32 {
	tiers := in.Tiers[in.At : in.At+1]
	if c.plan.Spec.AcrossRegions {
		tiers = in.Tiers
	}
	n := 0
	for i := range tiers {
		n += len(tiers[i].Heads)
		if len(in.Request.Exclude) > 0 {
			for _, h := range tiers[i].Heads {
				if in.Excluded(h) {
					n--
				}
			}
		}
	}
	return int32(min(n, math.MaxInt32))
}

// fillAlternatives adds heads of farther tiers where the chosen one has too
// few: a caller whose head fails must have somewhere to go.
func (c *choice) fillAlternatives(d *Decision, s *scratch) {
	in := &s.in
	across := c.plan.Spec.AcrossRegions
	chosen, lookup, remembered := in.At, in.Lookup, in.Held
	for in.At++; !across && in.At < len(in.Tiers) && d.n < strategy.MaxAlternatives; in.At++ {
		n := c.plan.Strategy.Choose(in, s.more[:])
		for _, p := range s.more[:n] {
			if d.n < strategy.MaxAlternatives && !d.names(p.Head) {
				d.alternatives[d.n] = p
				d.n++
			}
		}
	}
	if !in.Resort && in.Passed { // last of all those that are full by their own word, in no order
		in.Resort = true
		for i := range in.Tiers {
			d.n = uint8(strategy.Fill(in, in.Tiers[i].Heads, d.alternatives[:], int(d.n)))
		}
	}
	in.At, in.Lookup, in.Held = chosen, lookup, remembered // alternatives say nothing of the session
}

// names reports whether the decision has the head, chosen or as an alternative.
func (d *Decision) names(h *fleet.Head) bool {
	if d.Head == h {
		return true
	}
	for _, p := range d.Alternatives() {
		if p.Head == h {
			return true
		}
	}
	return false
}

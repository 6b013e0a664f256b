package routing

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"headway/internal/strategy"
)

// Watcher sees what placements lead to. Its methods are safe for concurrent use
// and must not block. They keep neither a Sample nor what it points to but heads.
type Watcher interface {
	// Sampled is called for a share of the decisions, with all that was compared:
	// for each up to a rate, and beyond that by chance.
	Sampled(s *Sample)
	// Ended is called for each end of a decision, once, and for a reported outcome
	// that comes late once more.
	Ended(d *Decision, o *Outcome, late bool)
	// Refused is called for each request of a model type that a strategy refused.
	Refused(by, modelType string, at time.Time)
}

// Sample is a decision with the heads that it had to choose from.
type Sample struct {
	Decision *Decision
	Share    float64   // of the decisions at that time that were sampled, above 0, at most 1
	Heads    []Seen    // of the tier that it chose from, as they were before
	Chosen   int       // index into Heads, -1: as a trial, or of another tier
	Best     int       // index of the least predicted time to the first token, -1: unknown
	Session  uint64    // hash of the session key, 0: none
	Blocks   []uint64  // keys of the prompt's blocks
	Tokens   float64   // of the prompt, as known or assumed
	Bytes    int64     // of the prompt's text, 0: unknown
	PerBlock int32     // tokens of each of Blocks; 0: they are those of prefix.Chain
	At       time.Time // of the decision
	Shadows  []Shadow  // what other strategies would have chosen; none for most samples

	seen    []Seen // of all tiers
	from    []int  // where those of each tier begin
	costs   []float64
	chances []float64
}

// Seen is a head as a decision saw it.
type Seen struct {
	strategy.Seen
	Cost   float64 // by the strategy, lower is better; NaN: not compared; +Inf: not available
	Chance float64 // that the strategy chooses it among those of its tier
}

// Regret is the predicted time to the first token at the chosen head less the least
// among the heads there were, in ms; NaN: unknown.
func (p *Sample) Regret() float64 {
	if p.Chosen < 0 || p.Best < 0 {
		return math.NaN()
	}
	return p.Heads[p.Chosen].Predicted - p.Heads[p.Best].Predicted
}

// sampledHeads bounds the heads a second that are looked at for samples, which take
// about two hundredths of a processor.
const sampledHeads = 20_000

// sampler says which decisions are sampled: each while there are few, else so many
// by chance that they look at sampledHeads a second.
type sampler struct {
	share  atomic.Uint64 // of decisions, as bits
	wanted atomic.Int64  // heads that the decisions of this period had to choose from
	began  time.Time     // when the period began
	pool   sync.Pool
}

// takes reports whether a decision among so many heads is sampled, and the share of
// those that are.
func (p *sampler) takes(heads int, chance float64) (share float64, ok bool) {
	const atOnce = sampledHeads * float64(expiryTick) / float64(time.Second)
	share = math.Float64frombits(p.share.Load())
	if wanted := float64(p.wanted.Add(int64(heads))); wanted > atOnce { // it goes on faster than it began
		share = min(share, atOnce/wanted)
	}
	return share, chance < share
}

// period begins another period. It is called by one goroutine at a time.
func (p *sampler) period(now time.Time) {
	may, wanted := sampledHeads*now.Sub(p.began).Seconds(), float64(p.wanted.Swap(0))
	share := 1.
	if wanted > may && may > 0 {
		share = may / wanted
	}
	p.share.Store(math.Float64bits(share))
	p.began = now
}

// sample looks at the heads that the decision may choose from, if it is one of those
// that are watched.
func (r *Router) sample(c *choice, s *scratch) *Sample {
	in := &s.in
	if len(r.o.Watchers) == 0 || len(in.Tiers) == 0 {
		return nil
	}
	n := 0
	for i := range in.Tiers {
		n += len(in.Tiers[i].Heads)
	}
	share, ok := r.sampler.takes(n, in.Rand.Float64())
	if !ok {
		return nil
	}
	in.RecallPrompt()
	p, _ := r.sampler.pool.Get().(*Sample)
	p.Share, p.At, p.Tokens = share, in.Now, in.Tokens()
	before := in.Before()
	for in.At = range in.Tiers {
		p.from = append(p.from, len(p.seen))
		p.look(in, c.plan.Strategy)
	}
	in.Restore(&before)
	p.from = append(p.from, len(p.seen))
	r.shadow(p, c, s)
	return p
}

// look notes the heads of the tier.
func (p *Sample) look(in *strategy.Input, by strategy.Strategy) {
	heads := in.Heads()
	p.costs = slices.Grow(p.costs[:0], len(heads))[:len(heads)]
	p.chances = slices.Grow(p.chances[:0], len(heads))[:len(heads)]
	by.Score(in, p.costs)
	strategy.Chances(by, in, p.costs, p.chances)
	for i, h := range heads {
		p.seen = append(p.seen, Seen{Seen: in.See(h), Cost: p.costs[i], Chance: p.chances[i]})
	}
}

// watched passes a sample on whose decision found a head, and takes it back.
func (r *Router) watched(p *Sample, d *Decision, c *choice, s *scratch) {
	if p == nil {
		return
	}
	if d != nil {
		p.Decision, p.Session, p.Blocks = d, s.session, s.in.Blocks()
		p.Bytes, p.PerBlock = s.in.Request.PromptBytes, s.in.Request.BlockTokens
		p.choose(c, &s.in)
		p.compareShadows()
		for _, w := range r.o.Watchers {
			w.Sampled(p)
		}
	}
	clear(p.seen)
	clear(p.Shadows)
	*p = Sample{seen: p.seen[:0], from: p.from[:0], costs: p.costs, chances: p.chances, Shadows: p.Shadows[:0]}
	r.sampler.pool.Put(p)
}

// choose finds the heads that the decision had to choose from, and the best of them.
func (p *Sample) choose(c *choice, in *strategy.Input) {
	p.Chosen, p.Best = -1, -1
	switch {
	case c.plan.Spec.AcrossRegions:
		p.Heads = p.seen
	case in.At+1 < len(p.from):
		p.Heads = p.seen[p.from[in.At]:p.from[in.At+1]]
	}
	for i := range p.Heads {
		h := &p.Heads[i]
		if h.Head == p.Decision.Head && !p.Decision.Trial {
			p.Chosen = i
		}
		if !math.IsInf(h.Cost, 1) && (p.Best < 0 || h.Predicted < p.Heads[p.Best].Predicted) && !math.IsNaN(h.Predicted) {
			p.Best = i
		}
	}
}

package routing

import (
	"sync"
	"sync/atomic"
)

// pools counts the places taken of the model types that the policy bounds, from
// when it does. It holds one count for each model type that was ever bounded.
type pools struct{ counts sync.Map } // *atomic.Int64 by model type

// enter takes one of the limit places of a model type. A further attempt may go
// beyond: its request has waited its turn, and others may have its place by now. A
// hedge may not.
func (p *pools) enter(model string, limit int64, further bool) bool {
	v, ok := p.counts.Load(model)
	if !ok {
		v, _ = p.counts.LoadOrStore(model, new(atomic.Int64))
	}
	count, _ := v.(*atomic.Int64)
	if count.Add(1) <= limit || further {
		return true
	}
	count.Add(-1)
	return false
}

// full reports whether each of the limit places of a model type is taken; 0 is no
// limit.
func (p *pools) full(model string, limit int64) bool {
	return limit > 0 && p.taken(model) >= limit
}

// taken is how many places of a model type are taken, 0 of one that was never bounded.
func (p *pools) taken(model string) int64 {
	if v, ok := p.counts.Load(model); ok {
		count, _ := v.(*atomic.Int64)
		return count.Load()
	}
	return 0
}

// leave gives a place back.
func (p *pools) leave(model string) {
	if v, ok := p.counts.Load(model); ok {
		count, _ := v.(*atomic.Int64)
		count.Add(-1)
	}
}

// take takes a place at a head, if one is free and the policy's bound of the pool
// allows it.
func (r *Router) take(c *choice, s *scratch) *Decision {
	limit := c.policy.MaxInFlight(c.model)
	if limit > 0 && !r.pools.enter(c.model, limit, c.before != nil && !c.hedges) {
		c.closed = true
		return nil
	}
	d := r.tryEjected(c, s)
	if d == nil {
		if i, n := r.place(c, s); n > 0 {
			d = r.decision(c, s, i, n)
		}
	}
	switch {
	case limit > 0 && d == nil:
		r.pools.leave(c.model)
	case limit > 0:
		d.marks |= bounded
	}
	return d
}

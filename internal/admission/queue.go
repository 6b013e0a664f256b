package admission

import (
	"context"
	"slices"
	"time"
)

// Request is what waits for a place.
type Request struct {
	Pool     string // the model type
	Lane     string // requests of one lane can use the same places; "": those of the whole pool
	Caller   Caller
	Priority Priority
}

// pool is what waits for the places of one model type. One request at a time has
// the turn to try for a place; its order is theirs.
type pool struct {
	name    string
	n       int // requests that wait
	lanes   map[string]*lane
	classes [priorities]class
	turn    *waiter // who tries; nil: none does
	round   uint64  // counts the times that a place may have come free
}

// lane are waiting requests that can use the same places: where one finds none,
// the others find none.
type lane struct {
	n      int
	missed uint64 // the round in which one of them found none
}

// waiter is one request that waits.
type waiter struct {
	pool     *pool
	lane     *lane
	laneName string
	share    *share
	priority Priority
	order    uint64
	round    uint64    // in which it got the turn
	wake     chan bool // of one: true, it has the turn; false, it gave way to another
	since    time.Time
}

// Queues reports whether requests may wait at all.
func (a *Admission) Queues() bool { return a.o.MaxWaiting > 0 }

// MaxWait is how long a request may wait.
func (a *Admission) MaxWait() time.Duration { return a.o.MaxWait }

// Busy reports whether requests wait for the pool, so that another must not be
// placed before them.
func (a *Admission) Busy(pool string) bool {
	if a.total.Load() == 0 {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pools[pool] != nil
}

// Waiting is how many requests wait for each pool that any wait for.
func (a *Admission) Waiting() map[string]int {
	if a.total.Load() == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	n := make(map[string]int, len(a.pools))
	for name, p := range a.pools {
		n[name] = p.n
	}
	return n
}

// Wait has a request wait until try, which takes a place if there is one, returns
// true. It is called at least once if the queue has room, always by this goroutine,
// and for one request of a pool at a time. The errors are ErrFull, ErrTimeout and
// those of the context.
func (a *Admission) Wait(ctx context.Context, r *Request, try func() (done bool)) error {
	w := a.join(r)
	if w == nil {
		a.metrics.full.Inc()
		return ErrFull
	}
	done := false
	defer func() { a.leave(w, done) }()
	deadline := time.NewTimer(a.o.MaxWait)
	defer deadline.Stop()
	for {
		select {
		case turn := <-w.wake:
			if !turn {
				a.metrics.full.Inc()
				return ErrFull
			}
			if done = try(); done {
				return nil
			}
			a.missed(w)
		case <-deadline.C:
			a.metrics.timeouts.Inc()
			return ErrTimeout
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Freed says that a place of each of the pools came free, or may have.
func (a *Admission) Freed(pools ...string) {
	if a.total.Load() == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range pools {
		if p := a.pools[name]; p != nil {
			p.freed()
		}
	}
}

// Changed says that there may be places in any pool.
func (a *Admission) Changed() {
	if a.total.Load() == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pools {
		p.freed()
	}
}

// join queues a request. It is nil if there is no room for it.
func (a *Admission) join(r *Request) *waiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pools[r.Pool]
	if p == nil {
		if a.o.MaxWaiting <= 0 {
			return nil
		}
		p = &pool{name: r.Pool, lanes: map[string]*lane{}, round: 1}
	}
	if p.n >= a.o.MaxWaiting {
		last := p.gives(r)
		if last == nil {
			return nil
		}
		a.remove(last)
		last.wake <- false
	}
	a.pools[r.Pool] = p // after remove, which forgets a pool without a request
	l := p.lanes[r.Lane]
	if l == nil {
		l = &lane{}
		p.lanes[r.Lane] = l
	}
	a.order++
	w := &waiter{
		pool: p, lane: l, laneName: r.Lane, share: p.classes[r.Priority].of(&r.Caller, a.o.MaxWaiting),
		priority: r.Priority, order: a.order, wake: make(chan bool, 1), since: a.o.Now(),
	}
	w.share.queue = append(w.share.queue, w)
	p.n++
	l.n++
	a.waiting[r.Priority].Add(1)
	a.total.Add(1)
	p.pass()
	return w
}

// leave ends the wait of a request, for its place or for any other reason, and
// passes its turn on.
func (a *Admission) leave(w *waiter, placed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := w.pool
	if placed {
		p.classes[w.priority].served(w.share)
	}
	a.remove(w)
	if p.turn == w {
		p.turn = nil
	}
	p.pass()
	a.metrics.waits[w.priority].Observe(a.o.Now().Sub(w.since).Seconds())
}

// remove takes a request out of the queue, if it is there. a.mu must be held.
func (a *Admission) remove(w *waiter) {
	i := slices.Index(w.share.queue, w)
	if i < 0 {
		return
	}
	w.share.queue = slices.Delete(w.share.queue, i, i+1)
	p := w.pool
	p.n--
	if w.lane.n--; w.lane.n == 0 {
		delete(p.lanes, w.laneName)
	}
	a.waiting[w.priority].Add(-1)
	a.total.Add(-1)
	if p.n == 0 {
		delete(a.pools, p.name)
	}
}

// missed says that the request with the turn found no place. It keeps its order.
func (a *Admission) missed(w *waiter) {
	a.metrics.misses.Inc()
	a.mu.Lock()
	defer a.mu.Unlock()
	w.lane.missed = w.round
	w.pool.turn = nil
	w.pool.pass()
}

// freed begins a round: who found no place before may find one now. a.mu must be
// held.
func (p *pool) freed() {
	p.round++
	p.pass()
}

// pass gives the turn, if it is free, to the first request that may find a
// place. a.mu must be held.
func (p *pool) pass() {
	if p.turn != nil {
		return
	}
	if w := p.first(); w != nil {
		p.turn, w.round = w, p.round
		w.wake <- true
	}
}

// first is the first request in order whose lane has not missed in this round.
func (p *pool) first() *waiter {
	open := false
	for _, l := range p.lanes {
		open = open || l.missed < p.round
	}
	if !open {
		return nil
	}
	for i := range p.classes {
		if w := p.classes[i].first(p.round); w != nil {
			return w
		}
	}
	return nil
}

// gives is the request of a full queue that gives way to another: the last one of
// the lowest class if that is a lower one, or of the same class if its caller waits
// with more for its weight. It is nil if none does.
func (p *pool) gives(r *Request) *waiter {
	for i := range p.classes {
		priority := Priority(priorities - 1 - i)
		longest := p.classes[priority].longest()
		if longest == nil {
			continue
		}
		last := longest.queue[len(longest.queue)-1]
		own := p.classes[priority].byCaller[r.Caller.ID]
		switch {
		case priority < r.Priority || last == p.turn:
			return nil
		case priority == r.Priority && longest.length(0) <= own.length(1/weightOf(&r.Caller)):
			return nil
		}
		return last
	}
	return nil
}

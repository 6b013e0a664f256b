package admission

// class are the waiting requests of one priority. Its callers take turns, each in
// proportion to its weight (stride scheduling): the first is the one with the least
// pass, and a place moves its pass on by the reciprocal of its weight. Requests that
// leave without a place cost their caller nothing.
type class struct {
	pass     float64 // of the caller that got the last place; who joins starts there
	shares   []*share
	byCaller map[string]*share // those of shares
}

// share is one caller in a class. Without a waiting request it is kept while it is
// ahead of the class, so that it gains nothing from leaving.
type share struct {
	caller string
	weight float64
	pass   float64
	queue  []*waiter // in the order in which they came
}

func weightOf(c *Caller) float64 { return float64(max(c.Weight, 1)) }

// of is the share of a caller. At most most shares without a request are kept.
func (c *class) of(caller *Caller, most int) *share {
	s := c.byCaller[caller.ID]
	if s == nil {
		if c.byCaller == nil {
			c.byCaller = map[string]*share{}
		}
		if len(c.shares) >= 2*most {
			c.forget()
		}
		s = &share{caller: caller.ID}
		c.shares = append(c.shares, s)
		c.byCaller[caller.ID] = s
	}
	s.weight, s.pass = weightOf(caller), max(s.pass, c.pass)
	return s
}

// served notes that the caller of a share got a place.
func (c *class) served(s *share) {
	c.pass = max(c.pass, s.pass)
	s.pass += 1 / s.weight
}

// forget drops the shares without a request.
func (c *class) forget() {
	kept := c.shares[:0]
	for _, s := range c.shares {
		if len(s.queue) > 0 {
			kept = append(kept, s)
		} else {
			delete(c.byCaller, s.caller)
		}
	}
	clear(c.shares[len(kept):])
	c.shares = kept
}

// first is the first request in order whose lane has not missed in the round.
// Callers with the same pass come in the order of their requests.
func (c *class) first(round uint64) (best *waiter) {
	for _, s := range c.shares {
		if best != nil && s.pass > best.share.pass {
			continue
		}
		w := s.first(round)
		if w != nil && (best == nil || s.pass < best.share.pass || w.order < best.order) {
			best = w
		}
	}
	return best
}

func (s *share) first(round uint64) *waiter {
	for _, w := range s.queue {
		if w.lane.missed < round {
			return w
		}
	}
	return nil
}

// longest is the share with the most waiting requests for its weight, nil if none
// waits. Of equals it is the one whose last request came last.
func (c *class) longest() (most *share) {
	for _, s := range c.shares {
		n := len(s.queue)
		if n == 0 {
			continue
		}
		if most == nil || s.length(0) > most.length(0) || s.length(0) == most.length(0) && s.queue[n-1].order > most.queue[len(most.queue)-1].order {
			most = s
		}
	}
	return most
}

// length is how many requests wait for each unit of weight, with more of them. A
// nil share has none.
func (s *share) length(more float64) float64 {
	if s == nil {
		return more
	}
	return float64(len(s.queue))/s.weight + more
}

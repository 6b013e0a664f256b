package demo

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// Reasons of failed requests. An unexpected status is appended.
const (
	failRouterDown    = "service unreachable"
	failNoHead        = "no head available"
	failRouterRefused = "service refused"
	failHeadBusy      = "heads busy"
	failHeadBroken    = "head error"
	failCut           = "stream cut"
	failTimeout       = "timed out"
	failStopped       = "demo stopped"
	failCrowded       = "generator full" // as many requests in flight as may be; not sent
)

const (
	quantileSeconds  = 10
	sparklineSeconds = 60
	maxNames         = 64 // heads and strategies counted apart; the rest together
)

// stats counts what the load generator sees. It is safe for concurrent use.
type stats struct {
	start time.Time

	mu      sync.Mutex
	slots   [sparklineSeconds]slot
	all     slot // of the whole run
	ends    ends
	heads   map[string]*headStats
	choices map[string]uint64 // by strategy
	fails   map[string]uint64 // by reason
}

type slot struct {
	second   int64  // since start
	requests uint64 // that a head began to answer
	overhead samples
	ttft     samples // from the request's beginning
}

type ends struct {
	ok                    uint64 // answered whole
	moved                 uint64 // of these, after another head had failed
	failed                uint64
	late                  uint64 // sent over a second after their time
	input, output, cached uint64 // tokens of those answered
}

type headStats struct{ requests, ok, failed uint64 }

func newStats(now time.Time) *stats {
	return &stats{
		start: now, heads: make(map[string]*headStats),
		choices: make(map[string]uint64), fails: make(map[string]uint64),
	}
}

// slot returns the current second's; the caller holds the mutex.
func (s *stats) slot(now time.Time) *slot {
	second := int64(now.Sub(s.start) / time.Second)
	at := &s.slots[second%sparklineSeconds]
	if at.second != second {
		*at = slot{second: second}
	}
	return at
}

// begun counts a request that a head began to answer, and what the service says
// that it added to its time.
func (s *stats) begun(now time.Time, head, strategy string, overhead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range []*slot{s.slot(now), &s.all} {
		at.requests++
		at.overhead.add(overhead)
	}
	s.head(head).requests++
	if _, known := s.choices[strategy]; !known && len(s.choices) >= maxNames {
		strategy = "other"
	}
	s.choices[strategy]++
}

// head returns a head's counts; the caller holds the mutex.
func (s *stats) head(id string) *headStats {
	h := s.heads[id]
	if h == nil {
		if len(s.heads) >= 1000+maxNames {
			id = "other"
		}
		if h = s.heads[id]; h == nil {
			h = new(headStats)
			s.heads[id] = h
		}
	}
	return h
}

func (s *stats) firstToken(now time.Time, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slot(now).ttft.add(d)
	s.all.ttft.add(d)
}

// finished counts a complete answer; moved means that another head had failed
// before.
func (s *stats) finished(head string, moved bool, u tokens) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends.ok++
	s.head(head).ok++
	s.ends.input += uint64(max(0, u.input))
	s.ends.output += uint64(max(0, u.output))
	s.ends.cached += uint64(max(0, u.cached))
	if moved {
		s.ends.moved++
	}
}

// headFailed counts an answer that the head did not complete.
func (s *stats) headFailed(head string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head(head).failed++
}

func (s *stats) failed(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends.failed++
	s.fails[reason]++
}

func (s *stats) wasLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends.late++
}

type count struct {
	name string
	n    uint64
}

// picture is a copy of all counts.
type picture struct {
	elapsed           time.Duration
	rate              float64  // requests per second in the last whole second
	perSecond         []uint64 // requests, the oldest first, whole seconds only
	overhead, ttft    samples  // of the last quantileSeconds
	all               slot
	ends              ends
	heads             map[string]headStats
	strategies, fails []count // the most frequent first
}

func (s *stats) picture(now time.Time) *picture {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &picture{
		elapsed: now.Sub(s.start), all: s.all, ends: s.ends, heads: make(map[string]headStats, len(s.heads)),
		strategies: ranking(s.choices), fails: ranking(s.fails),
	}
	p.all.overhead.kept, p.all.ttft.kept = slices.Clone(s.all.overhead.kept), slices.Clone(s.all.ttft.kept)
	for id, h := range s.heads {
		p.heads[id] = *h
	}
	current := int64(p.elapsed / time.Second)
	for second := max(0, current-sparklineSeconds+1); second < current; second++ {
		at := &s.slots[second%sparklineSeconds]
		if at.second != second {
			at = &slot{}
		}
		p.perSecond = append(p.perSecond, at.requests)
		p.rate = float64(at.requests)
	}
	for second := max(0, current-quantileSeconds); second <= current; second++ {
		if at := &s.slots[second%sparklineSeconds]; at.second == second {
			p.overhead.merge(&at.overhead)
			p.ttft.merge(&at.ttft)
		}
	}
	return p
}

func ranking(m map[string]uint64) []count {
	var list []count
	for name, n := range maps.All(m) {
		list = append(list, count{name, n})
	}
	slices.SortFunc(list, func(a, b count) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name))
	})
	return list
}

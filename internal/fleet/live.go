package fleet

import (
	"math"
	"sync/atomic"
	"time"
)

// Unknown marks a count that a head did not report. Unknown is never 0: a
// missing signal must not make a head look idle.
const Unknown int64 = -1

// Load is what a head reports of its work. Counts that it did not report are
// Unknown, fractions and rates NaN.
type Load struct {
	InFlight            int64   // requests being worked on
	Queued              int64   // requests waiting at the head
	PendingPromptTokens int64   // prompt tokens accepted and not yet computed
	KVCapacityTokens    int64   // tokens that fit the KV cache
	KVCacheUsage        float64 // 0..1
	Utilization         float64 // 0..1
	TokensPerSecond     float64 // tokens per second, prompt and output
}

// UnknownLoad is a report without any load signal.
func UnknownLoad() Load {
	nan := math.NaN()
	return Load{Unknown, Unknown, Unknown, Unknown, nan, nan, nan}
}

// Requests is the number of requests at the head, running and waiting, or
// Unknown.
func (l *Load) Requests() int64 {
	switch {
	case l.InFlight < 0 && l.Queued < 0:
		return Unknown
	default:
		return max(l.InFlight, 0) + max(l.Queued, 0)
	}
}

// Report is one accepted status report with what was known here when it came.
type Report struct {
	Load
	At       time.Time // received, by this process's monotonic clock
	Picks    uint64    // Live.Picks at that moment
	InFlight int64     // Live.InFlight at that moment; Load.InFlight is the head's own count
	Sequence uint64
}

// Live holds the numbers of one head that change with every request and every
// report. It lasts until the head is offline, moves to another endpoint or is
// removed; a registration at the same endpoint keeps it. Whoever takes a place
// keeps the pointer and gives it back to the same Live, so that no count is
// lost or inherited.
//
// All methods are safe for concurrent use and never block.
type Live struct {
	load     atomic.Int64 // places taken, doubled, plus inexact
	picks    atomic.Uint64
	timedOut atomic.Int64 // share of places that ended by their time limit, 0..timedOutOne
	report   atomic.Pointer[Report]
	start    atomic.Pointer[slowStart]
	_        [24]byte // two heads' counters never share a cache line
}

type slowStart struct {
	since  time.Time
	window time.Duration
	bias   float64 // requests in flight that the pool had on average
}

const timedOutOne = 1 << 16

// inexact is the bit of Live.load that says that the count is not all there is
// to know. It rides on the count so that comparing many heads takes one load
// of memory each.
const inexact = 1

// TryAcquire takes a place for one request. It is refused when limit places
// are taken; a limit of 0 is none.
func (l *Live) TryAcquire(limit int64) bool {
	if n := l.load.Add(2) >> 1; limit > 0 && n > limit {
		l.load.Add(-2)
		return false
	}
	l.picks.Add(1)
	return true
}

// Release gives a place back whose request's end was reported. The caller sees
// to it that each place is given back once, by Release, Expire or Evict.
func (l *Live) Release() {
	l.load.Add(-2)
	l.observe(0)
}

// Expire gives a place back because its time ran out.
func (l *Live) Expire() {
	l.load.Add(-2)
	l.observe(timedOutOne)
}

// Evict gives a place back before its time, which says nothing about how it
// would have ended.
func (l *Live) Evict() { l.load.Add(-2) }

// observe moves the share of ends by time a sixteenth of the way to target.
// Two at once may lose one of the steps, which an average can bear.
func (l *Live) observe(target int64) {
	if old := l.timedOut.Load(); old != target {
		next := old + (target-old)/16
		l.timedOut.Store(next)
		if (old < timedOutOne/2) != (next < timedOutOne/2) {
			l.settle()
		}
	}
}

// settle sets the inexact bit by what is true now, again if that changes
// meanwhile.
func (l *Live) settle() {
	for {
		exact := l.Tracked() && l.start.Load() == nil
		if exact {
			l.load.And(^int64(inexact))
		} else {
			l.load.Or(inexact)
		}
		if exact == (l.Tracked() && l.start.Load() == nil) {
			return
		}
	}
}

// slowly lets the head's load count for more for a while.
func (l *Live) slowly(s *slowStart) {
	l.start.Store(s)
	l.settle()
}

// InFlight is the number of places taken.
func (l *Live) InFlight() int64 { return l.load.Load() >> 1 }

// Exact is InFlight, and whether that is all there is to know of the head's
// load: its places end with outcomes, and it is not in its slow start.
func (l *Live) Exact() (inFlight int64, exact bool) {
	n := l.load.Load()
	return n >> 1, n&inexact == 0
}

// Picks is the number of places ever taken.
func (l *Live) Picks() uint64 { return l.picks.Load() }

// Tracked reports whether most of the places taken lately ended with a
// reported outcome, so that InFlight is exact; it is until places end by their
// time limit. Where they do, InFlight overstates.
func (l *Live) Tracked() bool { return l.timedOut.Load() < timedOutOne/2 }

// Report is the last accepted report, or nil before the first.
func (l *Live) Report() *Report { return l.report.Load() }

// take notes an accepted report.
func (l *Live) take(report *StatusReport, now time.Time) {
	l.report.Store(&Report{Load: report.Load, At: now, Picks: l.Picks(), InFlight: l.InFlight(), Sequence: report.Sequence})
}

// SlowStart is the number of requests to add to a new head's count at now: its
// pool's mean when it joined, falling linearly to 0 over the slow-start
// window. Without it a head that joins idle draws all new traffic at once.
func (l *Live) SlowStart(now time.Time) float64 {
	s := l.start.Load()
	if s == nil {
		return 0
	}
	left := s.window - now.Sub(s.since)
	if left <= 0 {
		if l.start.CompareAndSwap(s, nil) {
			l.settle()
		}
		return 0
	}
	return s.bias * float64(left) / float64(s.window)
}

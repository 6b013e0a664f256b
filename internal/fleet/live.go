package fleet

import (
	"cmp"
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
	if l.InFlight < 0 && l.Queued < 0 {
		return Unknown
	}
	return max(l.InFlight, 0) + max(l.Queued, 0)
}

// Report is one accepted status report with what was known here when it came.
type Report struct {
	Load
	At       time.Time     // received, by this process's monotonic clock
	Picks    uint64        // Live.Picks at that moment
	InFlight int64         // Live.InFlight at that moment; Load.InFlight is the head's own count
	Interval time.Duration // until the next report is due
	Sequence uint64
	beyond   float64       // requests beyond our own; pending tokens are none
	full     bool          // the head says so
	fullFor  time.Duration // after At, if the head is full by it
}

// tokensPerRequest is how many pending prompt tokens count as one request more:
// a prompt of that length keeps a current accelerator busy about as long as the
// answer of a short request does.
const tokensPerRequest = 2048

// FullKVCache is the usage of the KV cache from which on a head is full: it is
// about to preempt requests to make room.
const FullKVCache = 0.95

// requests is what the report says is at the head, in requests, without pending
// tokens. Utilization stands in where there is no count; ok is false without
// either. limit is the head's max_in_flight, 0: unknown.
func (l *Load) requests(limit int64) (n float64, ok bool) {
	if counted := l.Requests(); counted != Unknown {
		return float64(counted), true
	}
	if !math.IsNaN(l.Utilization) {
		return l.Utilization * float64(capacity(limit)), true
	}
	return 0, false
}

// Everything is what the report says is at the head, in requests, with pending
// prompt tokens; ok is false when it says nothing of that kind. limit is the
// head's max_in_flight, 0: unknown.
func (l *Load) Everything(limit int64) (n float64, ok bool) {
	n, ok = l.requests(limit)
	if l.PendingPromptTokens != Unknown {
		return n + float64(l.PendingPromptTokens)/tokensPerRequest, true
	}
	return n, ok
}

// full reports whether the head says that it has no room: more requests than it
// takes at once, ours too, or a full KV cache. Where it names no limit, requests
// must wait as well, or all be used: the assumed capacity alone proves nothing.
func (l *Load) full(limit int64) bool {
	if l.KVCacheUsage >= FullKVCache || limit == 0 && l.Requests() == Unknown && l.Utilization >= 1 {
		return true
	}
	return l.Requests() > capacity(limit) && (limit > 0 || l.Queued > 0)
}

// capacity is the number of requests that a head takes at once.
func capacity(limit int64) int64 {
	if limit > 0 {
		return limit
	}
	return AssumedCapacity
}

// A report that its head is full keeps requests away for fullTime, multiplied by
// the requests for each place there. The time is short since all routers turn away
// at once: ten of them fill the heads that are left within two seconds, one after
// the other (TestNoStrategyMakesAHerdOfFullHeads). After it the load alone counts.
const (
	fullTime    = 750 * time.Millisecond
	maxFullTime = 10 * time.Second // also of a KV cache that is full
)

// fullFor is how long the report keeps requests away if it says that the head is
// full. limit is the head's max_in_flight, 0: unknown.
func (l *Load) fullFor(limit int64) time.Duration {
	if l.KVCacheUsage >= FullKVCache {
		return maxFullTime
	}
	requests, _ := l.requests(limit)
	times := max(requests/float64(capacity(limit)), 1)
	return time.Duration(min(times*float64(fullTime), float64(maxFullTime)))
}

// Beyond is what a head's last report says beyond our own count at that moment,
// with the time of the report, in one word. The zero value is no report.
type Beyond uint64

// The parts of a Beyond: the time in the upper half, then the bits, then the
// requests in sixteenths.
const (
	beyondCounted  = 1 << 31 // the report had a count of some kind
	beyondFull     = 1 << 30 // the head says that it is full
	beyondRequests = beyondFull - 1
)

// BeyondUnit is how many of Beyond.Units are one request.
const BeyondUnit = 16

// Counted reports whether the head reported how loaded it is.
func (b Beyond) Counted() bool { return b&beyondCounted != 0 }

// Full reports whether the report said that the head was full; see Live.Full.
func (b Beyond) Full() bool { return b&beyondFull != 0 }

// MayFill reports whether the head may be full with so many of our requests:
// where it is false, Live.Full is.
func (b Beyond) MayFill(own, limit int64) bool {
	return b.Full() || limit > 0 && b.Units() != 0 && uint64(own)*BeyondUnit+b.Units() >= uint64(limit)*BeyondUnit
}

// Matters reports whether the report says anything that our own count does not.
func (b Beyond) Matters() bool { return b&(beyondRequests|beyondFull) != 0 }

// Units is the number of requests beyond our own count in parts of BeyondUnit.
func (b Beyond) Units() uint64 { return uint64(b & beyondRequests) }

// Requests is the number of requests beyond our own count.
func (b Beyond) Requests() float64 { return float64(b&beyondRequests) / BeyondUnit }

// Age is the age of the report in milliseconds, for a clock of Clock.
func (b Beyond) Age(clock uint32) uint32 {
	return uint32(max(int32(clock-uint32(b>>32)), 0)) // a report may be newer than the caller's clock
}

// started is when this process began to count milliseconds: a whole one, so that
// virtual times count the same in every process.
var started = wholeMillisecond(time.Now())

// wholeMillisecond keeps the monotonic clock, as Truncate does not.
func wholeMillisecond(t time.Time) time.Time {
	return t.Add(-time.Duration(t.Nanosecond()) % time.Millisecond)
}

// Clock is a time in milliseconds for Beyond.Age. It wraps after 49 days, which
// no lease lasts.
func Clock(t time.Time) uint32 { return uint32(t.Sub(started) / time.Millisecond) }

// Live holds the numbers of one head that change with every request and every
// report. It lasts until the head is offline, moves to another endpoint or is
// removed; a registration at the same endpoint keeps it. The taker of a place
// keeps the pointer and gives the place and its tokens back to the same Live, so
// that no count is lost or inherited.
//
// All methods are safe for concurrent use and never block.
type Live struct {
	load   atomic.Int64  // places taken, doubled, plus exact
	beyond atomic.Uint64 // a Beyond
	picks  atomic.Uint64
	tokens atomic.Int64 // of the prompts of the places taken
	// ends says how places lately ended: below 0 most with an outcome,
	// above 0 most by their time, 0 before any has; within endsOne.
	ends   atomic.Int64
	report atomic.Pointer[Report]
	start  atomic.Pointer[slowStart]
	// away is until when new requests stay away, in nanoseconds after started; 0: it
	// was never asked for. It fills the cache line, which no two heads share.
	away atomic.Int64

	// The second cache line is for strategies that count tokens. What they want of the
	// last report stands here, since the report itself is one line more.
	pending  atomic.Int64  // weight of prompts ahead: Work.Pending of those without a first token
	sent     atomic.Int64  // Work.Pending of all places ever taken
	aside    atomic.Uint64 // what the report has beyond ours: an aside
	kv       atomic.Uint64 // what the report says of the KV cache: a kvUse
	unsent   atomic.Int64  // the report's pending tokens less what was sent until then
	capacity atomic.Int64  // Load.KVCapacityTokens of the last report that named it; 0: none did
	// unseen says how places lately ended: below 0 most after their first token was
	// seen, above 0 most without; within endsOne.
	unseen atomic.Int64
	others atomic.Pointer[Others] // what other routers count here; nil: there are none

	began atomic.Int64 // when the latest placed of the requests whose first token was seen was placed, in ns since 1970
	_     [7]uint64    // it ends a cache line
}

// endsOne is Live.ends when all places end by their time; -endsOne when all end
// with an outcome.
const endsOne = 1 << 15

// exact is the bit of Live.load that says that the count of places is our whole
// part of the head's load. It is in the same word so that comparing many heads
// takes few loads of memory.
const exact = 1

// copy returns the numbers of l as they are now.
func (l *Live) copy() *Live {
	c := new(Live)
	c.load.Store(l.load.Load())
	c.beyond.Store(l.beyond.Load())
	c.picks.Store(l.picks.Load())
	c.tokens.Store(l.tokens.Load())
	c.ends.Store(l.ends.Load())
	c.report.Store(l.report.Load())
	c.start.Store(l.start.Load())
	c.away.Store(l.away.Load())
	c.pending.Store(l.pending.Load())
	c.sent.Store(l.sent.Load())
	c.aside.Store(l.aside.Load())
	c.kv.Store(l.kv.Load())
	c.unsent.Store(l.unsent.Load())
	c.capacity.Store(l.capacity.Load())
	c.unseen.Store(l.unseen.Load())
	c.others.Store(l.others.Load())
	c.began.Store(l.began.Load())
	return c
}

// TryAcquire takes a place for one request and its work. It is refused when limit
// places are taken; a limit of 0 is none.
func (l *Live) TryAcquire(limit int64, w Work) bool {
	if n := l.load.Add(2) >> 1; limit > 0 && n > limit {
		l.load.Add(-2)
		return false
	}
	l.picks.Add(1)
	if w.Tokens != 0 {
		l.tokens.Add(int64(w.Tokens))
	}
	if w.Pending != 0 {
		l.pending.Add(int64(w.Pending))
		l.sent.Add(int64(w.Pending))
	}
	return true
}

// Release gives a place and its work back whose request's end was reported. The
// caller gives each place back once, by Release, Expire or Evict, without the
// pending tokens that it gave back before.
func (l *Live) Release(w Work) {
	if w.Pending != 0 {
		step(&l.unseen, endsOne)
	}
	l.giveBack(w)
	l.observe(-endsOne)
}

// Expire gives a place and its work back because its time ran out.
func (l *Live) Expire(w Work) {
	l.giveBack(w)
	l.observe(endsOne)
}

// Evict gives a place and its work back before its time, which says nothing about
// how it would have ended.
func (l *Live) Evict(w Work) { l.giveBack(w) }

func (l *Live) giveBack(w Work) {
	l.load.Add(-2)
	if w.Tokens != 0 {
		l.tokens.Add(-int64(w.Tokens))
	}
	if w.Pending != 0 {
		l.pending.Add(-int64(w.Pending))
	}
}

// FirstTokens is 1 where most requests end after their first token was seen, -1 where
// most do not, and 0 before any has.
func (l *Live) FirstTokens() int { return -cmp.Compare(l.unseen.Load(), 0) }

// ReportedLate notes the outcome of a request whose place was given back before:
// outcomes are reported, if late.
func (l *Live) ReportedLate() { l.observe(-endsOne) }

// observe moves ends to target by a step.
func (l *Live) observe(target int64) {
	if old, next := step(&l.ends, target); (old < 0) != (next < 0) {
		l.settle()
	}
}

// step moves an average a sixteenth of the way to target. Two at once may lose one
// of the steps, which an average can bear.
func step(average *atomic.Int64, target int64) (old, next int64) {
	old = average.Load()
	if next = old + (target-old)/16; next != old {
		average.Store(next)
	}
	return old, next
}

// ExpectTracked takes over how places end from the heads that a new one joins: the
// callers are the same. It changes nothing that is known already.
func (l *Live) ExpectTracked(tracked bool) {
	if tracked && l.ends.CompareAndSwap(0, -1) {
		l.settle()
	}
}

// settle sets the exact bit by what is true now, again if that changes
// meanwhile.
func (l *Live) settle() {
	for {
		is := l.OwnCounts() && l.start.Load() == nil
		if is {
			l.load.Or(exact)
		} else {
			l.load.And(^int64(exact))
		}
		if is == (l.OwnCounts() && l.start.Load() == nil) {
			return
		}
	}
}

// ForgetReport drops the last report: the head registers again.
func (l *Live) ForgetReport() {
	l.beyond.Store(0)
	l.report.Store(nil)
	l.markAway()
	l.settle()
}

// TakeReport notes a report that came at now. limit is the head's max_in_flight, 0:
// unknown; interval is when the next report is due.
//
// A report shows our own requests as they were up to one report ago. What counts as
// ours is the most that we had at this report and the one before: requests that
// have just ended here are not taken for the load of others.
func (l *Live) TakeReport(load *Load, now time.Time, limit int64, interval time.Duration, sequence uint64) {
	own := l.Requests()
	ours := own
	if last := l.report.Load(); last != nil {
		ours = max(ours, last.InFlight)
	}
	word := uint64(Clock(now)) << 32
	requests, counted := load.requests(limit)
	beyond := max(requests-float64(ours), 0)
	more := beyond
	if load.PendingPromptTokens != Unknown {
		counted = true
		more += float64(load.PendingPromptTokens) / tokensPerRequest
	}
	if counted {
		word |= beyondCounted
	}
	full := load.full(limit)
	if full {
		word |= beyondFull
	}
	word |= uint64(min(more*BeyondUnit, beyondRequests))
	l.report.Store(&Report{
		Load: *load, At: now, Picks: l.Picks(), InFlight: own, Interval: interval, Sequence: sequence,
		beyond: beyond, full: full, fullFor: load.fullFor(limit),
	})
	l.takeTokens(load, beyond, counted)
	if was := Beyond(l.beyond.Swap(word)); was.Counted() != counted || was == 0 {
		l.settle()
	}
	if !l.AwayUntil(now).IsZero() {
		l.markAway()
	}
}

// StayAway keeps new requests away until then, since the head refused one and named
// the time. As of a head that reports itself full, others come first. A time
// before that of an earlier call changes nothing.
func (l *Live) StayAway(until time.Time) {
	for then := int64(until.Sub(started)); ; {
		old := l.away.Load()
		if old >= then && old != 0 || l.away.CompareAndSwap(old, then) {
			l.markAway()
			return
		}
	}
}

// AwayUntil is until when requests stay away, the zero time if that is not after
// now.
func (l *Live) AwayUntil(now time.Time) time.Time {
	if until := l.away.Load(); until != 0 && int64(now.Sub(started)) < until {
		return started.Add(time.Duration(until))
	}
	return time.Time{}
}

// markAway has comparisons ask Full.
func (l *Live) markAway() {
	if l.away.Load() != 0 {
		l.beyond.Or(beyondFull)
	}
}

// InFlight is the number of places taken.
func (l *Live) InFlight() int64 { return l.load.Load() >> 1 }

// Tokens is the number of prompt tokens of the places taken, as far as they are
// known.
func (l *Live) Tokens() int64 { return l.tokens.Load() }

// Exact is InFlight, and whether that is our whole part of the head's load:
// OwnCounts, and the head is not in its slow start.
func (l *Live) Exact() (inFlight int64, whole bool) {
	n := l.load.Load()
	return n >> 1, n&exact != 0
}

// Beyond is what the last report says beyond our own count.
func (l *Live) Beyond() Beyond { return Beyond(l.beyond.Load()) }

// Full reports whether requests stay away, or the last report, if it is not too old
// at now, says that the head is full, or shows so much beyond our own requests that
// they fill it. Once requests of ours have ended they do not.
func (l *Live) Full(own, limit int64, now time.Time) bool {
	if !l.AwayUntil(now).IsZero() {
		return true
	}
	report := l.report.Load()
	return report.lately(now) && (report.full || report.fills(own, limit))
}

// Crowded is Full for those who weigh how full a KV cache is: by its last report the
// head has as many requests as it takes at once. One that names no limit never is.
func (l *Live) Crowded(own, limit int64, now time.Time) bool {
	report := l.report.Load()
	return limit > 0 && report.lately(now) && (report.Requests() > limit || report.fills(own, limit))
}

// lately reports whether what the report says of a full head counts still.
func (r *Report) lately(now time.Time) bool { return r != nil && now.Sub(r.At) < r.fullFor }

// fills reports whether the requests beyond ours leave no place at the head.
func (r *Report) fills(own, limit int64) bool {
	return limit > 0 && r.beyond > 0 && float64(own)+r.beyond >= float64(limit)
}

// Runs reports whether all requests that we count at the head still run by its last
// report: that counts at least the places that were taken then and still are. It
// is asked before a place whose time ran out is given to another request.
func (l *Live) Runs(now time.Time) bool {
	report := l.report.Load()
	if report == nil || now.Sub(report.At) > LeaseIntervals*report.Interval {
		return false
	}
	since := int64(l.Picks() - report.Picks)
	counted := report.Requests()
	return counted > 0 && counted >= l.InFlight()-since
}

// Picks is the number of places ever taken.
func (l *Live) Picks() uint64 { return l.picks.Load() }

// Tracked reports whether most of the places taken lately ended with a
// reported outcome, so that InFlight is exact. Where places end by their time
// InFlight overstates, and before any has ended it may.
func (l *Live) Tracked() bool { return l.ends.Load() < 0 }

// OwnCounts reports whether a comparison begins with our own count: outcomes
// are reported, or the head's reports have no count to begin with.
func (l *Live) OwnCounts() bool { return l.Tracked() || !l.Beyond().Counted() }

// Report is the last accepted report, or nil before the first.
func (l *Live) Report() *Report { return l.report.Load() }

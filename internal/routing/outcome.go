package routing

import (
	"slices"
	"time"

	"headway/internal/fleet"
	"headway/internal/strategy"
)

// Result is how a request ended.
type Result uint8

// The results that a caller can report, and those of the router: ResultExpired when
// the reservation's time ran out first, ResultEvicted when it made room for newer
// ones.
const (
	ResultNone Result = iota
	ResultOK
	ResultError
	ResultCancelled
	ResultExpired
	ResultEvicted
)

var resultNames = [...]string{"", "ok", "error", "cancelled", "expired", "evicted"}

func (r Result) String() string { return resultNames[r] }

// ParseResult reads ok, error or cancelled.
func ParseResult(s string) (Result, bool) {
	i := slices.Index(resultNames[1:1+ResultCancelled], s)
	return Result(i + 1), i >= 0
}

// Outcome is what a caller reports of a request. Numbers left out are fleet.Unknown.
type Outcome struct {
	Result       Result
	StatusCode   int64
	TTFT         float64 // ms to the first token, or to the whole answer; see FirstToken
	Duration     float64 // ms
	InputTokens  int64
	OutputTokens int64
	CachedTokens int64
	Fault        string // what the data plane found at fault, as in headway_proxy_call_failures_total; "": nothing
	Unhedged     bool   // a hedge was due, and refused since as many requests are hedged as may be
	Estimated    bool   // tokens of input or output are not the head's counts
	Whole        bool   // the answer was no stream: TTFT is the time of all of it
	At           time.Time
}

// FirstToken is the time to the first token in ms; ok is false where only that of the
// whole answer is known. A first token that comes with the last one of several is none.
func (o *Outcome) FirstToken() (ms float64, ok bool) {
	atTheEnd := o.Duration > 0 && o.TTFT >= o.Duration && o.OutputTokens > 1
	return o.TTFT, o.TTFT > 0 && !o.Whole && !atTheEnd
}

// finish ends the decision's reservation, and reports whether it had not ended
// before. The end is counted and passed on to the fleet and the memory, and so is
// a reported outcome that comes after another end.
func (r *Router) finish(d *Decision, o *Outcome) bool {
	counts, late := r.recent.finish(d, o)
	if !counts {
		return false
	}
	r.metrics.ended(d, o, late)
	for _, w := range r.o.Watchers {
		w.Ended(d, o, late)
	}
	if !late {
		if d.marks&bounded != 0 {
			r.pools.leave(d.ModelType)
		}
		if r.o.Freed != nil {
			r.o.Freed(d.Head)
		}
	}
	end := o.ending()
	switch {
	case d.Head.Outcomes == nil: // nothing is concluded from how requests end
	case !d.Trial:
		d.Head.Outcomes.Observe(d.Head, end, o.At)
	case !late || end != fleet.EndedUnknown: // a trial that proves nothing counts at its first end
		d.Head.Outcomes.ObserveTrial(d.Head, end, o.At)
	}
	if end != fleet.EndedUnreported {
		r.memory.Ended(d.Head, d.ModelType, d.work, d.ended(o, end, late))
	}
	return !late
}

// ended is the outcome as a memory takes it. Where no first token was reported, the
// whole answer came at once. What is reported after another end says when by itself,
// or not at all.
func (d *Decision) ended(o *Outcome, how fleet.Ending, late bool) strategy.End {
	e := strategy.End{How: how, Cached: o.CachedTokens, At: o.At}
	switch {
	case o.Duration > 0:
		e.Took = time.Duration(o.Duration * float64(time.Millisecond))
	case !late:
		e.Took = max(o.At.Sub(d.At), 1)
	}
	switch {
	case d.firstToken.Load() > 0:
	case o.TTFT > 0:
		e.First = max(time.Duration(o.TTFT*float64(time.Millisecond)), 1)
		_, e.FirstReported = o.FirstToken()
	default:
		e.First = e.Took
	}
	return e
}

// Blames reports whether the outcome counts against the head.
func (o *Outcome) Blames() bool { return o.ending() == fleet.EndedBadly }

const notImplemented = 501

// ending is what the outcome says of the head. An answer of 4xx is the caller's
// fault, 429 says that the head is full, and 501 that callers ask for what it has not.
func (o *Outcome) ending() fleet.Ending {
	switch {
	case o.Result == ResultOK:
		return fleet.EndedWell
	case o.Result == ResultError && (o.StatusCode < 400 || o.StatusCode > 499) && o.StatusCode != notImplemented:
		return fleet.EndedBadly
	case o.Result > ResultCancelled:
		return fleet.EndedUnreported
	}
	return fleet.EndedUnknown
}

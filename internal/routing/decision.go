package routing

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"headway/internal/fleet"
	"headway/internal/strategy"
)

// Decision is the choice of a head for one request and the reservation of a place
// there. It is immutable but for its progress and its end.
type Decision struct {
	Head           *fleet.Head // nil: none was found
	Strategy       string      // the name of the strategy that chose, none if no head was found
	ModelType      string      // of the pool, after aliases
	Region         string      // that the request named, "" when it named none that is known
	PolicyRevision uint64
	At             time.Time // of the choice
	Cost           float64   // lower is better, in the strategy's unit; NaN: not compared
	Distance       float64   // ms from the region that the request named, NaN: unknown
	Rule           int32     // index into the policy's rules, -1: default_strategy, -2: the caller chose the strategy
	Candidates     int32     // heads that were compared: of a region, or of all where the strategy looks at all
	Spilled        bool      // to another region, since that of the request had no head available
	Cheaper        bool      // another region, by choice of a strategy that compares regions
	Astray         bool      // the request named a region that neither a head nor the policy knows
	Sticky         bool      // the head that served the session before
	Trial          bool      // an ejected head, to see whether it is well again
	Failure        Failure   // why no head was found

	marks        mark
	n            uint8   // alternatives
	sequence     uint64  // of this process, from 1; the cursor of Router.Recent
	origin       *origin // nil: it is the first choice for its request
	nonce        uint64
	stats        *strategyStats
	alternatives [strategy.MaxAlternatives]strategy.Pick
	explanation  atomic.Pointer[Explanation]
	firstToken   atomic.Int64 // nanoseconds after At, 0: not seen, silent: nor waited for, ended: nor seen before the end
	lasts        atomic.Int64 // nanoseconds after At
	work         fleet.Work   // taken with the place
	predicted    float32      // ms to the first token, NaN: unknown
	caller       uint32       // Request.Caller
	ttl          int32        // ms, 0: held
	end          atomic.Pointer[Outcome]
}

// mark is what is known of a decision beside what it shows. They share a byte: a bool
// more and the decision would be of the allocator's next size.
type mark uint8

const (
	bounded mark = 1 << iota // it counts in Router.pools
	sampled                  // watchers see what it had to choose from
)

// origin is why a decision is another than the first choice for its request.
type origin struct {
	before   *Decision // the attempt before this one, or the one that it hedges; nil: none
	hedges   bool      // that attempt has not ended: who answers first counts
	fallback *Fallback // what the decision stands in for, nil: nothing
	queued   time.Duration
	asked    string           // the model type that the request named, where it is an alias
	source   *strategy.Source // of a request of the data plane
	ended    Failure          // how the wait for a place ended, where that is the failure
	lacked   Failure          // what was lacked then
	failed   uint64           // number among those that found no head, 0: it found one
}

// RequestID is that of the request of the data plane that the decision is for, "" of
// another.
func (d *Decision) RequestID() string {
	if d.origin == nil || d.origin.source == nil {
		return ""
	}
	return d.origin.source.RequestID
}

// ReceivedAt is when the data plane received the request, the zero time of another.
func (d *Decision) ReceivedAt() time.Time {
	if d.origin == nil || d.origin.source == nil {
		return time.Time{}
	}
	return d.origin.source.Received
}

// Asked is the model type that the request named: ModelType, an alias of it, or what
// Fallback stands in for.
func (d *Decision) Asked() string {
	switch {
	case d.origin == nil:
		return d.ModelType
	case d.origin.asked != "":
		return d.origin.asked
	case d.origin.fallback != nil:
		return d.origin.fallback.ModelType
	}
	return d.ModelType
}

// Queued is how long the request waited for a place until the decision.
func (d *Decision) Queued() time.Duration {
	if d.origin == nil {
		return 0
	}
	return d.origin.queued
}

// Before is the attempt before this one, whose Outcome is why another head was
// tried, or the one that it hedges; nil: none.
func (d *Decision) Before() *Decision {
	if d.origin == nil {
		return nil
	}
	return d.origin.before
}

// Proxied reports whether the data plane made the decision: it holds the place.
func (d *Decision) Proxied() bool { return d.ttl == 0 }

// Sampled reports whether watchers see what the decision had to choose from.
func (d *Decision) Sampled() bool { return d.marks&sampled != 0 }

// MadeFor reports whether the decision was made for a caller.
func (d *Decision) MadeFor(caller uint32) bool { return d.caller == caller }

// Hedges reports whether the decision stands beside the one before it.
func (d *Decision) Hedges() bool { return d.origin != nil && d.origin.hedges }

// Fallback is what the decision stands in for, nil: nothing.
func (d *Decision) Fallback() *Fallback {
	if d.origin == nil {
		return nil
	}
	return d.origin.fallback
}

// RuleByCaller is Decision.Rule when the request named the strategy.
const RuleByCaller = -2

const idPrefix = "dec_"

// ID is the decision's name: dec_ and 32 hexadecimal digits.
func (d *Decision) ID() string { return string(d.AppendID(nil)) }

// AppendID appends the ID to b.
func (d *Decision) AppendID(b []byte) []byte {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], d.number())
	binary.BigEndian.PutUint64(raw[8:], d.nonce)
	return hex.AppendEncode(append(b, idPrefix...), raw[:])
}

// Work is what was known of the prompt: its tokens, and those of them that the head
// was not known to have cached. It is zero where the request said nothing of it.
func (d *Decision) Work() fleet.Work { return d.work }

// Predicted is the time to the first token in ms that was to be expected, NaN
// where too little was known.
func (d *Decision) Predicted() float64 { return float64(d.predicted) }

// failed is the number among those that found no head, 0: it found one.
func (d *Decision) failed() uint64 {
	if d.origin == nil {
		return 0
	}
	return d.origin.failed
}

// number is what the ring of the decision has it under.
func (d *Decision) number() uint64 {
	if d.Head == nil {
		return d.failed() | failureBit
	}
	return d.sequence
}

func parseID(id string) (number, nonce uint64, ok bool) {
	digits, found := strings.CutPrefix(id, idPrefix)
	if !found || len(digits) != 32 || strings.ToLower(digits) != digits {
		return 0, 0, false
	}
	var raw [16]byte
	if _, err := hex.Decode(raw[:], []byte(digits)); err != nil {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:]), true
}

// Alternatives are the heads to try next, best first.
func (d *Decision) Alternatives() []strategy.Pick { return d.alternatives[:d.n] }

// Outcome is how the request ended; ok is false while it has not.
func (d *Decision) Outcome() (o Outcome, ok bool) {
	if end := d.end.Load(); end != nil {
		return *end, true
	}
	return Outcome{}, false
}

// Explanation is what the decision saw, as long as that is kept; nil: not written.
func (d *Decision) Explanation() *Explanation { return d.explanation.Load() }

// ExpiresAt is when the reservation ends unless its outcome comes first. Progress
// renews it, and so does a head that reports that the request runs. It is the zero
// time for a held one.
func (d *Decision) ExpiresAt() time.Time {
	if d.held() {
		return time.Time{}
	}
	return d.At.Add(time.Duration(d.lasts.Load()))
}

// held reports whether the reservation lasts until its caller ends it. What others
// report of it changes nothing.
func (d *Decision) held() bool { return d.ttl == 0 }

// lifetime is how long the reservation lasts unless it is renewed, 0: it is held.
func (d *Decision) lifetime() time.Duration { return time.Duration(d.ttl) * time.Millisecond }

// renew lets the reservation last at least until then.
func (d *Decision) renew(until time.Time) {
	for lasts := int64(until.Sub(d.At)); ; {
		old := d.lasts.Load()
		if old >= lasts || d.lasts.CompareAndSwap(old, lasts) {
			return
		}
	}
}

// Decision.firstToken of a decision that ended without one, and of one that gave no
// sign of life for so long that none is waited for.
const (
	ended  = -1
	silent = -2
)

// A caller of the decision API may never say how its request went, nor whether it was
// sent at all. The prompt of a reservation is ahead of others at its head until its first
// token or its outcome is reported, or a request that was placed later begins to be
// answered, as engines compute prompts in the order in which they come. A head whose first
// tokens are seen is waited for no longer than so many times what was expected and this.
const (
	silentTimes = 2
	silentAfter = 5 * time.Second
)

// silentNow reports whether no sign of life of the request is waited for any more.
func (d *Decision) silentNow(now time.Time) bool {
	live := d.Head.Live
	if live.Passed(d.At) {
		return true
	}
	expected := time.Duration(0) // nothing is known of the pool
	if times := silentTimes * float64(d.predicted); times > 0 {
		expected = time.Duration(min(times, math.MaxInt32)) * time.Millisecond
	}
	return live.FirstTokens() > 0 && now.Sub(d.At) >= expected+silentAfter
}

// silence gives back what the prompt weighs, once.
func (d *Decision) silence() {
	if d.firstToken.CompareAndSwap(0, silent) {
		d.Head.Live.Silent(d.work.Pending)
	}
}

// due is when the reservation is looked at next: while a sign of life is waited for,
// whenever it is twice as old.
func (d *Decision) due(now time.Time) time.Time {
	if d.firstToken.Load() != 0 {
		return d.ExpiresAt()
	}
	return sooner(now.Add(now.Sub(d.At)), d.ExpiresAt())
}

// begins notes the first token, so long after the choice, and reports whether it is the
// first. It returns the pending tokens to give back.
func (d *Decision) begins(after time.Duration) (pending int32, first bool) {
	switch {
	case d.firstToken.CompareAndSwap(0, int64(after)):
		return d.work.Pending, true
	case d.firstToken.CompareAndSwap(silent, int64(after)):
		return 0, true
	}
	return 0, false
}

// FirstTokenAt is when the head began to answer, the zero time if that was not
// reported.
func (d *Decision) FirstTokenAt() time.Time {
	if ns := d.firstToken.Load(); ns > 0 {
		return d.At.Add(time.Duration(ns))
	}
	return time.Time{}
}

// AppendReason appends, in words, why this head was chosen.
func (d *Decision) AppendReason(b []byte) []byte {
	b = d.AppendChoice(b)
	if f := d.Fallback(); f != nil {
		b = append(append(append(b, "; fallback from "...), f.ModelType...), ' ')
		if f.Region != "" {
			b = append(append(append(b, "in "...), f.Region...), ' ')
		}
		b = append(append(b, '('), f.Why.String()...)
		b = append(b, ')')
	}
	for ; d.Before() != nil; d = d.Before() {
		a, how := d.Before(), "; before that "
		if d.Hedges() {
			how = "; beside "
		}
		b = append(append(b, how...), a.Head.ID...)
		if end := a.end.Load(); end != nil && (!d.Hedges() || end.Result == ResultError) { // or it was withdrawn, or goes on
			b = end.appendReason(append(b, ": "...))
		}
	}
	return b
}

// appendReason appends how an attempt ended, after which another head was tried.
func (o *Outcome) appendReason(b []byte) []byte {
	b = append(b, o.Result.String()...)
	switch {
	case o.Fault != "" && !strings.HasPrefix(o.Fault, "status_"): // that has a code
		b = fmt.Appendf(b, " (%s)", o.Fault)
	case o.StatusCode > 0:
		b = fmt.Appendf(b, " %d", o.StatusCode)
	}
	if o.Duration >= 0 {
		b = fmt.Appendf(b, " after %.3g s", o.Duration/1000)
	}
	return b
}

// AppendChoice is AppendReason without the fallback and the attempts before.
func (d *Decision) AppendChoice(b []byte) []byte {
	if d.Head == nil {
		b = append(append(b, "no head: "...), d.Failure.String()...)
		if of := d.origin; of != nil && of.lacked != 0 {
			if of.ended == FailQueueTimeout {
				b = fmt.Appendf(b, " after %.3g s", of.queued.Seconds())
			}
			b = append(append(b, ", "...), of.lacked.String()...)
		}
		return b
	}
	switch {
	case d.Trial:
		b = append(b, "trial request of an ejected head"...)
	case d.Head.Ejected():
		b = append(b, "an ejected head, since no other may serve the request"...)
	case d.Sticky:
		b = append(b, "the session's head"...)
	default:
		b = append(b, d.Strategy...)
		if d.Cost == d.Cost { //nolint:gocritic // false for NaN only
			b = append(b, ": cost "...)
			b = strconv.AppendFloat(b, d.Cost, 'g', 4, 64)
		}
	}
	b = append(b, ", of "...)
	b = strconv.AppendInt(b, int64(d.Candidates), 10)
	if d.Candidates == 1 {
		b = append(b, " candidate"...)
	} else {
		b = append(b, " candidates"...)
	}
	switch {
	case d.Astray:
		return append(b, "; no head and no policy knows the region, so all are equally far"...)
	case d.Region == "":
		return b
	case d.Cheaper:
		b = append(b, " in all regions; "...)
		b = append(b, d.Head.Region...)
		b = append(b, " is cheaper than "...)
	case d.Spilled:
		b = append(b, " in "...)
		b = append(b, d.Head.Region...)
		b = append(b, "; spilled: no head available in "...)
	default:
		b = append(b, " in "...)
		return append(b, d.Head.Region...)
	}
	b = append(b, d.Region...)
	if d.Distance == d.Distance { //nolint:gocritic // false for NaN only
		b = append(b, ", "...)
		b = strconv.AppendFloat(b, d.Distance, 'g', 4, 64)
		b = append(b, " ms away"...)
	}
	return b
}

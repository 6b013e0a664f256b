package registry

import (
	"fmt"
	"sync/atomic"
	"time"

	"headway/internal/fleet"
)

// outcomes counts how the requests at one head ended since it began to take
// requests, or since it was ejected. It is replaced then, so that requests that
// were placed before count no more. All of it is lock-free: an outcome takes the
// registry's mutex only when a threshold is crossed.
type outcomes struct {
	registry *Registry
	errors   atomic.Int64     // since the last request that ended well
	halves   [2]atomic.Uint64 // of the window: number, requests and errors in one word each
	quiet    atomic.Int64     // nanoseconds after Registry.began up to which no threshold is acted on
	held     atomic.Bool      // the mass-expiry guard keeps the head
	trial    atomic.Int64     // of an ejected head
}

// The states of a trial: exactly one decision takes an offered trial.
const (
	trialNone int64 = iota
	trialOffered
	trialTaken // and above: the nanoseconds after Registry.began at which it was taken
)

// Observe counts what a request ended with, unless the head is ejected.
func (o *outcomes) Observe(h *fleet.Head, end fleet.Ending, at time.Time) {
	if h.Health != fleet.HealthEjected {
		o.observe(h, end, at)
	}
}

// ObserveTrial ends the trial, or counts what it ended with.
func (o *outcomes) ObserveTrial(h *fleet.Head, end fleet.Ending, at time.Time) {
	if r := o.registry; r.o.Eject.Enabled && !r.endTrial(h, end) {
		o.observe(h, end, at)
	}
}

// TrialAnswers ends the ejection.
func (o *outcomes) TrialAnswers(h *fleet.Head) { o.registry.endTrial(h, fleet.EndedWell) }

func (o *outcomes) observe(h *fleet.Head, end fleet.Ending, at time.Time) {
	r := o.registry
	if !r.o.Eject.Enabled {
		return
	}
	switch {
	case end == fleet.EndedUnknown, end == fleet.EndedUnreported:
	case end == fleet.EndedWell:
		if o.errors.Load() != 0 {
			o.errors.Store(0)
		}
		o.count(at, 0)
	case o.held.Load():
		r.letGo(h)
	default:
		o.errors.Add(1)
		o.count(at, 1)
		if why, detail := o.judge(at); why != "" && int64(at.Sub(r.began)) >= o.quiet.Load() {
			r.judgeHead(h, o, why, detail)
		}
	}
}

// A half of the window is one word: its number, the requests that ended in it
// and how many of them with an error.
const (
	halfBits = 20
	halfMask = 1<<halfBits - 1
)

// half is the number of the half of the window that at is in.
func (o *outcomes) half(at time.Time) uint64 {
	return uint64(at.Sub(o.registry.began) / (o.registry.o.Eject.Window / 2))
}

// tagOf is what the word of a half begins with.
func tagOf(half uint64) uint64 { return (half & (1<<(64-2*halfBits) - 1)) << (2 * halfBits) }

// count notes a request that ended.
func (o *outcomes) count(at time.Time, failed uint64) {
	number := o.half(at)
	tag, half := tagOf(number), &o.halves[number&1]
	for {
		old := half.Load()
		next := old
		if old&^(1<<(2*halfBits)-1) != tag {
			next = tag
		}
		if next>>halfBits&halfMask < halfMask { // full: what is counted is enough to judge by
			next += 1<<halfBits + failed
		}
		if half.CompareAndSwap(old, next) {
			return
		}
	}
}

// judge returns why the head is at fault at a time, by the last half to whole of
// the window and the errors in a row; "" if it is not.
func (o *outcomes) judge(at time.Time) (why, detail string) {
	var requests, errors uint64
	number := o.half(at)
	for _, n := range []uint64{number, number - 1} {
		if half := o.halves[n&1].Load(); half&^(1<<(2*halfBits)-1) == tagOf(n) {
			requests, errors = requests+half>>halfBits&halfMask, errors+half&halfMask
		}
	}
	return o.registry.o.Eject.judge(o.errors.Load(), requests, errors)
}

// TryTrial takes the trial that is offered, and a place at the head for a prompt
// of so many tokens.
func (o *outcomes) TryTrial(h *fleet.Head, tokens int64) bool {
	if o.trial.Load() != trialOffered {
		return false
	}
	taken := trialTaken + int64(o.registry.o.Now().Sub(o.registry.began))
	if !o.trial.CompareAndSwap(trialOffered, taken) {
		return false
	}
	if !h.Live.TryAcquire(h.MaxInFlight, tokens) {
		o.trial.CompareAndSwap(taken, trialOffered)
		return false
	}
	return true
}

// Why a head was ejected.
const (
	ejectedForErrors = "consecutive_errors"
	ejectedForShare  = "error_share"
	ejectedForTrial  = "trial_failed"
)

// judge returns why a head with these counts is at fault, "" if it is not.
func (o *EjectOptions) judge(failures int64, requests, errors uint64) (why, detail string) {
	switch {
	case o.ConsecutiveErrors > 0 && failures >= int64(o.ConsecutiveErrors):
		return ejectedForErrors, fmt.Sprintf("errors in a row: %d", failures)
	case o.ErrorShare < 1 && requests >= uint64(o.MinRequests) && float64(errors) >= o.ErrorShare*float64(requests):
		return ejectedForShare, fmt.Sprintf("requests of late that ended with an error: %d of %d", errors, requests)
	}
	return "", ""
}

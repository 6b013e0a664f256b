package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// EjectOptions say when a head is taken out of rotation for the errors that
// requests there end with, and for how long. A zero value but Enabled is the
// default.
type EjectOptions struct {
	Enabled           bool
	ConsecutiveErrors int           // in a row that eject a head; 5; negative: none do
	ErrorShare        float64       // of the requests of a window that ejects; 0.5; 1: none does
	MinRequests       int           // of a window before its share counts; 20
	Window            time.Duration // 30 s; the share is of its last half to all of it
	BaseTime          time.Duration // of the first ejection, doubled with each that follows; 10 s
	MaxTime           time.Duration // 5 min
	MaxShare          float64       // of the heads of a model type that may be out at once; 0.5
}

// Complete fills in the defaults.
func (o *EjectOptions) Complete() error {
	o.ConsecutiveErrors = cmp.Or(o.ConsecutiveErrors, 5)
	o.ErrorShare = cmp.Or(o.ErrorShare, 0.5)
	o.MinRequests = cmp.Or(o.MinRequests, 20)
	o.Window = cmp.Or(o.Window, 30*time.Second)
	o.BaseTime = cmp.Or(o.BaseTime, 10*time.Second)
	o.MaxTime = cmp.Or(o.MaxTime, 5*time.Minute)
	o.MaxShare = cmp.Or(o.MaxShare, 0.5)
	o.MaxTime = max(o.MaxTime, o.BaseTime)
	switch {
	case o.Window < 2 || o.BaseTime < 0 || o.MaxTime < 0 || o.MinRequests < 0:
		return errors.New("the window and times of ejections must be positive")
	case !(o.ErrorShare > 0 && o.ErrorShare <= 1) || !(o.MaxShare > 0 && o.MaxShare <= 1):
		return errors.New("ErrorShare and MaxShare must be over 0 and at most 1")
	}
	return nil
}

// Excess is how many more heads of a model type are out than may be, with so many
// more. Of those that would take requests one always stays.
func (o *EjectOptions) Excess(p *Pool, more int) int {
	out := len(p.All.Ejected.Heads)
	heads := out + p.All.Routable()
	return out + more - min(int(o.MaxShare*float64(heads)), heads-1)
}

// Ejections is what is remembered of a head's ejections after they ended.
type Ejections struct {
	Ended    time.Time // when the last one did
	Forgiven bool      // a registration ended an ejection early

	doublings int
	term      time.Duration // of the last ejection
}

// Next is how long an ejection at now lasts. Each time as long as the last
// ejection that passed without another takes one doubling back.
func (l *Ejections) Next(o *EjectOptions, now time.Time) time.Duration {
	if l.term > 0 && !l.Ended.IsZero() {
		l.doublings = max(l.doublings-int(min(now.Sub(l.Ended)/l.term, 64)), 0)
	}
	if l.doublings == 0 {
		l.Forgiven = false
	}
	l.term = min(o.BaseTime<<l.doublings, o.MaxTime)
	if l.term < o.MaxTime || l.doublings == 0 {
		l.doublings++
	}
	l.Ended = time.Time{}
	return l.term
}

// Why a head was ejected.
const (
	EjectedForErrors = "consecutive_errors"
	EjectedForShare  = "error_share"
	EjectedForTrial  = "trial_failed"
	EjectedForCheck  = "health_check"
)

// Endings counts how the requests at one head ended. Its methods are safe for
// concurrent use and take no lock.
type Endings struct {
	errors atomic.Int64     // since the last request that ended well
	halves [2]atomic.Uint64 // of the window: number, requests and errors in one word each
}

// A half of the window is one word: its number, the requests that ended in it
// and how many of them with an error.
const (
	halfBits = 20
	halfMask = 1<<halfBits - 1
)

// half is the number of the half of the window that at is in.
func (o *EjectOptions) half(at time.Duration) uint64 {
	return uint64(at / (o.Window / 2))
}

// tagOf is what the word of a half begins with.
func tagOf(half uint64) uint64 { return (half & (1<<(64-2*halfBits) - 1)) << (2 * halfBits) }

// Well counts a request that ended well. Times count from any one moment.
func (e *Endings) Well(o *EjectOptions, at time.Duration) {
	if e.errors.Load() != 0 {
		e.errors.Store(0)
	}
	e.count(o, at, 0)
}

// Badly counts a request that ended with an error.
func (e *Endings) Badly(o *EjectOptions, at time.Duration) {
	e.errors.Add(1)
	e.count(o, at, 1)
}

func (e *Endings) count(o *EjectOptions, at time.Duration, failed uint64) {
	number := o.half(at)
	tag, half := tagOf(number), &e.halves[number&1]
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

// Judge returns why the head is at fault at a time, by the last half to whole of
// the window and the errors in a row; "" if it is not.
func (e *Endings) Judge(o *EjectOptions, at time.Duration) (why, detail string) {
	var requests, failed uint64
	number := o.half(at)
	for _, n := range []uint64{number, number - 1} {
		if half := e.halves[n&1].Load(); half&^(1<<(2*halfBits)-1) == tagOf(n) {
			requests, failed = requests+half>>halfBits&halfMask, failed+half&halfMask
		}
	}
	return o.judge(e.errors.Load(), requests, failed)
}

// judge returns why a head with these counts is at fault, "" if it is not.
func (o *EjectOptions) judge(inARow int64, requests, failed uint64) (why, detail string) {
	switch {
	case o.ConsecutiveErrors > 0 && inARow >= int64(o.ConsecutiveErrors):
		return EjectedForErrors, fmt.Sprintf("errors in a row: %d", inARow)
	case o.ErrorShare < 1 && requests >= uint64(o.MinRequests) && float64(failed) >= o.ErrorShare*float64(requests):
		return EjectedForShare, fmt.Sprintf("requests of late that ended with an error: %d of %d", failed, requests)
	}
	return "", ""
}

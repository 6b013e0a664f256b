package registry

import (
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
	endings  fleet.Endings
	quiet    atomic.Int64 // nanoseconds after Registry.began up to which no threshold is acted on
	held     atomic.Bool  // the mass-expiry guard keeps the head
	trial    atomic.Int64 // of an ejected head
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
		o.endings.Well(&r.o.Eject, at.Sub(r.began))
	case o.held.Load():
		r.letGo(h)
	default:
		o.endings.Badly(&r.o.Eject, at.Sub(r.began))
		if why, detail := o.judge(at); why != "" && int64(at.Sub(r.began)) >= o.quiet.Load() {
			r.judgeHead(h, o, why, detail)
		}
	}
}

// TryTrial takes the trial that is offered, and a place at the head with the work.
func (o *outcomes) TryTrial(h *fleet.Head, w fleet.Work) bool {
	if o.trial.Load() != trialOffered {
		return false
	}
	taken := trialTaken + int64(o.registry.o.Now().Sub(o.registry.began))
	if !o.trial.CompareAndSwap(trialOffered, taken) {
		return false
	}
	if !h.Live.TryAcquire(h.MaxInFlight, w) {
		o.trial.CompareAndSwap(taken, trialOffered)
		return false
	}
	return true
}

// judge returns why the head is at fault at a time, "" if it is not.
func (o *outcomes) judge(at time.Time) (why, detail string) {
	return o.endings.Judge(&o.registry.o.Eject, at.Sub(o.registry.began))
}

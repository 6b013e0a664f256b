package registry

import (
	"context"
	"slices"
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
)

// ejection is why and until when a head is out of rotation. It is soft state: a
// restart forgets it. A head comes back when a trial request after its time
// ended well.
type ejection struct {
	detail     string // why
	until      time.Time
	unreported int // trials whose ends were not reported
	overdue    int // trials under way beside the last one, which took too long
}

// describe returns why the head is out and until when, the zero time when it waits
// for the end of its trial.
func (j *ejection) describe(trial int64) (reason string, until time.Time) {
	switch {
	case trial == trialOffered:
		return j.detail + "; the next request is its trial", time.Time{}
	case trial >= trialTaken:
		return j.detail + "; its trial request is under way", time.Time{}
	}
	return j.detail, j.until
}

// Reasons of headway_reinstatements_total: what ended an ejection.
const (
	reinstatedByTrial        = "trial"
	reinstatedByOperator     = "operator"
	reinstatedByRegistration = "registration"
	reinstatedByCheck        = "check"
	reinstatedByPool         = "pool"       // too few other heads of its model types take requests
	reinstatedBySilence      = "unreported" // the ends of trials are not reported
)

// unreportedTrials is how many trials may end without a report: where nothing is
// reported any more, errors would keep a head out for ever. One that goes on is
// no such, since a head that hangs answers none.
const unreportedTrials = 2

// trialTime is how long a trial is waited for at least, before another is
// offered: a request may last an hour.
const trialTime = 30 * time.Second

// at returns the entry of h if it still counts what h counts; r.mu must be held.
func (r *Registry) at(h *fleet.Head) *entry {
	if e := r.heads[h.ID]; e != nil && e.outcomes == h.Outcomes {
		return e
	}
	return nil
}

// refusalPause is how long a head at fault that may not be ejected is not judged
// again.
const refusalPause = time.Second

// judgeHead ejects a head that was found at fault, unless too many of its model
// types are out.
func (r *Registry) judgeHead(h *fleet.Head, o *outcomes, why, detail string) {
	defer r.flush()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.publish(nil) // what is staged counts
	e, now := r.at(h), r.o.Now()
	o.quiet.Store(int64(now.Add(refusalPause).Sub(r.began)))
	switch {
	case e == nil || !e.head.Routable():
	case !r.mayEject(e):
		r.metrics.ejectionsRefused.Inc()
		r.keepFailing(e, detail, now)
		r.o.Log.Warn("a head is not ejected for its errors: too many of its model types are, or it is the last",
			"head", h.ID, "region", h.Region, "detail", detail)
	default:
		r.takeOut(e, why, detail, now)
	}
}

// takeOut takes e out of rotation; r.mu must be held.
func (r *Registry) takeOut(e *entry, why, detail string, now time.Time) {
	e.ejection = &ejection{detail: detail, until: now.Add(e.history.Next(&r.o.Eject, now))}
	e.outcomes = &outcomes{registry: r}
	r.forgiveFailing(e)
	r.ejected[e] = true
	r.metrics.ejections[why].Inc()
	r.stage(e)
	r.emit(event.HeadEjected, e.head, ejectionState{why, detail, &e.ejection.until}, now)
}

// reinstate ends e's ejection; r.mu must be held, and the caller stages the head.
// The ends of its trials count from now on, those of requests before them do not.
func (r *Registry) reinstate(e *entry, by string, now time.Time) {
	e.ejection = nil
	e.history.Ended = now
	e.outcomes.trial.Store(trialNone)
	e.outcomes.held.Store(e.health == fleet.HealthHeld)
	delete(r.ejected, e)
	r.metrics.reinstatements[by].Inc()
	r.emit(event.HeadReinstated, e.head, ejectionState{Reason: by}, now)
}

// mayEject reports whether one of the model types of the head keeps enough heads,
// of all its regions, that take requests. One is enough: a head that serves
// another one alone stays the last resort of that.
func (r *Registry) mayEject(e *entry) bool {
	s := r.snapshot.Load()
	return slices.ContainsFunc(e.head.ModelTypes, func(m string) bool {
		return s.Pools[m] != nil && r.o.Eject.Excess(s.Pools[m], 1) <= 0
	})
}

// relieve brings heads back all of whose model types have too few others left,
// those first whose time ends first. r.mu must be held.
func (r *Registry) relieve(s *fleet.Snapshot, models []string) {
	now, back := r.o.Now(), map[string]int{} // by model type
	excess := func(model string) int {
		if s.Pools[model] == nil {
			return 0 // the next snapshot has it, and is looked at
		}
		return r.o.Eject.Excess(s.Pools[model], -back[model])
	}
	for _, model := range models {
		var out []*entry
		for _, h := range s.Pools[model].All.Ejected.Heads {
			if e := r.heads[h.ID]; e != nil && e.ejection != nil {
				out = append(out, e)
			}
		}
		slices.SortStableFunc(out, func(a, b *entry) int { return a.ejection.until.Compare(b.ejection.until) })
		for _, e := range out {
			if excess(model) <= 0 {
				break
			}
			if slices.ContainsFunc(e.head.ModelTypes, func(m string) bool { return excess(m) <= 0 }) {
				continue
			}
			for _, m := range e.head.ModelTypes {
				back[m]++
			}
			r.reinstate(e, reinstatedByPool, now)
			r.stage(e)
		}
	}
	r.publish(nil)
}

// endTrial takes what is known of the trial request of an ejected head. It
// reports false where the ejection was over before.
func (r *Registry) endTrial(h *fleet.Head, end fleet.Ending) bool {
	defer r.flush()
	r.mu.Lock()
	defer r.mu.Unlock()
	e, now := r.at(h), r.o.Now()
	switch {
	case e == nil || e.ejection == nil:
		return false
	case end == fleet.EndedWell:
		r.reinstate(e, reinstatedByTrial, now)
		r.stage(e)
	case end == fleet.EndedBadly:
		r.takeOut(e, fleet.EjectedForTrial, "the trial request ended with an error", now)
	default:
		r.returnTrial(e, end, now)
	}
	return true
}

// returnTrial takes that a trial ended and proved nothing, so that another request
// is the trial: the next one, unless one is under way still. r.mu must be held.
func (r *Registry) returnTrial(e *entry, end fleet.Ending, now time.Time) {
	if end == fleet.EndedUnreported {
		e.ejection.unreported++
	}
	trial := e.outcomes.trial.Load()
	switch {
	case e.ejection.unreported >= unreportedTrials:
		r.reinstate(e, reinstatedBySilence, now)
	case e.ejection.overdue > 0:
		e.ejection.overdue--
	case trial >= trialTaken:
		e.outcomes.trial.CompareAndSwap(trial, trialOffered)
	}
	r.stage(e)
}

// offerTrials lets heads whose time is over have a trial request, and takes
// those that are taken from the offers. sweep calls it.
func (r *Registry) offerTrials(now time.Time) {
	for e := range r.ejected {
		trial := &e.outcomes.trial
		is := trial.Load()
		lasts := now.Sub(r.began) - time.Duration(is-trialTaken)
		if is >= trialTaken && lasts >= max(r.o.Eject.BaseTime, trialTime) && trial.CompareAndSwap(is, trialOffered) {
			e.ejection.overdue++
		}
		if !now.Before(e.ejection.until) {
			trial.CompareAndSwap(trialNone, trialOffered)
		}
		if e.mayBeTried() != e.head.Trial {
			r.stage(e)
		}
	}
}

// mayBeTried reports whether a decision may take e's trial: not while the checks of
// its health fail, since a request of a caller would.
func (e *entry) mayBeTried() bool {
	return e.unwell == "" && e.outcomes.trial.Load() == trialOffered && e.healthy() && e.record.Admin.State == fleet.AdminEnabled
}

// letGo expires a held head at which a request failed: it is not only its
// reports that are missing.
func (r *Registry) letGo(h *fleet.Head) {
	defer r.flush()
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.at(h); e != nil && e.health == fleet.HealthHeld {
		r.o.Log.Warn("a head that the mass-expiry guard held failed a request: it is let go", "head", h.ID, "region", h.Region)
		now := r.o.Now()
		r.expireNow(e, now)
		r.schedule(e)
	}
}

// EndEjection ends the ejection of a head before its time, and forgets those
// before. The errors are ErrHeadNotFound, ErrNotEjected and the audit trail's.
func (r *Registry) EndEjection(ctx context.Context, id string) error {
	before, err := r.Head(id)
	if err != nil {
		return err
	}
	if !before.Ejected {
		return fleet.ErrNotEjected
	}
	return r.audited(ctx, "head.reinstate", &before.Record.Spec, nil, nil, func() error {
		defer r.flush()
		r.mu.Lock()
		defer r.mu.Unlock()
		e := r.heads[id]
		switch {
		case e == nil:
			return fleet.ErrHeadNotFound
		case e.ejection == nil:
			return fleet.ErrNotEjected
		}
		r.reinstate(e, reinstatedByOperator, r.o.Now())
		e.history = fleet.Ejections{}
		r.stage(e)
		return nil
	})
}

// keepFailing notes that e is at fault and stays in rotation, since it may not be
// ejected. r.mu must be held.
func (r *Registry) keepFailing(e *entry, detail string, now time.Time) {
	e.fault = detail
	if r.failing[e] {
		return
	}
	r.failing[e] = true
	r.stage(e)
	r.emitState(event.HeadChanged, e, now)
}

// forgiveFailing forgets what e was found at fault for; the caller stages the
// head. r.mu must be held.
func (r *Registry) forgiveFailing(e *entry) {
	e.fault = ""
	delete(r.failing, e)
}

// lookAtFailing finds the heads that stayed at fault and are not any more. sweep
// calls it: a request that ends well takes no lock.
func (r *Registry) lookAtFailing(now time.Time) {
	for e := range r.failing {
		if e.unwell != "" {
			e.fault = e.unwell
			continue
		}
		if why, detail := e.outcomes.judge(now); why != "" {
			e.fault = detail
			continue
		}
		r.forgiveFailing(e)
		r.stage(e)
		r.emitState(event.HeadChanged, e, now)
	}
}

// whyKept says why e, which is at fault, stays in rotation. r.mu must be held.
func (r *Registry) whyKept(e *entry) string {
	s := r.snapshot.Load()
	switch {
	case r.mayEject(e):
		return "the next error ejects it"
	case slices.ContainsFunc(e.head.ModelTypes, func(m string) bool { return s.Pools[m] != nil && s.Pools[m].All.Routable() > 1 }):
		return "not ejected, since as many heads of its model types are as may be (eject.max_share)"
	}
	return "not ejected, since no other head of its model types takes requests"
}

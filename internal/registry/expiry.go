package registry

import (
	"cmp"
	"errors"
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
)

// LeaseOptions are the rules of leases. A zero value is the default.
type LeaseOptions struct {
	BaseInterval        time.Duration // between reports of a head in a small fleet; 2 s
	MaxReportsPerSecond int           // of the whole fleet; the interval grows with it; 2,000
	RemoveAfter         time.Duration // of silence after which a stale head is removed; 1 h
	SlowStart           time.Duration // how long a new head counts as loaded; 30 s
	GuardShare          float64       // of a pool overdue at once that trips the mass-expiry guard; 0.5
	GuardMinHeads       int           // the smallest pool that the guard watches; 4
	GuardHold           time.Duration // how long it keeps heads that would be stale; 60 s
}

// A head is fresh up to freshIntervals after its last report, suspect up to
// fleet.LeaseIntervals, then stale.
const freshIntervals = 2

func (o *LeaseOptions) complete() error {
	o.BaseInterval = cmp.Or(o.BaseInterval, 2*time.Second)
	o.MaxReportsPerSecond = cmp.Or(o.MaxReportsPerSecond, 2000)
	o.RemoveAfter = cmp.Or(o.RemoveAfter, time.Hour)
	o.SlowStart = cmp.Or(o.SlowStart, 30*time.Second)
	o.GuardShare = cmp.Or(o.GuardShare, 0.5)
	o.GuardMinHeads = cmp.Or(o.GuardMinHeads, 4)
	o.GuardHold = cmp.Or(o.GuardHold, time.Minute)
	switch {
	case min(o.BaseInterval, o.RemoveAfter, o.SlowStart, o.GuardHold) < 0:
		return errors.New("registry: durations of leases must not be negative")
	case o.MaxReportsPerSecond < 1 || o.GuardMinHeads < 1 || o.GuardShare < 0 || o.GuardShare > 1:
		return errors.New("registry: MaxReportsPerSecond and GuardMinHeads must be at least 1, GuardShare 0 to 1")
	}
	return nil
}

// due is when the state of e's lease may change next.
func (r *Registry) due(e *entry) time.Time {
	switch e.health {
	case fleet.HealthPending:
		return e.seen.Add(r.o.Lease.RemoveAfter)
	case fleet.HealthFresh:
		return e.seen.Add(freshIntervals * e.interval)
	case fleet.HealthStale:
		return e.stale.Add(r.o.Lease.RemoveAfter)
	case fleet.HealthHeld:
		return e.seen // every tick: the guard may let go of it
	}
	return e.seen.Add(fleet.LeaseIntervals * e.interval)
}

// schedule lets the wheel look at e when its lease may change.
func (r *Registry) schedule(e *entry) { r.wheel.add(e, r.due(e)) }

func (r *Registry) tick() time.Duration {
	return max(min(wheelTick, r.o.Lease.BaseInterval/4), time.Millisecond)
}

// pauseTicks of silence of our own clock mean that this process was stopped,
// and not the heads.
const pauseTicks = 8

// sweep looks at what changes by the passing of time alone.
func (r *Registry) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if gap := now.Sub(r.lastSweep); gap > pauseTicks*r.tick()+time.Second {
		r.o.Log.Warn("this process was paused; leases are extended by as much", "pause", gap.String())
		for _, e := range r.heads { // also those that reported between the last sweep and the pause
			if e.seen = e.seen.Add(gap); e.seen.After(now) {
				e.seen = now
			}
		}
	}
	r.lastSweep = now
	if !r.keepsLeases {
		r.lookAtLeases(now)
	}
	r.offerTrials(now)
	r.lookAtFailing(now)
	r.publish(nil)
	r.writeMarks()
	r.releaseGuards(now)
}

// KeepLeases has no lease end, and no head removed, by silence from now on. It is for a
// service that stops: heads cannot report to it any more, and what it finishes needs them.
func (r *Registry) KeepLeases() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keepsLeases = true
}

// lookAtLeases ends the leases, or removes the heads, whose time came.
func (r *Registry) lookAtLeases(now time.Time) {
	var overdue []*entry
	r.wheel.advance(now, func(e *entry) {
		switch {
		case r.heads[e.record.Spec.ID] != e: // removed
		case now.Before(r.due(e)):
			r.schedule(e)
		case e.health == fleet.HealthFresh:
			e.health = fleet.HealthSuspect
			r.schedule(e)
			r.stage(e)
			r.emitState(event.HeadChanged, e, now)
		case e.health == fleet.HealthPending || e.health == fleet.HealthStale:
			r.reap(e)
		default:
			overdue = append(overdue, e)
		}
	})
	r.expire(overdue, now)
}

// expire makes overdue heads stale, or holds those whose pool the guard keeps.
func (r *Registry) expire(overdue []*entry, now time.Time) {
	judged := map[poolKey]bool{}
	for _, e := range overdue {
		held := false
		for _, key := range keys(e) {
			if _, known := judged[key]; !known {
				judged[key] = r.guard(key, now)
			}
			held = held || judged[key]
		}
		switch {
		case !held:
			r.expireNow(e, now)
		case e.health != fleet.HealthHeld:
			e.health = fleet.HealthHeld
			e.outcomes.held.Store(true)
			r.stage(e)
			r.emitState(event.HeadHeld, e, now)
		}
		r.schedule(e)
	}
}

// expireNow makes a head stale.
func (r *Registry) expireNow(e *entry, now time.Time) {
	e.health, e.stale = fleet.HealthStale, now
	e.outcomes.held.Store(false)
	r.mark(e)
	r.stage(e)
	if !e.head.Withdrawn() && e.status != fleet.StatusOffline { // else it said before that it takes no requests
		r.metrics.expirations.Inc()
		e.expired = e.expired.and(now)
	}
	r.emitState(event.HeadExpired, e, now)
}

// reap removes a head that was silent for so long that it will not come back.
// It is tried again as long as the head is there: the store may have failed.
func (r *Registry) reap(e *entry) {
	again := wheelTick
	if len(r.commits) < ownQueue && r.enqueue(&commit{
		id: e.record.Spec.ID, reaps: true,
		edit: func(cur *fleet.Record, is *entry) (*fleet.Record, error) {
			if cur == nil || is != e || (e.health != fleet.HealthStale && e.health != fleet.HealthPending) || r.o.Now().Before(r.due(e)) {
				return nil, fleet.ErrHeadNotFound // it came back, or is gone
			}
			return nil, nil
		},
	}) {
		again = commitTime
	}
	r.wheel.add(e, r.lastSweep.Add(again))
}

// A head flaps when its lease ran out more than twice within flapWindow. Once or
// twice is a restart, or a network that was away.
const (
	flapWindow = 15 * time.Minute
	flapTimes  = 3
)

// expirations are the last times that the lease of a head ran out, the latest last.
type expirations [flapTimes]time.Time

func (e expirations) and(now time.Time) expirations {
	copy(e[:], e[1:])
	e[flapTimes-1] = now
	return e
}

func (e expirations) flapping(now time.Time) bool {
	return !e[0].IsZero() && now.Sub(e[0]) <= flapWindow
}

// flapping counts the heads that flap. One that was drained or is in maintenance
// since may come and go. r.mu must be held.
func (r *Registry) flapping() (n int) {
	now := r.o.Now()
	for _, e := range r.heads {
		if !e.head.Withdrawn() && e.expired.flapping(now) {
			n++
		}
	}
	return n
}

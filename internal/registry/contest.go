package registry

import (
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
)

// Outcomes of headway_heads_contested_total.
const (
	contestRefused   = "refused"
	contestTakenOver = "taken_over"
)

// contests counts those of one head since the last event about them.
type contests struct {
	emitted time.Time
	count   uint64
}

// contestEvery is how often an event is published about the contests of one head:
// two machines with one id do not flood subscribers.
const contestEvery = time.Minute

// contested refuses a registration that would take the head from another
// endpoint. registered says that an earlier change of the same batch registered
// it. r.mu must be held.
func (r *Registry) contested(c *commit, cur *fleet.Record, e *entry, registered bool) error {
	if !c.registers || c.takeOver || cur == nil || cur.Spec.Endpoint == c.endpoint {
		return nil
	}
	refused := &fleet.ContestedError{ID: c.id, Left: fleet.LeaseIntervals * r.interval(len(r.heads))}
	now := r.o.Now()
	refused.Expires = now.Add(refused.Left)
	if !registered {
		if e == nil || !e.holds(now) {
			return nil
		}
		refused.Expires = e.lease().ExpiresAt
		refused.Left = refused.Expires.Sub(now)
	}
	r.metrics.contested[contestRefused].Inc()
	if e != nil {
		r.emitContest(e, contestRefused, now)
	}
	return refused
}

// holds reports whether the head's lease has not ended, and it has not reported
// that it is offline.
func (e *entry) holds(now time.Time) bool {
	return e.status != fleet.StatusOffline && now.Before(e.lease().ExpiresAt)
}

// emitContest publishes that a head is contested, at most once in a while. r.mu
// must be held.
func (r *Registry) emitContest(e *entry, outcome string, now time.Time) {
	e.contests.count++
	if now.Sub(e.contests.emitted) < contestEvery {
		return
	}
	r.emit(event.HeadContested, e.head, contest{outcome, e.contests.count}, now)
	e.contests = contests{emitted: now}
}

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

// quarrel counts the contests of one head that no event has told of.
type quarrel struct {
	told  time.Time
	count uint64
}

// contestEvery is how often an event tells of the contests of one head: two
// machines with one id do not flood those who listen.
const contestEvery = time.Minute

// contested refuses a registration that would take the head from another
// endpoint. registered says that an earlier change of the same batch registered
// it. r.mu must be held.
func (r *Registry) contested(c *commit, cur *fleet.Record, e *entry, registered bool) error {
	if !c.registers || c.takeOver || cur == nil || cur.Spec.Endpoint == c.endpoint {
		return nil
	}
	refused := &fleet.ContestedError{ID: c.id, Left: fleet.LeaseIntervals * r.interval(len(r.heads))}
	now := r.now()
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
		r.tellContest(e, contestRefused, now)
	}
	return refused
}

// holds reports whether the head has a lease that runs, and did not say that it
// is offline.
func (e *entry) holds(now time.Time) bool {
	return e.status != fleet.StatusOffline && now.Before(e.lease().ExpiresAt)
}

// tellContest publishes that a head is contested, at most once in a while. r.mu
// must be held.
func (r *Registry) tellContest(e *entry, outcome string, now time.Time) {
	e.quarrel.count++
	if now.Sub(e.quarrel.told) < contestEvery {
		return
	}
	r.events.Publish(event.Event{
		Type: event.HeadContested, Time: now, Head: e.head.ID, Region: e.head.Region, ModelTypes: e.head.ModelTypes,
		Data: Contest{Outcome: outcome, Count: e.quarrel.count},
	})
	e.quarrel = quarrel{told: now}
}

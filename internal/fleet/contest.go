package fleet

import (
	"fmt"
	"log/slog"
	"maps"
	"time"

	"headway/internal/audit"
	"headway/internal/event"
)

// ContestedError refuses a registration of an id that another endpoint holds
// with a lease that has not ended: most often two machines have one id.
type ContestedError struct {
	ID      string
	Expires time.Time     // when the lease ends if it is not renewed
	Left    time.Duration // until then
}

func (e *ContestedError) Error() string {
	return fmt.Sprintf("head %s is registered at another endpoint, whose lease ends in %s unless it reports", e.ID, e.Left.Round(time.Millisecond))
}

// Outcomes of headway_heads_contested_total.
const (
	contestRefused   = "refused"
	contestTakenOver = "taken_over"
)

// Contest is the data of an event about an id that two endpoints register.
type Contest struct {
	Outcome string `json:"outcome"` // refused or taken_over
	Count   uint64 `json:"count"`   // since the last event about this head
}

// LogValue writes the contest as fields.
func (c Contest) LogValue() slog.Value {
	return slog.GroupValue(slog.String("outcome", c.Outcome), slog.Uint64("count", c.Count))
}

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
func (r *Registry) contested(c *commit, cur *Record, e *entry, registered bool) error {
	if !c.registers || c.takeOver || cur == nil || cur.Spec.Endpoint == c.endpoint {
		return nil
	}
	refused := &ContestedError{ID: c.id, Left: leaseIntervals * r.interval(len(r.heads))}
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
	return e.status != StatusOffline && now.Before(e.lease().ExpiresAt)
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

// recordings bounds the entries of the audit trail about registrations of one
// head: an id that two machines take from each other again and again, or a head
// that changes with each registration, must not fill it. They outlast a removal.
type recordings struct {
	since   time.Time
	count   int
	skipped int
	by      audit.Actor // of the last registration, if that was not recorded
}

// maxRecordings is how many registrations of a head that change what is stored
// are recorded within recordingsTime.
const (
	maxRecordings  = 10
	recordingsTime = time.Minute
)

// take reports whether one more is to be recorded, and how many were not since
// the last that was.
func (l *recordings) take(now time.Time) (record bool, skipped int) {
	if now.Sub(l.since) >= recordingsTime {
		l.since, l.count = now, 0
	}
	if l.count == maxRecordings {
		l.skipped++
		return false, 0
	}
	l.count++
	skipped, l.skipped = l.skipped, 0
	return true, skipped
}

// maxKeptRecordings bounds the removed heads whose recordings are kept.
const maxKeptRecordings = 4096

// keep remembers the recordings of a head that is removed for as long as they
// bound anything. r.mu must be held.
func (r *Registry) keep(e *entry, now time.Time) {
	if e.recordings.count == 0 {
		return
	}
	if len(r.recordings) >= maxKeptRecordings {
		maps.DeleteFunc(r.recordings, func(_ string, l recordings) bool { return now.Sub(l.since) >= recordingsTime })
	}
	for id := range r.recordings {
		if len(r.recordings) < maxKeptRecordings {
			break
		}
		delete(r.recordings, id)
	}
	r.recordings[e.record.Spec.ID] = e.recordings
}

// recorded reports whether the removal of a head by the actor is to be recorded:
// not if it removes its own registration that was not.
func (r *Registry) recorded(id string, by audit.Actor) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.heads[id]
	if e == nil || e.recordings.by == (audit.Actor{}) || e.recordings.by != by {
		return true
	}
	e.recordings.skipped++
	return false
}

package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"headway/internal/audit"
	"headway/internal/fleet"
)

// auditLimit bounds the entries of the audit trail about registrations of one
// head: an id that two machines take from each other again and again, or a head
// that changes with each registration, must not fill it. It outlasts a removal.
// What is left out is counted, and the count is recorded.
type auditLimit struct {
	id      string
	since   time.Time
	count   int
	skipped int         // since the last entry
	last    audit.Actor // who made the last that was skipped
	creator audit.Actor // who made the head by a registration that was skipped; unchanged by others since
	listed  bool        // in Registry.unrecorded
}

// maxRecordings is how many registrations of a head that change what is stored
// are recorded within recordingsTime.
const (
	maxRecordings  = 10
	recordingsTime = time.Minute
)

// maxKeptRecordings bounds the removed heads whose limits are kept, and the
// heads of which something is left out at a time.
const maxKeptRecordings = 4096

// registered reports whether a registration of e that changes what is stored is
// to be recorded, and how many were not since the last that was. r.mu must be
// held.
func (r *Registry) registered(e *entry, created bool, by audit.Actor) (record bool, skipped int) {
	if e.auditLimit == nil {
		e.auditLimit = &auditLimit{id: e.record.Spec.ID}
	}
	l, now := e.auditLimit, r.o.Now()
	if now.Sub(l.since) >= recordingsTime {
		l.since, l.count = now, 0
	}
	if l.count < maxRecordings || !l.listed && len(r.unrecorded) >= maxKeptRecordings {
		l.count++
		skipped, l.skipped, l.creator = l.skipped, 0, audit.Actor{}
		return true, skipped
	}
	r.leaveOut(l, by)
	switch {
	case created:
		l.creator = by
	case l.creator != by:
		l.creator = audit.Actor{}
	}
	return false, 0
}

// leaveOut counts what is not recorded. r.mu must be held.
func (r *Registry) leaveOut(l *auditLimit, by audit.Actor) {
	if !l.listed {
		l.listed = true
		r.unrecorded = append(r.unrecorded, l)
	}
	l.skipped++
	l.last = by
}

// changed notes that a change of the head is recorded: what follows is about more
// than a registration that is not. r.mu must be held.
func (l *auditLimit) changed() {
	if l != nil {
		l.creator = audit.Actor{}
	}
}

// leavesNothing reports whether a removal of e by the actor ends what the trail
// knows nothing of: a head that the same actor made by a registration that was
// not recorded, less than a minute ago. r.mu must be held.
func (e *entry) leavesNothing(by audit.Actor) bool {
	return e.auditLimit != nil && e.auditLimit.creator == by && by != audit.Actor{}
}

// errToRecord ends a removal that must not go unrecorded.
var errToRecord = errors.New("the removal is to be recorded")

// removeUnrecorded removes a head if that leaves nothing out which the trail has;
// otherwise it does nothing, and fails with errToRecord.
func (r *Registry) removeUnrecorded(ctx context.Context, id string) error {
	by := audit.From(ctx).Actor
	r.mu.Lock()
	e := r.heads[id]
	may := e != nil && e.leavesNothing(by)
	r.mu.Unlock()
	if !may { // the usual, without a turn in the queue
		return errToRecord
	}
	return r.do(ctx, &commit{
		id: id, onPurpose: true,
		edit: func(cur *fleet.Record, e *entry) (*fleet.Record, error) {
			switch {
			case e == nil || !e.leavesNothing(by), cur == nil: // it changed, or is gone
				return nil, errToRecord
			case cur.Epoch > e.epoch || !reflect.DeepEqual(cur.Admin, e.record.Admin): // it changes within this batch
				return nil, errToRecord
			}
			return nil, nil
		},
		seen: func(e *entry) { r.leaveOut(e.auditLimit, by) },
	})
}

// keepAuditLimit remembers the limit of a head that is removed while it bounds
// anything. r.mu must be held.
func (r *Registry) keepAuditLimit(e *entry, now time.Time) {
	if e.auditLimit == nil {
		return
	}
	e.auditLimit.changed()
	if len(r.auditLimits) >= maxKeptRecordings {
		maps.DeleteFunc(r.auditLimits, func(_ string, l *auditLimit) bool { return now.Sub(l.since) >= recordingsTime })
	}
	for id := range r.auditLimits {
		if len(r.auditLimits) < maxKeptRecordings {
			break
		}
		delete(r.auditLimits, id)
	}
	r.auditLimits[e.record.Spec.ID] = e.auditLimit
}

// recordLeftOutEvery is how often is looked for minutes that ended.
const recordLeftOutEvery = time.Second

// recordLeftOut records how much was left out of the trail in the minutes that
// ended, or in all.
func (r *Registry) recordLeftOut(now time.Time, all bool) {
	var entries []audit.Entry
	r.mu.Lock()
	r.unrecorded = slices.DeleteFunc(r.unrecorded, func(l *auditLimit) bool {
		if !all && now.Sub(l.since) < recordingsTime {
			return false
		}
		l.listed = false
		l.changed()
		if l.skipped > 0 {
			entries = append(entries, l.entry())
			l.skipped = 0
		}
		return true
	})
	r.mu.Unlock()
	for _, e := range entries {
		r.o.Audit.Happened(e)
	}
}

// entry is the entry of the trail about what was left out of it.
func (l *auditLimit) entry() audit.Entry {
	return audit.Entry{
		Category: audit.Head, Action: "head.unrecorded", Outcome: audit.Success,
		Reason: fmt.Sprintf("registrations and removals of this head that were not recorded within a minute: %d, the last by %s", l.skipped, strings.TrimSpace(l.last.Type+" "+l.last.ID)),
		Actor:  audit.Actor{Type: "system"}, Target: headTarget(l.id, nil),
	}
}

package registry

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"headway/internal/fleet"
)

// view makes e's view; r.mu must be held.
func (r *Registry) view(e *entry, now time.Time) fleet.View {
	v := fleet.View{
		Head: e.head, Record: e.record, Lease: e.lease(), Report: e.live.Report(),
		InFlight: e.live.InFlight(), Ejected: e.ejection != nil,
	}
	if v.Report != nil {
		v.ReportAge = now.Sub(v.Report.At)
	}
	silent := now.Sub(e.seen).Truncate(time.Millisecond)
	switch e.head.Health {
	case fleet.HealthEjected:
		v.HealthReason, v.HealthUntil = e.ejection.describe(e.outcomes.trial.Load())
		if e.unwell != "" {
			v.HealthReason, v.HealthUntil = e.unwell+"; it is ejected until it is well", time.Time{}
		}
	case fleet.HealthFresh:
		if more := e.live.SlowStart(now); more > 0 {
			v.HealthReason = fmt.Sprintf("starts slowly: counts as having %.1f requests more", more)
			v.HealthUntil = e.live.SlowStartEnds()
		}
	case fleet.HealthFailing:
		v.HealthReason = e.fault + "; " + r.whyKept(e)
	case fleet.HealthPending:
		v.HealthReason, v.HealthUntil = "no healthy report since the registration", r.due(e)
	case fleet.HealthSuspect:
		v.HealthReason, v.HealthUntil = fmt.Sprintf("silent for %s; reports are due every %s", silent, e.interval), r.due(e)
	case fleet.HealthAssumed:
		v.HealthReason, v.HealthUntil = "healthy before the router's restart; lease extended", r.due(e)
	case fleet.HealthStale:
		v.HealthReason, v.HealthUntil = fmt.Sprintf("silent for %s; the lease ran out", silent), r.due(e)
	case fleet.HealthHeld:
		v.HealthReason = "silent, but most of its pool is: held by the mass-expiry guard"
		for _, key := range keys(e) {
			if since, active := r.guards[key]; active {
				v.HealthUntil = since.Add(r.o.Lease.GuardHold)
			}
		}
	}
	if until := e.live.AwayUntil(now); !until.IsZero() && (e.head.Health == fleet.HealthFresh || e.head.Health == fleet.HealthSuspect) {
		v.Paused, v.HealthReason, v.HealthUntil = true, "it asked for a pause: the data plane sends it nothing meanwhile", until
	}
	return v
}

// Head returns the view of a head, or ErrHeadNotFound.
func (r *Registry) Head(id string) (fleet.View, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.heads[id]
	if e == nil {
		return fleet.View{}, fleet.ErrHeadNotFound
	}
	return r.view(e, r.o.Now()), nil
}

// LastEvent is the number of the newest event. What events up to it say of heads is
// in all that Head and List return from now on.
func (r *Registry) LastEvent() uint64 {
	r.mu.Lock() // a change is published, as an event and for List, while it is held
	defer r.mu.Unlock()
	return r.o.Events.Last()
}

// Query selects heads; empty fields select all.
type Query struct {
	ModelType string
	Region    string
	Status    string // as the head reported it
	Limit     int    // at least 1
	Cursor    string // the id after which to go on
}

// List returns heads that q selects, ordered by id, and the cursor of the next
// page, "" at the end.
func (r *Registry) List(q Query) (views []fleet.View, next string) {
	s := r.Snapshot()
	var heads []*fleet.Head
	switch p := s.Pools[q.ModelType]; {
	case q.ModelType == "":
		heads = s.Sorted()
	case p != nil:
		heads = p.All.Heads
	}
	from, found := slices.BinarySearchFunc(heads, q.Cursor, func(h *fleet.Head, id string) int { return strings.Compare(h.ID, id) })
	if found {
		from++
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Now()
	for _, h := range heads[from:] {
		e := r.heads[h.ID]
		if e == nil || (q.Region != "" && h.Region != q.Region) || (q.Status != "" && e.status.String() != q.Status) {
			continue
		}
		if len(views) == q.Limit {
			return views, views[len(views)-1].Head.ID
		}
		views = append(views, r.view(e, now))
	}
	return views, ""
}

// Readiness is what stands between the registry and being ready.
type Readiness struct {
	Loaded  bool // the store was replayed
	StoreUp bool // the last write to it succeeded
	Assumed int  // heads that have not reported since our restart
	Held    int  // heads that take requests because of a mass-expiry guard
}

// Ready reports how ready the registry is. Heads that were healthy before a
// restart are routable at once, so nothing waits for their reports.
func (r *Registry) Ready() Readiness {
	r.mu.Lock()
	defer r.mu.Unlock()
	ready := Readiness{Loaded: r.loaded, StoreUp: !r.storeDown.Load()}
	for _, e := range r.heads {
		switch {
		case e.health == fleet.HealthAssumed:
			ready.Assumed++
		case e.health == fleet.HealthHeld && e.head.Routable():
			ready.Held++
		}
	}
	return ready
}

package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// View is what an operator sees of a head.
type View struct {
	Head         *Head
	Record       Record
	Lease        Lease
	HealthReason string    // "" when there is nothing to say
	HealthUntil  time.Time // when the health changes if nothing happens; zero: it does not
	Report       *Report   // nil before the first
	ReportAge    time.Duration
	InFlight     int64
	Ejected      bool
	SlowStart    float64 // requests that the head counts as having, for being new
}

// view makes e's view; r.mu must be held.
func (r *Registry) view(e *entry, now time.Time) View {
	v := View{
		Head: e.head, Record: e.record, Lease: e.lease(), Report: e.live.Report(),
		InFlight: e.live.InFlight(), Ejected: e.ejection != nil, SlowStart: e.live.SlowStart(now),
	}
	if v.Report != nil {
		v.ReportAge = now.Sub(v.Report.At)
	}
	silent := now.Sub(e.seen).Truncate(time.Millisecond)
	switch e.head.Health {
	case HealthEjected:
		v.HealthReason, v.HealthUntil = e.ejection.say(e.outcomes.trial.Load())
	case HealthFailing:
		v.HealthReason = e.fault + "; " + r.whyKept(e)
	case HealthPending:
		v.HealthReason, v.HealthUntil = "no healthy report since the registration", r.due(e)
	case HealthSuspect:
		v.HealthReason, v.HealthUntil = fmt.Sprintf("silent for %s; reports are due every %s", silent, e.interval), r.due(e)
	case HealthAssumed:
		v.HealthReason, v.HealthUntil = "healthy before the router's restart; lease extended", r.due(e)
	case HealthStale:
		v.HealthReason, v.HealthUntil = fmt.Sprintf("silent for %s; the lease ran out", silent), r.due(e)
	case HealthHeld:
		v.HealthReason = "silent, but most of its pool is: held by the mass-expiry guard"
		for _, key := range keys(e) {
			if since, active := r.guards[key]; active {
				v.HealthUntil = since.Add(r.lease.GuardHold)
			}
		}
	}
	return v
}

// Head returns the view of a head, or ErrHeadNotFound.
func (r *Registry) Head(id string) (View, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.heads[id]
	if e == nil {
		return View{}, ErrHeadNotFound
	}
	return r.view(e, r.now()), nil
}

// Told is the number of the newest event. What events up to it say of heads is in
// all that Head and List return from now on.
func (r *Registry) Told() uint64 {
	r.mu.Lock() // a change is published, as an event and for List, while it is held
	defer r.mu.Unlock()
	return r.events.Last()
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
func (r *Registry) List(q Query) (views []View, next string) {
	var heads []*Head
	if s := r.Snapshot(); q.ModelType != "" {
		if p := s.Pools[q.ModelType]; p != nil {
			heads = p.All.Heads
			if q.Region != "" {
				if heads = nil; p.Regions[q.Region] != nil {
					heads = p.Regions[q.Region].Heads
				}
			}
		}
	} else {
		heads = r.sorted()
	}
	from, found := slices.BinarySearchFunc(heads, q.Cursor, func(h *Head, id string) int { return strings.Compare(h.ID, id) })
	if found {
		from++
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
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

// sorted lists all heads by id. It is made at most once for each snapshot.
func (r *Registry) sorted() []*Head {
	s := r.Snapshot()
	s.sortOnce.Do(func() {
		s.sorted = make([]*Head, 0, s.Heads)
		for _, p := range s.Pools {
			for _, h := range p.All.Heads {
				if h.ModelTypes[0] == p.ModelType { // each head once
					s.sorted = append(s.sorted, h)
				}
			}
		}
		slices.SortFunc(s.sorted, func(a, b *Head) int { return strings.Compare(a.ID, b.ID) })
	})
	return s.sorted
}

// Readiness is what stands between the registry and being ready.
type Readiness struct {
	Loaded  bool // the store was replayed
	StoreUp bool // the last write to it succeeded
	Assumed int  // heads that have not reported since our restart
	Guards  int  // mass-expiry guards that hold heads
	Held    int  // heads that take requests because of them
}

// Ready tells how ready the registry is. Heads that were healthy before a
// restart are routable at once, so nothing waits for their reports.
func (r *Registry) Ready() Readiness {
	r.mu.Lock()
	defer r.mu.Unlock()
	ready := Readiness{Loaded: r.loaded, StoreUp: !r.storeDown.Load(), Guards: len(r.guards)}
	for _, e := range r.heads {
		switch {
		case e.health == HealthAssumed:
			ready.Assumed++
		case e.health == HealthHeld && e.head.Routable():
			ready.Held++
		}
	}
	return ready
}

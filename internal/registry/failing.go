package registry

import (
	"slices"
	"time"

	"headway/internal/event"
)

// keepFailing notes that e is at fault and stays in rotation, since it may not be
// ejected. r.mu must be held.
func (r *Registry) keepFailing(e *entry, detail string, now time.Time) {
	e.fault = detail
	if r.failing[e] {
		return
	}
	r.failing[e] = true
	r.stage(r.replace(e))
	r.tell(event.HeadChanged, e, now)
}

// forgiveFailing forgets what e was found at fault for; the caller replaces the
// head. r.mu must be held.
func (r *Registry) forgiveFailing(e *entry) {
	e.fault = ""
	delete(r.failing, e)
}

// lookAtFailing finds the heads that stayed at fault and are not any more. sweep
// calls it: a request that ends well takes no lock.
func (r *Registry) lookAtFailing(now time.Time) {
	for e := range r.failing {
		if why, detail := e.outcomes.judge(now); why != "" {
			e.fault = detail
			continue
		}
		r.forgiveFailing(e)
		r.stage(r.replace(e))
		r.tell(event.HeadChanged, e, now)
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

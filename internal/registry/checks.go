package registry

import "headway/internal/fleet"

// Checked takes what the checks of the head at an endpoint find: detail says what is
// wrong, "" that it is well. A head that is not is ejected like one whose requests
// fail, and no trial is sent there; as soon as it is well it comes back. It reports
// false where no such head is registered any more.
func (r *Registry) Checked(id, endpoint, detail string) bool {
	defer r.flush()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.publish(nil) // what is staged counts
	e, now := r.heads[id], r.o.Now()
	if e == nil || e.record.Spec.Endpoint != endpoint {
		return false
	}
	was := e.unwell
	e.unwell = detail
	switch {
	case !r.o.Eject.Enabled || detail == "" && was == "":
	case detail == "" && e.ejection != nil:
		r.reinstate(e, reinstatedByCheck, now)
		r.stage(e)
	case detail == "" || e.ejection != nil || !e.head.Routable(): // lookAtFailing and offerTrials see it
	case r.mayEject(e):
		r.takeOut(e, fleet.EjectedForCheck, detail, now)
	case !r.failing[e]:
		r.metrics.ejectionsRefused.Inc()
		r.keepFailing(e, detail, now)
		r.o.Log.Warn("a head is not ejected for its health: too many of its model types are, or it is the last",
			"head", id, "region", e.head.Region, "detail", detail)
	}
	return true
}

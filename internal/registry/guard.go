package registry

import (
	"maps"
	"slices"
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
)

// poolKey names what the mass-expiry guard watches: the heads of a model type
// in a region, or with two empty strings the whole fleet.
type poolKey struct{ model, region string }

// keys are the pools that e is in.
func keys(e *entry) []poolKey {
	keys := []poolKey{{}}
	for _, m := range e.record.Spec.ModelTypes {
		keys = append(keys, poolKey{m, e.record.Spec.Region})
	}
	return keys
}

// guard reports whether the pool's overdue heads are to be held. It trips when
// more than the share of the pool is overdue at the same time: the cause is
// then more likely here, or in the network between, than in all of them.
func (r *Registry) guard(key poolKey, now time.Time) bool {
	if since, active := r.guards[key]; active {
		return now.Sub(since) < r.o.Lease.GuardHold
	}
	heads, overdue := 0, 0
	for _, e := range r.pool(key) {
		if e.head.Admin != fleet.AdminEnabled || !e.status.Serves() {
			continue
		}
		switch {
		case e.health == fleet.HealthPending, e.health == fleet.HealthStale && now.Sub(e.stale) >= e.interval:
			continue
		case e.health == fleet.HealthStale: // the first to fall in the same silence
			overdue++
		case now.Sub(e.seen) >= freshIntervals*e.interval:
			overdue++
		}
		heads++
	}
	if heads < r.o.Lease.GuardMinHeads || float64(overdue) <= r.o.Lease.GuardShare*float64(heads) {
		return false
	}
	r.guards[key] = now
	r.o.Log.Warn("mass-expiry guard: most of a pool fell silent at once; its heads stay routable",
		"model_type", key.model, "region", key.region, "overdue", overdue, "heads", heads, "for_at_most", r.o.Lease.GuardHold.String())
	r.o.Events.Publish(event.Event{Type: event.GuardTripped, Time: now, Region: key.region, Data: guardState{key.model, key.region, overdue, heads}})
	return true
}

// pool lists the entries of a pool.
func (r *Registry) pool(key poolKey) []*entry {
	if key == (poolKey{}) {
		return slices.Collect(maps.Values(r.heads))
	}
	p := r.snapshot.Load().Pools[key.model]
	if p == nil || p.Regions[key.region] == nil {
		return nil
	}
	var list []*entry
	for _, h := range p.Regions[key.region].Heads {
		if e := r.heads[h.ID]; e != nil {
			list = append(list, e)
		}
	}
	return list
}

// releaseGuards ends guards under which no head is held any more.
func (r *Registry) releaseGuards(now time.Time) {
	for key, since := range r.guards {
		held := slices.ContainsFunc(r.pool(key), func(e *entry) bool { return e.health == fleet.HealthHeld })
		if held || now.Sub(since) < r.interval(len(r.heads)) {
			continue
		}
		delete(r.guards, key)
		r.o.Log.Info("mass-expiry guard released", "model_type", key.model, "region", key.region)
		r.o.Events.Publish(event.Event{Type: event.GuardReleased, Time: now, Region: key.region, Data: guardState{ModelType: key.model, Region: key.region}})
	}
}

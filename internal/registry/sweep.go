package registry

import (
	"log/slog"
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
)

// wheelSlots and wheelTick make a wheel of 512 s; what is due later comes by
// again and is put back.
const (
	wheelSlots = 2048
	wheelTick  = 250 * time.Millisecond
)

// wheel finds the leases that may be due without looking at all of them. A
// report does not move its head: the wheel looks again when the old time comes
// and puts the head where it belongs then.
type wheel struct {
	slots [wheelSlots][]*entry
	base  time.Time
	at    int64 // ticks after base that have been looked at
}

func (w *wheel) reset(now time.Time) { w.base = now }

// add puts e where it will be looked at when due. Where it stood for a later
// time before, it is passed over then.
func (w *wheel) add(e *entry, due time.Time) {
	tick := max(int64(due.Sub(w.base)/wheelTick)+1, w.at+1)
	tick = min(tick, w.at+wheelSlots-1)
	if e.lookAt != 0 && e.lookAt <= tick {
		return
	}
	e.lookAt = tick
	w.slots[tick%wheelSlots] = append(w.slots[tick%wheelSlots], e)
}

// advance calls look for every entry whose time came by now.
func (w *wheel) advance(now time.Time, look func(*entry)) {
	for target := int64(now.Sub(w.base) / wheelTick); w.at < target; {
		w.at++
		slot := &w.slots[w.at%wheelSlots]
		entries := *slot
		*slot = nil
		for _, e := range entries {
			if e.lookAt == w.at {
				e.lookAt = 0
				look(e)
			}
		}
	}
}

// due is when the state of e's lease may change next.
func (r *Registry) due(e *entry) time.Time {
	switch e.health {
	case fleet.HealthPending:
		return e.seen.Add(r.lease.RemoveAfter)
	case fleet.HealthFresh:
		return e.seen.Add(freshIntervals * e.interval)
	case fleet.HealthStale:
		return e.stale.Add(r.lease.RemoveAfter)
	case fleet.HealthHeld:
		return e.seen // every tick: the guard may let go of it
	}
	return e.seen.Add(fleet.LeaseIntervals * e.interval)
}

// watch sees to it that the wheel will look at e.
func (r *Registry) watch(e *entry) { r.wheel.add(e, r.due(e)) }

func (r *Registry) tick() time.Duration {
	return max(min(wheelTick, r.lease.BaseInterval/4), time.Millisecond)
}

// pauseTicks of silence of our own clock mean that this process was stopped,
// and not the heads.
const pauseTicks = 8

// poolKey names what the mass-expiry guard watches: the heads of a model type
// in a region, or with two empty strings the whole fleet.
type poolKey struct{ model, region string }

// sweep moves leases on whose time came.
func (r *Registry) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if gap := now.Sub(r.lastSweep); gap > pauseTicks*r.tick()+time.Second {
		r.log.Warn("this process was paused; leases are extended by as much", "pause", gap.String())
		for _, e := range r.heads { // also those that reported between the last sweep and the pause
			if e.seen = e.seen.Add(gap); e.seen.After(now) {
				e.seen = now
			}
		}
	}
	r.lastSweep = now
	var changed, overdue []*entry
	r.wheel.advance(now, func(e *entry) {
		if r.heads[e.record.Spec.ID] != e {
			return // forgotten
		}
		if now.Before(r.due(e)) {
			r.watch(e)
			return
		}
		switch e.health {
		case fleet.HealthFresh:
			e.health = fleet.HealthSuspect
			changed = append(changed, e)
		case fleet.HealthSuspect, fleet.HealthAssumed, fleet.HealthHeld:
			overdue = append(overdue, e)
			return
		case fleet.HealthPending, fleet.HealthStale:
			r.reap(e)
			return
		}
		r.watch(e)
	})
	for _, e := range changed {
		r.stage(r.replace(e))
		r.tell(event.HeadChanged, e, now)
	}
	r.expire(overdue, now)
	r.offerTrials(now)
	r.lookAtFailing(now)
	r.publish(nil)
	r.writeMarks()
	r.releaseGuards(now)
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
			r.stage(r.replace(e))
			r.tell(event.HeadHeld, e, now)
		}
		r.watch(e)
	}
}

// expireNow makes a head stale.
func (r *Registry) expireNow(e *entry, now time.Time) {
	e.health, e.stale = fleet.HealthStale, now
	e.outcomes.held.Store(false)
	r.mark(e)
	r.stage(r.replace(e))
	if !e.head.Withdrawn() && e.status != fleet.StatusOffline { // else it said before that it takes no requests
		r.metrics.expirations.Inc()
		e.expired = e.expired.and(now)
	}
	r.tell(event.HeadExpired, e, now)
}

func keys(e *entry) []poolKey {
	keys := make([]poolKey, 0, 1+len(e.record.Spec.ModelTypes))
	keys = append(keys, poolKey{})
	for _, m := range e.record.Spec.ModelTypes {
		keys = append(keys, poolKey{m, e.record.Spec.Region})
	}
	return keys
}

// GuardState is the data of an event about the mass-expiry guard.
type GuardState struct {
	ModelType string `json:"model_type,omitempty"` // "": the whole fleet
	Region    string `json:"region,omitempty"`
	Overdue   int    `json:"overdue,omitempty"`
	Heads     int    `json:"heads,omitempty"`
}

// LogValue writes the state as fields.
func (s GuardState) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("model_type", s.ModelType), slog.String("region", s.Region), slog.Int("overdue", s.Overdue), slog.Int("heads", s.Heads),
	)
}

// guard reports whether the pool's overdue heads are to be held. It trips when
// more than the share of the pool is overdue at the same time: the cause is
// then more likely here, or in the network between, than in all of them.
func (r *Registry) guard(key poolKey, now time.Time) bool {
	if since, active := r.guards[key]; active {
		return now.Sub(since) < r.lease.GuardHold
	}
	heads, overdue := 0, 0
	for _, e := range r.pool(key) {
		if e.head.Admin != fleet.AdminEnabled || (e.status != fleet.StatusActive && e.status != fleet.StatusDegraded) {
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
	if heads < r.lease.GuardMinHeads || float64(overdue) <= r.lease.GuardShare*float64(heads) {
		return false
	}
	r.guards[key] = now
	r.log.Warn("mass-expiry guard: most of a pool fell silent at once; its heads stay routable",
		slog.String("model_type", key.model), slog.String("region", key.region),
		slog.Int("overdue", overdue), slog.Int("heads", heads), slog.String("for_at_most", r.lease.GuardHold.String()))
	r.events.Publish(event.Event{
		Type: event.GuardTripped, Time: now, Region: key.region,
		Data: GuardState{key.model, key.region, overdue, heads},
	})
	return true
}

// pool lists the entries of a pool.
func (r *Registry) pool(key poolKey) []*entry {
	if key == (poolKey{}) {
		all := make([]*entry, 0, len(r.heads))
		for _, e := range r.heads {
			all = append(all, e)
		}
		return all
	}
	p := r.snapshot.Load().Pools[key.model]
	if p == nil || p.Regions[key.region] == nil {
		return nil
	}
	heads := p.Regions[key.region].Heads
	list := make([]*entry, 0, len(heads))
	for _, h := range heads {
		if e := r.heads[h.ID]; e != nil {
			list = append(list, e)
		}
	}
	return list
}

// releaseGuards ends guards under which no head is held any more.
func (r *Registry) releaseGuards(now time.Time) {
	for key, since := range r.guards {
		held := false
		for _, e := range r.pool(key) {
			if held = e.health == fleet.HealthHeld; held {
				break
			}
		}
		if held || now.Sub(since) < r.interval(len(r.heads)) {
			continue
		}
		delete(r.guards, key)
		r.log.Info("mass-expiry guard released", "model_type", key.model, "region", key.region)
		r.events.Publish(event.Event{
			Type: event.GuardReleased, Time: now, Region: key.region,
			Data: GuardState{ModelType: key.model, Region: key.region},
		})
	}
}

// reap removes a head that was silent for so long that it will not come back.
// It is tried again as long as the head is there: the store may have failed.
func (r *Registry) reap(e *entry) {
	again := wheelTick
	if len(r.commits) < ownQueue && r.enqueue(&commit{
		id: e.record.Spec.ID, reaps: true,
		edit: func(cur *fleet.Record, is *entry) (*fleet.Record, error) {
			if cur == nil || is != e || (e.health != fleet.HealthStale && e.health != fleet.HealthPending) || r.now().Before(r.due(e)) {
				return nil, fleet.ErrHeadNotFound // it came back, or is gone
			}
			return nil, nil
		},
	}) {
		again = commitTime
	}
	r.wheel.add(e, r.lastSweep.Add(again))
}

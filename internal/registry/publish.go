package registry

import (
	"time"

	"headway/internal/fleet"
)

// makeHead makes the immutable head of e as it is now; instance is that of its
// epoch.
func makeHead(e *entry, instance uint64) *fleet.Head {
	spec := e.record.Spec
	admin := e.record.Admin
	if admin.Weight > 0 {
		spec.Weight = admin.Weight
	}
	if len(admin.Labels) > 0 {
		labels := make(map[string]string, len(spec.Labels)+len(admin.Labels))
		for _, from := range []map[string]string{spec.Labels, admin.Labels} {
			for k, v := range from {
				labels[k] = v
			}
		}
		spec.Labels = labels
	}
	h := &fleet.Head{
		Spec: spec, Epoch: e.epoch, Status: e.status, Admin: admin.State, Health: e.health,
		Instance: instance, Live: e.live, Outcomes: e.outcomes, Leaving: e.leaving, Loading: e.loading,
	}
	switch {
	case e.ejection != nil && e.health.Routable():
		h.Health = fleet.HealthEjected
		h.Trial = e.mayBeTried()
	case e.fault != "" && e.health.Routable() && e.health != fleet.HealthHeld:
		h.Health = fleet.HealthFailing
	}
	if e.head != nil {
		h.Hash = e.head.Hash
	} else {
		h.Hash = fleet.HashID(spec.ID)
	}
	return h
}

// replace makes e's head again after its state changed, or for the first time,
// and returns the change.
func (r *Registry) replace(e *entry) fleet.Step {
	before := e.head
	var instance uint64
	if before == nil || before.Epoch != e.epoch || before.Live != e.live {
		r.instances++
		instance = r.instances
	} else {
		instance = before.Instance
	}
	e.head = makeHead(e, instance)
	return fleet.Step{Before: before, Next: e.head}
}

// stage notes a change for the next snapshot, unless it changes nothing that
// decisions see. r.mu must be held; flush is to be called once it is not.
func (r *Registry) stage(c fleet.Step) (staged bool) {
	if alike(c.Before, c.Next) {
		return false
	}
	r.staged = append(r.staged, c)
	return true
}

// costly is what a snapshot of a large pool takes, and longestRest bounds how long
// a change waits for others.
const (
	costly      = 100 * time.Microsecond
	longestRest = 50 * time.Millisecond
)

// flush publishes what was staged. A snapshot costs as much as the pool is large:
// after one that took long as much time passes before the next, which has the
// changes of all that wait. What a caller changed is published when it returns.
// Without Run there is one caller, which has nobody to wait for.
func (r *Registry) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rest := time.Until(r.rests); rest > 0 && len(r.staged) > 0 && r.running.Load() {
		was := r.snapshot.Load().Revision
		r.mu.Unlock()
		time.Sleep(min(rest, longestRest)) //nolint:forbidigo // at most 50 ms; no caller may return before its change is published
		r.mu.Lock()
		if r.snapshot.Load().Revision != was {
			return // it has all that was staged before
		}
	}
	began := time.Now()
	r.publish(nil)
	if took := time.Since(began); took >= costly {
		r.rests = time.Now().Add(took)
	}
}

// alike reports whether a decision could not tell a head from next, which is made
// of it. Freshness among routable heads is not for decisions, which read the ages
// of signals.
func alike(h, next *fleet.Head) bool {
	return h.Instance == next.Instance && h.Epoch == next.Epoch && h.Status == next.Status &&
		h.Refusal() == next.Refusal() && (h.Health == fleet.HealthHeld) == (next.Health == fleet.HealthHeld) &&
		(h.Health == next.Health || h.Routable()) && h.Outcomes == next.Outcomes && h.Trial == next.Trial
}

// publish swaps in a snapshot with what was staged and the steps applied. r.mu
// must be held.
func (r *Registry) publish(steps []fleet.Step) {
	steps = fleet.Coalesce(append(r.staged, steps...))
	r.staged = nil
	if len(steps) == 0 {
		return
	}
	old := r.snapshot.Load()
	next, touched := old.With(steps)
	var crowded []string // model types
	for model, steps := range touched {
		if p := old.Pools[model]; p != nil {
			r.slowStart(p, steps)
		}
		if p := next.Pools[model]; p != nil && r.eject.excess(p, 0) > 0 {
			crowded = append(crowded, model)
		}
	}
	r.snapshot.Store(next)
	if r.loaded { // what a restart finds is no news
		r.tellRoutable(steps, old, next, touched)
	}
	if len(crowded) > 0 {
		r.relieve(next, crowded)
	}
}

// slowStart lets heads that became routable just now count as having what they
// lack of the mean number of requests in flight in their region, since those
// compare, and takes over what is known there of how places end.
func (r *Registry) slowStart(pool *fleet.Pool, steps []fleet.Step) {
	type habit struct {
		mean    float64
		tracked bool
	}
	habits := map[string]habit{} // by region
	for _, c := range steps {
		joined := c.Next != nil && c.Next.Routable() && c.Next.Health != fleet.HealthAssumed &&
			(c.Before == nil || !c.Before.Routable() || c.Before.Live != c.Next.Live)
		if !joined {
			continue
		}
		has, known := habits[c.Next.Region]
		if g := pool.Regions[c.Next.Region]; !known && g != nil {
			has.mean, has.tracked = habitOf(&g.Active)
			habits[c.Next.Region] = has
		}
		c.Next.Live.ExpectTracked(has.tracked)
		if lacks := has.mean - float64(c.Next.Live.InFlight()); lacks > 0 && r.lease.SlowStart > 0 {
			c.Next.Live.StartSlowly(r.now(), r.lease.SlowStart, lacks)
		}
	}
}

// habitOf is the mean number of requests in flight, and whether the places of
// most heads end with outcomes.
func habitOf(r *fleet.Ranked) (mean float64, tracked bool) {
	if len(r.Lives) == 0 {
		return 0, false
	}
	var sum int64
	n := 0
	for _, l := range r.Lives {
		sum += l.InFlight()
		if l.Tracked() {
			n++
		}
	}
	return float64(sum) / float64(len(r.Lives)), 2*n > len(r.Lives)
}

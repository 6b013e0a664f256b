package registry

import (
	"cmp"
	"maps"
	"time"

	"headway/internal/fleet"
)

// replace makes e's immutable head again after its state changed, or for the
// first time, and returns the step.
func (r *Registry) replace(e *entry) fleet.Step {
	before, spec, admin := e.head, e.record.Spec, e.record.Admin
	spec.Weight = cmp.Or(admin.Weight, spec.Weight)
	if len(admin.Labels) > 0 {
		labels := make(map[string]string, len(spec.Labels)+len(admin.Labels))
		maps.Copy(labels, spec.Labels)
		maps.Copy(labels, admin.Labels)
		spec.Labels = labels
	}
	h := &fleet.Head{
		Spec: spec, Epoch: e.epoch, Status: e.status, Admin: admin.State, Health: e.health, Hash: fleet.HashID(spec.ID), Number: e.number,
		Live: e.live, Outcomes: e.outcomes, Leaving: e.leaving, Loading: e.loading, Since: e.record.RegisteredAt,
	}
	switch {
	case e.ejection != nil && e.health.Routable():
		h.Health = fleet.HealthEjected
		h.Trial = e.mayBeTried()
	case e.fault != "" && e.health.Routable() && e.health != fleet.HealthHeld:
		h.Health = fleet.HealthFailing
	}
	if before == nil || before.Epoch != e.epoch || before.Live != e.live {
		r.instances++
		h.Instance = r.instances
	} else {
		h.Instance = before.Instance
	}
	e.head = h
	return fleet.Step{Before: before, Next: h}
}

// stage makes e's head again for the next snapshot, unless nothing changed that
// decisions see. r.mu must be held; flush is to be called once it is not.
func (r *Registry) stage(e *entry) (staged bool) {
	step := r.replace(e)
	if alike(step.Before, step.Next) {
		return false
	}
	r.staged = append(r.staged, step)
	return true
}

// costly is what a snapshot of a large pool takes, and longestRest bounds how long
// a change waits for others.
const (
	costly      = 100 * time.Microsecond
	longestRest = 50 * time.Millisecond
)

// flush publishes what was staged, before it returns. A snapshot costs as much as
// the pool is large: after one that took long as much time passes before the next,
// which has the changes of all that wait. Without Run there is one caller, and no
// other to wait for.
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

// alike reports whether a decision could not tell h from next, which is made of
// it. Freshness among routable heads is not for decisions, which read the ages of
// signals.
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
			r.startSlowly(p, steps)
		}
		if p := next.Pools[model]; p != nil && r.o.Eject.Excess(p, 0) > 0 {
			crowded = append(crowded, model)
		}
	}
	r.snapshot.Store(next)
	if r.loaded { // what a restart finds is no news
		r.emitRoutable(steps, old, next, touched)
	}
	if len(crowded) > 0 {
		r.relieve(next, crowded)
	}
}

// startSlowly counts heads that became routable just now as having what they
// lack of the mean number of requests in flight in their region, since those
// compare. It takes over what is known there of how places end.
func (r *Registry) startSlowly(pool *fleet.Pool, steps []fleet.Step) {
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
			has.mean, has.tracked = habitOf(g.Active.Lives)
			habits[c.Next.Region] = has
		}
		c.Next.Live.ExpectTracked(has.tracked)
		if lacks := has.mean - float64(c.Next.Live.InFlight()); lacks > 0 && r.o.Lease.SlowStart > 0 {
			c.Next.Live.StartSlowly(r.o.Now(), r.o.Lease.SlowStart, lacks)
		}
	}
}

// habitOf is the mean number of requests in flight, and whether the places of
// most heads end with outcomes.
func habitOf(lives []*fleet.Live) (mean float64, tracked bool) {
	var sum int64
	n := 0
	for _, l := range lives {
		sum += l.InFlight()
		if l.Tracked() {
			n++
		}
	}
	return float64(sum) / float64(max(len(lives), 1)), 2*n > len(lives)
}

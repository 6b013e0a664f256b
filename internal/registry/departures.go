package registry

import (
	"slices"
	"sync"
	"time"

	"headway/internal/fleet"
)

// departure is how a head went.
type departure int

const (
	wentDrained      departure = iota // silent for long, after it was drained or said that it drains
	wentLost                          // silent for long
	wentDeregistered                  // on purpose; or it registered with other names
)

// departures are the model types, or the regions, that heads left.
type departures struct {
	mu   sync.Mutex
	last map[string]departure // since the last take
	lost map[string]time.Time // when a head was lost
}

// left notes that a head with these names is gone.
func (d *departures) left(how departure, now time.Time, names ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range names {
		if _, known := d.last[name]; known || len(d.last) < maxNames {
			d.last[name] = how
		}
		if _, known := d.lost[name]; how == wentLost && (known || len(d.lost) < maxNames) {
			d.lost[name] = now
		}
	}
}

// loadingTime is how long a head may take before it is missed, from the
// registration that added it, or a model type or region to it, to its first
// healthy report: it loads the weights of a model.
const loadingTime = 15 * time.Minute

// loads reports whether h has only registered so far, and is not missed yet.
func loads(h *fleet.Head, now time.Time) bool {
	return h.Health == fleet.HealthPending && !h.Loading.IsZero() && now.Sub(h.Loading) < loadingTime
}

// moved notes what e, which had the spec was, serves no more and where: it went
// from there on purpose. What it serves now for the first time it may have to
// load. r.mu must be held.
func (r *Registry) moved(e *entry, was *fleet.Spec, now time.Time) {
	is := &e.record.Spec
	for _, model := range was.ModelTypes {
		if !slices.Contains(is.ModelTypes, model) {
			r.metrics.models.left(wentDeregistered, now, model)
		}
	}
	if e.head != nil && is.Region != was.Region {
		r.metrics.regions.left(wentDeregistered, now, was.Region)
	}
	if is.Region != was.Region || slices.ContainsFunc(is.ModelTypes, func(m string) bool { return !slices.Contains(was.ModelTypes, m) }) {
		e.loading = now
	}
}

// departed notes that e is removed. r.mu must be held.
func (r *Registry) departed(e *entry, onPurpose bool, now time.Time) {
	how := wentLost
	switch {
	case onPurpose:
		how = wentDeregistered
	case e.head.Withdrawn():
		how = wentDrained
	}
	r.metrics.models.left(how, now, e.record.Spec.ModelTypes...)
	r.metrics.regions.left(how, now, e.record.Spec.Region)
}

// take returns the names without heads that are not missed, so that their series
// end at once: the last head was deregistered or has other names, or none was
// lost. Other names without heads keep theirs for a while, and alerts look at them.
//
// In all it counts the heads that were lost as one that is missing, until a head
// takes requests.
func (d *departures) take(now time.Time, all map[string]have) (gone []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, how := range d.last {
		_, there := all[name]
		if _, missed := d.lost[name]; there || how == wentLost || how == wentDrained && missed {
			continue
		}
		gone = append(gone, name)
		delete(d.lost, name)
	}
	clear(d.last)
	for name, at := range d.lost {
		switch have, there := all[name]; {
		case now.Sub(at) > remembered || have.routable > 0:
			delete(d.lost, name)
		case there:
			have.missing++
			all[name] = have
		}
	}
	return gone
}

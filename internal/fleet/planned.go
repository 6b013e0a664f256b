package fleet

import (
	"sync"
	"time"
)

// A head flaps when its lease ran out more than twice within flapWindow. Once or
// twice is a restart, or a network that was away.
const (
	flapWindow = 15 * time.Minute
	flapTimes  = 3
)

// expiries are the last times that the lease of a head ran out, the latest last.
type expiries [flapTimes]time.Time

func (e expiries) and(now time.Time) expiries {
	copy(e[:], e[1:])
	e[flapTimes-1] = now
	return e
}

func (e expiries) flapping(now time.Time) bool {
	return !e[0].IsZero() && now.Sub(e[0]) <= flapWindow
}

// flapping counts the heads that flap. One that was drained or is in maintenance
// may come and go.
func (r *Registry) flapping() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for _, e := range r.heads {
		if e.record.Admin.State == AdminEnabled && e.expired.flapping(now) {
			n++
		}
	}
	return n
}

// retired are the names whose last head was deregistered on purpose: their
// series end at once, since nobody misses them. Other names without heads keep
// theirs for a while, and alerts look at them.
type retired struct {
	mu    sync.Mutex
	names map[string]bool
}

// left notes that a head with these names is gone. The last one to go counts.
func (r *retired) left(purposely bool, names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		if delete(r.names, name); purposely && len(r.names) < maxNames {
			r.names[name] = true
		}
	}
}

// take returns the names that are retired and not present.
func (r *retired) take(present map[string]have) (gone []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.names {
		if _, there := present[name]; !there {
			gone = append(gone, name)
		}
	}
	clear(r.names)
	return gone
}

package proxy

import (
	"sync"
	"time"

	"headway/internal/fleet"
	"headway/internal/openai"
)

// listed is since when each model is there: the first registration of the oldest
// head that was seen to serve it, which lasts over restarts.
type listed struct {
	mu    sync.Mutex
	since map[string]time.Time // of the models that some head has
}

// update takes the fleet of now, and returns all models' times.
func (l *listed) update(pools map[string]*fleet.Pool) map[string]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := make(map[string]time.Time, len(pools))
	for model, pool := range pools {
		since := l.since[model]
		for _, h := range pool.All.Heads {
			if since.IsZero() || h.Since.Before(since) {
				since = h.Since
			}
		}
		next[model] = since
	}
	l.since = next
	return next
}

// Models are the models that can be asked for: those that some head serves now, and
// the aliases of such, in no order.
func (p *Proxy) Models() (list []openai.ModelEntry) {
	pools, policy := p.o.Fleet.Snapshot().Pools, p.o.Router.Policy()
	since := p.listed.update(pools)
	add := func(name, model string) {
		if pool := pools[model]; pool != nil && pool.All.Routable() > 0 {
			list = append(list, openai.ModelEntry{ID: name, Created: since[model].Unix(), OwnedBy: "headway"})
		}
	}
	for model := range pools {
		add(model, model)
	}
	for alias, model := range policy.Document.Aliases {
		add(alias, model)
	}
	return list
}

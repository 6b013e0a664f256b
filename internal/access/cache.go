package access

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxCached bounds each cache.
const maxCached = 10_000

// cache remembers values by keys that callers choose. A full one forgets the
// entry of a few that was used longest ago: the order of a map is random, so
// that is old enough. It is safe for concurrent use.
type cache[K comparable, V any] struct {
	forgotten prometheus.Counter

	mu   sync.Mutex
	kept map[K]*cached[V]
}

type cached[V any] struct {
	value V
	used  time.Time
}

func newCache[K comparable, V any](forgotten prometheus.Counter) *cache[K, V] {
	return &cache[K, V]{forgotten: forgotten, kept: map[K]*cached[V]{}}
}

// get returns the value of a key, the zero value without one.
func (c *cache[K, V]) get(key K, now time.Time) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.kept[key]
	if e == nil {
		return v, false
	}
	e.used = now
	return e.value, true
}

// put sets the value of a key.
func (c *cache[K, V]) put(key K, v V, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(key, v, now)
}

// getOrMake returns the value of a key, and makes it if there is none.
func (c *cache[K, V]) getOrMake(key K, now time.Time, fresh func() V) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.kept[key]; e != nil {
		e.used = now
		return e.value
	}
	return c.add(key, fresh(), now)
}

// add sets a value, and makes room for it. c.mu must be held.
func (c *cache[K, V]) add(key K, v V, now time.Time) V {
	if len(c.kept) >= maxCached {
		c.evict()
	}
	c.kept[key] = &cached[V]{v, now}
	return v
}

// evict forgets the oldest of a few entries. c.mu must be held.
func (c *cache[K, V]) evict() {
	var oldest K
	var at time.Time
	looked := 0
	for key, e := range c.kept {
		if looked == 0 || e.used.Before(at) {
			oldest, at = key, e.used
		}
		if looked++; looked == 16 {
			break
		}
	}
	delete(c.kept, oldest)
	c.forgotten.Inc()
}

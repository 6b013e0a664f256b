package live

import (
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/fleet"
	"headway/internal/registry"
)

// Bounds of snapshots. A recent one serves all that ask for the same, so that
// many clients that connect at once, as after a restart, cost one.
const (
	snapshotAge  = time.Second
	snapshotPart = 64 << 10 // bytes of heads
	maxSnapshots = 64       // kept, by filter

	cacheSnapshots = "snapshots"
)

type snapshots struct {
	mu    sync.Mutex
	taken map[string]*snapshot
}

// snapshot is the encoded fleet at one time. It includes the events up to its
// place, and may include later ones, which does no harm.
type snapshot struct {
	at    time.Time
	place place
	id    int // offset in sse of the line with the id
	sse   []byte
	ws    []byte
}

// snapshot returns the part of the fleet that the filter selects, not older than
// an event.
func (h *Hub) snapshot(f *filter, since uint64) *snapshot {
	key := f.Head + "\x00" + f.ModelType + "\x00" + f.Region
	c := &h.snapshots
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.taken[key]; s != nil && s.place[events] >= since && time.Since(s.at) < snapshotAge {
		return s
	}
	s := h.newSnapshot(f)
	if n := len(c.taken); n >= maxSnapshots {
		h.metrics.forgotten.WithLabelValues(cacheSnapshots).Add(float64(n))
		clear(c.taken)
	}
	c.taken[key] = s
	return s
}

func (h *Hub) newSnapshot(f *filter) *snapshot {
	s := &snapshot{at: time.Now(), place: place{h.o.Fleet.LastEvent(), h.log.newest()[decisions]}} // the place first
	revision := h.o.Router.Policy().Revision
	parts := [][]api.Head{{}}
	size := 0
	add := func(v *fleet.View) {
		head := apiv1.HeadOf(v)
		raw, err := json.Marshal(head)
		if err != nil {
			return
		}
		if size += len(raw); size > snapshotPart && len(parts[len(parts)-1]) > 0 {
			parts, size = append(parts, nil), len(raw)
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], head)
	}
	if f.Head != "" {
		if view, err := h.o.Fleet.Head(f.Head); err == nil {
			add(&view)
		}
	} else {
		q := registry.Query{ModelType: f.ModelType, Region: f.Region, Limit: 1000}
		for more := true; more; more = q.Cursor != "" {
			var views []fleet.View
			views, q.Cursor = h.o.Fleet.List(q)
			for i := range views {
				add(&views[i])
			}
		}
	}
	for i, heads := range parts {
		part := notice(api.MessageSnapshot, api.Snapshot{Part: i + 1, Parts: len(parts), PolicyRevision: revision, Heads: heads})
		s.sse, s.ws = append(s.sse, part.sse...), append(s.ws, part.ws...)
	}
	s.id = len(s.sse) - 1 // the empty line that ends the last part
	s.sse = append(s.sse[:s.id], h.idLine(s.place)...)
	return s
}

// idLine ends an event over SSE: a client that has it resumes after the place.
func (h *Hub) idLine(at place) string { return "id: " + h.id(at) + "\n\n" }

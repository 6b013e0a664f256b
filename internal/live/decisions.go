package live

import (
	"sync"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/routing"
)

// Bounds of what is told of decisions. They are read from the router's ring of
// recent ones, and only while somebody listens, so that telling of them costs a
// decision nothing.
const (
	decisionWindow = 4096
	maxFollowed    = 1000   // decisions of each look; the rest is told as lost
	maxOpen        = 10_000 // made ones whose end is waited for
)

// follower knows how far the decisions were told.
type follower struct {
	mu     sync.Mutex
	active bool
	seen   uint64 // sequence of the last decision that was told
	left   uint64 // place in the ring when somebody wanted decisions last
	open   []*routing.Decision
	list   []*routing.Decision
}

// wantDecisions counts somebody in who wants decisions: from now on they are
// told. Those that were made since anybody wanted them are passed over, which
// whoever resumes from then is told.
func (h *Hub) wantDecisions() {
	h.wanted.Add(1)
	f := &h.follower
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.active {
		return
	}
	newest := h.o.Router.Newest()
	h.rings.skipDecisions(newest - f.seen)
	f.active, f.seen = true, newest
}

// follow puts what happened to decisions since the last look into the ring, and
// reports whether it is to be called again soon. It goes on after the last who
// wanted them has left until the ring has nothing that they could resume after:
// most of them come back.
func (h *Hub) follow() bool {
	f := &h.follower
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.active {
		return false
	}
	if told := h.rings.newest().decision; h.wanted.Load() > 0 {
		f.left = told
	} else if told-f.left > decisionWindow {
		f.active, f.open, f.list = false, nil, nil
		return false
	}
	var lost uint64
	f.list, f.seen, lost = h.o.Router.Since(f.seen, maxFollowed, f.list[:0])
	if newest := h.o.Router.Newest(); len(f.list) == maxFollowed && newest > f.seen {
		lost += newest - f.seen
		f.seen = newest
	}
	for _, d := range f.list {
		h.tellDecision(decisionMade, d)
	}
	f.open = append(f.open, f.list...)
	if excess := len(f.open) - maxOpen; excess > 0 {
		lost += uint64(excess)
		f.open = f.open[excess:]
	}
	kept := f.open[:0]
	for _, d := range f.open {
		if _, ended := d.Outcome(); ended {
			h.tellDecision(decisionEnded, d)
		} else {
			kept = append(kept, d)
		}
	}
	clear(f.open[len(kept):])
	f.open = kept
	clear(f.list)
	if lost > 0 {
		fr := lostDecisions(lost, lostSlow)
		h.rings.putDecision(fr, lost, func(place) {})
	}
	return true
}

func (h *Hub) tellDecision(kind string, d *routing.Decision) {
	recent := apiv1.RecentOf(d)
	at := recent.At
	if o := recent.Outcome; o != nil && o.At != nil && kind == decisionEnded {
		at = *o.At
	}
	data, err := json.Marshal(recent)
	if err != nil {
		return
	}
	fr := &frame{kind: kind, head: d.Head.ID, region: d.Head.Region, models: []string{d.ModelType}}
	h.rings.putDecision(fr, 1, func(told place) {
		id := h.id(told)
		fr.encode(api.MessageEvent, id, api.Event{
			ID: id, Type: kind, Time: at, Head: fr.head, Region: fr.region, ModelTypes: fr.models, Data: data,
		})
	})
}

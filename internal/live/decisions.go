package live

import (
	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/calls"
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

// follower knows how far the decisions were told. Only beat uses it.
type follower struct {
	active bool
	seen   uint64 // sequence of the last decision that was told
	place  uint64 // in the ring
	open   []*routing.Decision
	list   []*routing.Decision
}

// follow puts what happened to decisions since the last look into the ring.
func (h *Hub) follow() {
	f := &h.follower
	if h.wanted.Load() == 0 {
		f.active, f.open, f.list = false, nil, nil
		return
	}
	if !f.active {
		f.active, f.seen = true, h.o.Router.Newest()
		return
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
		f.place++
		fr := &frame{seq: f.place, kind: api.MessageLost}
		fr.encode(api.MessageLost, "", api.Lost{Count: lost, Reason: lostSlow, Types: decisionAll})
		h.decisions.put(fr)
	}
}

func (h *Hub) tellDecision(kind string, d *routing.Decision) {
	recent := calls.RecentOf(d)
	at := recent.At
	if o := recent.Outcome; o != nil && o.At != nil && kind == decisionEnded {
		at = *o.At
	}
	data, err := json.Marshal(recent)
	if err != nil {
		return
	}
	h.follower.place++
	fr := &frame{seq: h.follower.place, kind: kind, head: d.Head.ID, region: d.Head.Region, models: []string{d.ModelType}}
	fr.encode(api.MessageEvent, "", api.Event{
		Type: kind, Time: at, Head: fr.head, Region: fr.region, ModelTypes: fr.models, Data: data,
	})
	h.decisions.put(fr)
}

package live

import (
	"slices"
	"sync"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/routing"
)

// Bounds of what is sent of decisions. They are read from the router's recent
// ones, and only while a subscriber wants them, so that a decision costs no more.
const (
	decisionWindow = 4096
	maxFollowed    = 1000   // decisions at a time; the others are reported as lost
	maxOpen        = 10_000 // decisions that have not ended
)

// follower reads the router's decisions.
type follower struct {
	mu     sync.Mutex
	active bool
	seen   uint64 // sequence of the last decision that was read
	left   uint64 // number in the log when a subscriber last wanted decisions
	open   []*routing.Decision
	list   []*routing.Decision
}

// wantDecisions counts a subscriber that wants decisions. Those made while the
// follower was not active are skipped, and are lost to a client that resumes before
// them.
func (h *Hub) wantDecisions() {
	h.wanted.Add(1)
	f := &h.follower
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.active {
		return
	}
	newest := h.o.Router.Newest()
	h.log.skipDecisions(newest - f.seen)
	f.active, f.seen = true, newest
}

// follow adds what happened to decisions since the last call to the log, and
// reports whether to call it again soon. After the last subscriber has left it
// goes on until nothing is left that this one could resume after: most come back.
func (h *Hub) follow() bool {
	f := &h.follower
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.active {
		return false
	}
	if number := h.log.newest()[decisions]; h.wanted.Load() > 0 {
		f.left = number
	} else if number-f.left > decisionWindow {
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
		h.addDecision(decisionMade, d)
	}
	f.open = append(f.open, f.list...)
	clear(f.list)
	if excess := len(f.open) - maxOpen; excess > 0 {
		lost += uint64(excess)
		f.open = slices.Delete(f.open, 0, excess)
	}
	f.open = slices.DeleteFunc(f.open, func(d *routing.Decision) bool {
		_, ended := d.Outcome()
		if ended {
			h.addDecision(decisionEnded, d)
		}
		return ended
	})
	if lost > 0 {
		h.log.addDecision(lost, func(place) *frame { return lostDecisions(lost, lossTooSlow) })
	}
	return true
}

func (h *Hub) addDecision(kind string, d *routing.Decision) {
	recent := apiv1.RecentOf(d)
	at := recent.At
	if o := recent.Outcome; o != nil && o.At != nil && kind == decisionEnded {
		at = *o.At
	}
	data, err := json.Marshal(recent)
	if err != nil {
		return
	}
	h.log.addDecision(1, func(after place) *frame {
		v := api.Event{
			ID: h.id(after), Type: kind, Time: at, Head: d.Head.ID, Region: d.Head.Region, ModelTypes: []string{d.ModelType}, Data: data,
		}
		f := newFrame(api.MessageEvent, kind, v.ID, v)
		f.head, f.region, f.models = v.Head, v.Region, v.ModelTypes
		return f
	})
}

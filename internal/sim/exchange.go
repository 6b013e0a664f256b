package sim

import (
	"slices"
	"strings"

	"headway/internal/fleet"
)

// placement is what a router sends the others of a request.
type placement struct {
	head   string
	blocks []uint64 // keys
	tokens int
}

// place notes where the request was placed, for the other routers.
func (s *service) place(q *request) {
	if s.heard == nil {
		return
	}
	keys := slices.Clone(q.blocks)
	s.known.Keys(keys, s.model, 0)
	s.placed = append(s.placed, placement{q.head.id, keys, q.arrival.Input})
}

// exchange has each router send all others its counts, its placements and what it
// learned of caches, and does so again after the window.
func (w *world) exchange() {
	for i, from := range w.routers {
		own := map[string]fleet.Others{}
		for _, h := range from.fleet.Snapshot().Sorted() {
			own[h.ID] = h.Live.Own()
		}
		for j, to := range w.routers {
			if i == j || w.random.Float64() < w.o.Loss {
				continue
			}
			to.heard[i] = own
			to.known.Pace(w.o.Model).HeardHolds(from.known.Pace(w.o.Model).Holds())
			to.hear(from.placed)
		}
		from.placed = from.placed[:0]
	}
	for _, s := range w.routers {
		s.sumOthers()
	}
	w.events.add(w.at+w.o.Window, w.exchange)
}

// hear takes the placements of another router.
func (s *service) hear(placed []placement) {
	heads := s.fleet.Snapshot().Sorted()
	for _, p := range placed {
		at, found := slices.BinarySearchFunc(heads, p.head, func(h *fleet.Head, id string) int { return strings.Compare(h.ID, id) })
		if found {
			s.known.Heard(heads[at], s.model, p.blocks, int32(p.tokens))
		}
	}
}

// sumOthers has each head know what the other routers count there.
func (s *service) sumOthers() {
	for _, h := range s.fleet.Snapshot().Sorted() {
		var sum fleet.Others
		for _, own := range s.heard {
			o := own[h.ID]
			sum.InFlight += o.InFlight
			sum.Tokens += o.Tokens
			sum.Pending += o.Pending
		}
		h.Live.SetOthers(sum)
	}
}

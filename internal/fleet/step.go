package fleet

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Step is one head's step from one snapshot to the next; nil is absent.
type Step struct {
	Before, Next *Head
}

// heads are those of the step that are there.
func (c Step) heads() []*Head {
	return slices.DeleteFunc([]*Head{c.Before, c.Next}, func(h *Head) bool { return h == nil })
}

func (c Step) id() string { return cmp.Or(c.Next, c.Before).ID }

// Coalesce orders steps by id, makes one of those of one head and drops those
// that came and went.
func Coalesce(steps []Step) []Step {
	slices.SortStableFunc(steps, func(a, b Step) int { return strings.Compare(a.id(), b.id()) })
	kept := steps[:0]
	last := "" // the id of the last that was kept; both of its heads may be nil by now
	for _, c := range steps {
		if id := c.id(); len(kept) == 0 || id != last {
			kept, last = append(kept, c), id
			continue
		}
		kept[len(kept)-1].Next = c.Next
	}
	return slices.DeleteFunc(kept, func(c Step) bool { return c.Before == nil && c.Next == nil })
}

// With is the next snapshot: s with the steps applied, which are coalesced. It
// makes only the groups and pools of heads that change. byModel lists the steps by
// the model types that their heads serve, or served.
func (s *Snapshot) With(steps []Step) (next *Snapshot, byModel map[string][]Step) {
	next = &Snapshot{
		Revision: s.Revision + 1, Heads: s.Heads, Active: s.Active,
		Pools: make(map[string]*Pool, len(s.Pools)+1), Regions: make(map[string]int, len(s.Regions)+1),
	}
	maps.Copy(next.Pools, s.Pools)
	maps.Copy(next.Regions, s.Regions)
	byModel = map[string][]Step{}
	for _, c := range steps {
		next.count(c.Before, -1)
		next.count(c.Next, 1)
		for _, h := range c.heads() {
			for _, m := range h.ModelTypes {
				if list := byModel[m]; len(list) == 0 || list[len(list)-1] != c {
					byModel[m] = append(list, c)
				}
			}
		}
	}
	for model, steps := range byModel {
		if p := rebuild(s.Pools[model], model, steps); p != nil {
			next.Pools[model] = p
		} else {
			delete(next.Pools, model)
		}
	}
	return next, byModel
}

func (s *Snapshot) count(h *Head, by int) {
	if h == nil {
		return
	}
	s.Heads += by
	if h.Routable() && h.Health != HealthHeld {
		s.Active += by
	}
	if s.Regions[h.Region] += by; s.Regions[h.Region] == 0 {
		delete(s.Regions, h.Region)
	}
}

// rebuild makes the pool of a model type with the steps applied, nil when no head
// is left in it.
func rebuild(old *Pool, model string, steps []Step) *Pool {
	if old == nil {
		old = &Pool{ModelType: model, All: &Group{ModelType: model, Region: AnyRegion}, Regions: map[string]*Group{}}
	}
	serves := func(h *Head) bool { return slices.Contains(h.ModelTypes, model) }
	p := &Pool{ModelType: old.ModelType, All: old.All.change(steps, serves), Regions: maps.Clone(old.Regions)}
	if len(p.All.Heads) == 0 {
		return nil
	}
	regions := map[string]bool{}
	for _, c := range steps {
		for _, h := range c.heads() {
			regions[h.Region] = true
		}
	}
	for region := range regions {
		g := old.Regions[region]
		if g == nil {
			g = &Group{ModelType: model, Region: region}
		}
		g = g.change(steps, func(h *Head) bool { return h.Region == region && serves(h) })
		if len(g.Heads) == 0 {
			delete(p.Regions, region)
		} else {
			p.Regions[region] = g
		}
	}
	return p
}

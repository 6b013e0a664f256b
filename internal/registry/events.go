package registry

import (
	"maps"
	"slices"
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
)

// Refused is the data of an event about a head that takes no new requests any
// more.
type Refused struct {
	Reason fleet.Refusal `json:"reason"`
	Detail string        `json:"detail"` // the admin state, health or status that it has
}

// PoolState is the data of an event about the heads of a model type.
type PoolState struct {
	ModelType string `json:"model_type"`
	Region    string `json:"region,omitempty"` // "": all regions
	Heads     int    `json:"heads"`            // registered
	Routable  int    `json:"routable"`         // as headway_model_routable_heads counts them
	Ejected   int    `json:"ejected"`          // the last resort
	Missing   int    `json:"missing"`          // as headway_model_missing_heads counts them: those that are out on purpose do not count
}

// contest is the data of an event about an id that two endpoints register.
type contest struct {
	Outcome string `json:"outcome"` // refused or taken_over
	Count   uint64 `json:"count"`   // since the last event about this head
}

// ejectionState is the data of an event about a head that was ejected or
// reinstated.
type ejectionState struct {
	Reason string     `json:"reason"`
	Detail string     `json:"detail,omitempty"`
	Until  *time.Time `json:"until,omitempty"`
}

// guardState is the data of an event about the mass-expiry guard.
type guardState struct {
	ModelType string `json:"model_type,omitempty"` // "": the whole fleet
	Region    string `json:"region,omitempty"`
	Overdue   int    `json:"overdue"`
	Heads     int    `json:"heads"`
}

// emit publishes an event about a head.
func (r *Registry) emit(kind string, h *fleet.Head, data any, now time.Time) {
	r.o.Events.Publish(event.Event{Type: kind, Time: now, Head: h.ID, Endpoint: h.Endpoint, Region: h.Region, ModelTypes: h.ModelTypes, Data: data})
}

// emitState publishes an event about a head with its state.
func (r *Registry) emitState(kind string, e *entry, now time.Time) {
	r.emit(kind, e.head, fleet.HeadState{
		Status: e.status.String(), AdminState: e.head.Admin.String(), Health: e.head.Health.String(),
		Routable: e.head.Routable(), Epoch: e.epoch,
	}, now)
}

// emitRoutable publishes which heads take requests from now on and which do not
// any more, and which pools have none left that does, not even as the last
// resort. r.mu must be held.
func (r *Registry) emitRoutable(steps []fleet.Step, old, next *fleet.Snapshot, touched map[string][]fleet.Step) {
	now := r.o.Now()
	for _, c := range steps {
		if c.Next == nil {
			continue // head.removed says so
		}
		h, was := c.Next, c.Before != nil && c.Before.Routable()
		switch is := h.Routable(); {
		case is && !was:
			r.emit(event.HeadRoutable, h, nil, now)
		case was && !is:
			r.emit(event.HeadUnroutable, h, refused(h), now)
		}
	}
	for _, model := range slices.Sorted(maps.Keys(touched)) {
		r.emitPool(old.Pools[model], next.Pools[model], now)
	}
}

// refused says why a head takes no requests.
func refused(h *fleet.Head) Refused {
	detail := map[fleet.Refusal]string{
		fleet.RefusedAdmin: h.Admin.String(), fleet.RefusedUnhealthy: h.Health.String(), fleet.RefusedStatus: h.Status.String(),
	}
	return Refused{h.Refusal(), detail[h.Refusal()]}
}

// emitPool compares the heads of a model type before and after a change; either
// may be nil.
func (r *Registry) emitPool(before, after *fleet.Pool, now time.Time) {
	was, is := groupsOf(before), groupsOf(after)
	regions := maps.Clone(was)
	maps.Copy(regions, is)
	for _, region := range slices.Sorted(maps.Keys(regions)) {
		had, has := inReach(was[region]), inReach(is[region])
		if (had > 0) == (has > 0) {
			continue
		}
		kind, state := event.PoolAvailable, PoolState{ModelType: regions[region].ModelType, Region: region}
		if g := is[region]; g != nil {
			state.Heads, state.Routable, state.Ejected = len(g.Heads), g.Routable(), len(g.Ejected.Heads)
			var sum have
			for _, h := range g.Heads {
				sum = sum.plus(h, now)
			}
			state.Missing = sum.missing
		}
		if has == 0 {
			kind = event.PoolExhausted
		}
		r.o.Events.Publish(event.Event{Type: kind, Time: now, Region: region, ModelTypes: []string{state.ModelType}, Data: state})
	}
}

// groupsOf are those of each region, and of AnyRegion.
func groupsOf(p *fleet.Pool) map[string]*fleet.Group {
	all := map[string]*fleet.Group{}
	if p != nil {
		maps.Copy(all, p.Regions)
		all[fleet.AnyRegion] = p.All
	}
	return all
}

// inReach is the number of heads that take requests, with those that are ejected
// and take them as the last resort; a nil group has none.
func inReach(g *fleet.Group) int {
	if g == nil {
		return 0
	}
	return g.Routable() + len(g.Ejected.Heads)
}

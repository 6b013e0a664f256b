package registry

import (
	"log/slog"
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

// LogValue writes the state as fields.
func (s Refused) LogValue() slog.Value {
	return slog.GroupValue(slog.String("reason", string(s.Reason)), slog.String("detail", s.Detail))
}

// PoolState is the data of an event about the heads of a model type.
type PoolState struct {
	ModelType string `json:"model_type"`
	Region    string `json:"region,omitempty"`  // "": all regions
	Heads     int    `json:"heads"`             // registered
	Routable  int    `json:"routable"`          // as headway_model_routable_heads counts them
	Ejected   int    `json:"ejected,omitempty"` // the last resort
}

// LogValue writes the state as fields.
func (s PoolState) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("model_type", s.ModelType), slog.String("region", s.Region), slog.Int("heads", s.Heads), slog.Int("routable", s.Routable),
		slog.Int("ejected", s.Ejected),
	)
}

// Contest is the data of an event about an id that two endpoints register.
type Contest struct {
	Outcome string `json:"outcome"` // refused or taken_over
	Count   uint64 `json:"count"`   // since the last event about this head
}

// LogValue writes the contest as fields.
func (c Contest) LogValue() slog.Value {
	return slog.GroupValue(slog.String("outcome", c.Outcome), slog.Uint64("count", c.Count))
}

// EjectionState is the data of an event about a head that was ejected or
// reinstated.
type EjectionState struct {
	Reason string     `json:"reason"`
	Detail string     `json:"detail,omitempty"`
	Until  *time.Time `json:"until,omitempty"`
}

// LogValue writes the state as fields.
func (s EjectionState) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("reason", s.Reason)}
	if s.Detail != "" {
		attrs = append(attrs, slog.String("detail", s.Detail))
	}
	if s.Until != nil {
		attrs = append(attrs, slog.Time("until", *s.Until))
	}
	return slog.GroupValue(attrs...)
}

// GuardState is the data of an event about the mass-expiry guard.
type GuardState struct {
	ModelType string `json:"model_type,omitempty"` // "": the whole fleet
	Region    string `json:"region,omitempty"`
	Overdue   int    `json:"overdue,omitempty"`
	Heads     int    `json:"heads,omitempty"`
}

// LogValue writes the state as fields.
func (s GuardState) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("model_type", s.ModelType), slog.String("region", s.Region), slog.Int("overdue", s.Overdue), slog.Int("heads", s.Heads),
	)
}

func (r *Registry) tell(eventType string, e *entry, now time.Time) {
	r.events.Publish(event.Event{
		Type: eventType, Time: now, Head: e.head.ID, Region: e.head.Region, ModelTypes: e.head.ModelTypes,
		Data: fleet.HeadState{
			Status: e.status.String(), AdminState: e.head.Admin.String(), Health: e.head.Health.String(),
			Routable: e.head.Routable(), Epoch: e.epoch,
		},
	})
}

// tellRoutable publishes which heads take requests from now on and which do not
// any more, and which pools have none left that does, not even as the last
// resort. r.mu must be held.
func (r *Registry) tellRoutable(steps []fleet.Step, old, next *fleet.Snapshot, touched map[string][]fleet.Step) {
	now := r.now()
	for _, c := range steps {
		if c.Next == nil {
			continue // head.removed says so
		}
		h, was := c.Next, c.Before != nil && c.Before.Routable()
		switch is := h.Routable(); {
		case is && !was:
			r.events.Publish(event.Event{Type: event.HeadRoutable, Time: now, Head: h.ID, Region: h.Region, ModelTypes: h.ModelTypes})
		case was && !is:
			r.events.Publish(event.Event{Type: event.HeadUnroutable, Time: now, Head: h.ID, Region: h.Region, ModelTypes: h.ModelTypes, Data: refused(h)})
		}
	}
	for _, model := range slices.Sorted(maps.Keys(touched)) {
		r.tellPool(old.Pools[model], next.Pools[model], now)
	}
}

// refused says why a head takes no requests.
func refused(h *fleet.Head) Refused {
	s := Refused{Reason: h.Refusal()}
	switch s.Reason {
	case fleet.RefusedAdmin:
		s.Detail = h.Admin.String()
	case fleet.RefusedUnhealthy:
		s.Detail = h.Health.String()
	case fleet.RefusedStatus:
		s.Detail = h.Status.String()
	case fleet.Eligible:
	}
	return s
}

// tellPool compares the heads of a model type before and after a change; either
// may be nil.
func (r *Registry) tellPool(before, after *fleet.Pool, now time.Time) {
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
		}
		if has == 0 {
			kind = event.PoolExhausted
		}
		r.events.Publish(event.Event{Type: kind, Time: now, Region: region, ModelTypes: []string{state.ModelType}, Data: state})
	}
}

// groupsOf are those of each region, and of AnyRegion.
func groupsOf(p *fleet.Pool) map[string]*fleet.Group {
	if p == nil {
		return map[string]*fleet.Group{}
	}
	all := maps.Clone(p.Regions)
	all[fleet.AnyRegion] = p.All
	return all
}

// inReach is the number of heads that take requests, those among them that are
// ejected and take them as the last resort; a nil group has none.
func inReach(g *fleet.Group) int {
	if g == nil {
		return 0
	}
	return g.Routable() + len(g.Ejected.Heads)
}

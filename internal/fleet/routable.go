package fleet

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"headway/internal/event"
)

// Refused is the data of an event about a head that takes no new requests any
// more.
type Refused struct {
	Reason Refusal `json:"reason"`
	Detail string  `json:"detail"` // the admin state, health or status that it has
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

// tellRoutable publishes which heads take requests from now on and which do not
// any more, and which pools have none left that does, not even as the last
// resort. r.mu must be held.
func (r *Registry) tellRoutable(changes []change, old, next *Snapshot, touched map[string][]change) {
	now := r.now()
	for _, c := range changes {
		if c.next == nil {
			continue // head.removed says so
		}
		h, was := c.next, c.before != nil && c.before.Routable()
		switch is := h.Routable(); {
		case is && !was:
			r.events.Publish(event.Event{Type: event.HeadRoutable, Time: now, Head: h.ID, Region: h.Region, ModelTypes: h.ModelTypes})
		case was && !is:
			r.events.Publish(event.Event{Type: event.HeadUnroutable, Time: now, Head: h.ID, Region: h.Region, ModelTypes: h.ModelTypes, Data: h.refused()})
		}
	}
	for _, model := range slices.Sorted(maps.Keys(touched)) {
		r.tellPool(old.Pools[model], next.Pools[model], now)
	}
}

// refused says why a head takes no requests.
func (h *Head) refused() Refused {
	s := Refused{Reason: h.Refusal()}
	switch s.Reason {
	case RefusedAdmin:
		s.Detail = h.Admin.String()
	case RefusedUnhealthy:
		s.Detail = h.Health.String()
	case RefusedStatus:
		s.Detail = h.Status.String()
	case Eligible:
	}
	return s
}

// tellPool compares the heads of a model type before and after a change; either
// may be nil.
func (r *Registry) tellPool(before, after *Pool, now time.Time) {
	was, is := before.groups(), after.groups()
	regions := maps.Clone(was)
	maps.Copy(regions, is)
	for _, region := range slices.Sorted(maps.Keys(regions)) {
		had, has := was[region].inReach(), is[region].inReach()
		if (had > 0) == (has > 0) {
			continue
		}
		kind, state := event.PoolAvailable, PoolState{ModelType: regions[region].ModelType, Region: region}
		if g := is[region]; g != nil {
			state.Heads, state.Routable, state.Ejected = len(g.Heads), g.routable(), len(g.Ejected.Heads)
		}
		if has == 0 {
			kind = event.PoolExhausted
		}
		r.events.Publish(event.Event{Type: kind, Time: now, Region: region, ModelTypes: []string{state.ModelType}, Data: state})
	}
}

// groups are those of each region, and of AnyRegion.
func (p *Pool) groups() map[string]*Group {
	if p == nil {
		return map[string]*Group{}
	}
	all := maps.Clone(p.Regions)
	all[AnyRegion] = p.All
	return all
}

// routable is the number of heads that take requests.
func (g *Group) routable() int { return len(g.Active.Heads) + len(g.Degraded.Heads) }

// inReach is the number of heads that take requests, those among them that are
// ejected and take them as the last resort; a nil group has none.
func (g *Group) inReach() int {
	if g == nil {
		return 0
	}
	return g.routable() + len(g.Ejected.Heads)
}

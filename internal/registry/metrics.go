package registry

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/fleet"
)

// Reasons of headway_reports_dropped_total.
const (
	dropUnknownHead = "unknown_head"
	dropStaleEpoch  = "stale_epoch"
	dropOutOfOrder  = "out_of_order"
)

// maxNames bounds the model types, the regions and the pairs of both that
// metrics tell apart, maxSlots the heads of headway_head_in_flight.
const (
	maxNames = 1000
	maxSlots = 100
	other    = "other"
)

// remembered is how long a model type or region without heads keeps its series:
// as long as the alerts about it look back.
const remembered = time.Hour

type metrics struct {
	registrations prometheus.Counter
	updates       prometheus.Counter
	removed       prometheus.Counter
	expirations   prometheus.Counter
	refused       prometheus.Counter
	dropped       map[string]prometheus.Counter
	inFlight      slots

	ejections        map[string]prometheus.Counter
	reinstatements   map[string]prometheus.Counter
	ejectionsRefused prometheus.Counter

	contested map[string]prometheus.Counter

	models, regions *dimension
}

func newMetrics(reg prometheus.Registerer, r *Registry) *metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help, label string, values ...string) map[string]prometheus.Counter {
		v := auto.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		held := map[string]prometheus.Counter{}
		for _, value := range values {
			held[value] = v.WithLabelValues(value)
		}
		return held
	}
	m := &metrics{
		registrations: counter("head_registrations_total", "Head registrations, of new and of known ids."),
		updates:       counter("head_status_updates_total", "Status reports accepted from heads."),
		removed:       counter("headway_heads_removed_total", "Heads that deregistered or were removed after a long silence."),
		expirations:   counter("headway_lease_expirations_total", "Leases that ran out: the head takes no new requests until it reports again. Those of heads that were drained, in maintenance, or said that they drain or are offline do not count."),
		refused:       counter("headway_fleet_changes_refused_total", "Changes of heads refused because too many waited to be written."),
		dropped: vec("headway_reports_dropped_total", "Status reports whose load was not taken, by reason.", "reason",
			dropUnknownHead, dropStaleEpoch, dropOutOfOrder),
		ejections: vec("headway_ejections_total", "Heads that were taken out of rotation for failed requests, by reason.", "reason",
			fleet.EjectedForErrors, fleet.EjectedForShare, fleet.EjectedForTrial, fleet.EjectedForCheck),
		reinstatements: vec("headway_reinstatements_total", "Ejections of heads that ended, by what ended them.", "reason",
			reinstatedByTrial, reinstatedByOperator, reinstatedByRegistration, reinstatedByCheck, reinstatedByPool, reinstatedBySilence),
		contested: vec("headway_heads_contested_total",
			"Registrations of an id from another endpoint than the one that holds its lease: refused, or taken over because they said so.", "outcome",
			contestRefused, contestTakenOver),
		ejectionsRefused: counter("headway_ejections_refused_total",
			"Times that a head at fault stayed in rotation because too many of its model types were ejected, or it was the last one."),

		models:  newDimension("headway_model_routable_heads", modelRegisteredDesc, modelRoutableDesc, modelMissingDesc),
		regions: newDimension("headway_region_routable_heads", regionRegisteredDesc, regionRoutableDesc, regionMissingDesc),
	}
	r.newGauges(auto)
	reg.MustRegister(&collector{r: r, metrics: m, pairs: newSeries[pair](0)})
	return m
}

// newGauges makes the gauges that are functions of what is known now.
func (r *Registry) newGauges(auto promauto.Factory) {
	gauge := func(name, help string, value func() float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	locked := func(count func() int) func() float64 {
		return func() float64 {
			r.mu.Lock()
			defer r.mu.Unlock()
			return float64(count())
		}
	}
	gauge("active_heads", "Heads that take new requests: enabled, reporting active or degraded, with a lease that holds.",
		func() float64 { return float64(r.Snapshot().Active) })
	gauge("headway_held_heads", "Heads that take new requests though their lease ran out, since the mass-expiry guard holds them; active_heads leaves them out.",
		func() float64 { return float64(r.Ready().Held) })
	gauge("headway_flapping_heads", "Heads whose lease ran out more than twice in the last 15 minutes.", locked(r.flapping))
	gauge("headway_fleet_guard_active", "Mass-expiry guards that hold heads now.", locked(func() int { return len(r.guards) }))
	gauge("headway_ejected_heads", "Heads that are out of rotation for failed requests now; not those that are drained or in maintenance as well.",
		locked(func() (n int) {
			for e := range r.ejected {
				if !e.head.Withdrawn() {
					n++
				}
			}
			return n
		}))
	gauge("headway_heartbeat_interval_seconds", "Time between reports that leases ask for, before jitter.",
		func() float64 { return r.interval(r.Snapshot().Heads).Seconds() })
}

// slots hands out the places of the heads that headway_head_in_flight names.
type slots struct {
	mu    sync.Mutex
	heads [maxSlots]string // "": free
}

// take returns a free slot, -1 if there is none.
func (s *slots) take(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.heads[:], "")
	if i >= 0 {
		s.heads[i] = id
	}
	return i
}

func (s *slots) give(slot int) {
	if slot >= 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heads[slot] = ""
	}
}

// ids are those of the heads that have slots.
func (s *slots) ids() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make(map[string]bool, maxSlots)
	for _, id := range s.heads {
		ids[id] = true
	}
	return ids
}

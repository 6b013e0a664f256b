package sim

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/policy"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/workload"
)

// epoch is when virtual time begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	onlyRegion = "here"
	// usualReports is the interval that the registry asks heads for; those that
	// report less often are asked for no more.
	usualReports = 2 * time.Second
	tick         = 250 * time.Millisecond // of what the services do all the time; below what the registry takes for a pause
)

// world is one run.
type world struct {
	o        Options
	ctx      context.Context //nolint:containedctx // of the one call that the world lasts for
	at       time.Duration
	events   events
	routers  []*service
	heads    []*head
	byID     map[string]*head
	random   *rand.Rand
	begun    int  // requests
	open     int  // requests that have not ended
	waiting  int  // requests that follow on others and are due later
	over     bool // no more requests come by the clock
	measured *Measured
	err      error
}

// service is one Headway: a registry and a router.
type service struct {
	model  string
	fleet  *registry.Registry
	router *routing.Router
	known  *strategy.Known
	placed []placement               // since the last exchange
	heard  []map[string]fleet.Others // by router, its last counts; nil: there is no exchange
}

// exchanges reports whether routers send one another what they know.
func (w *world) exchanges() bool { return w.o.Window > 0 && w.o.Routers > 1 }

func (w *world) now() time.Time { return epoch.Add(w.at) }

// idle reports whether every request has ended and no more comes.
func (w *world) idle() bool { return w.over && w.open == 0 && w.waiting == 0 }

func (w *world) build() error {
	w.random = rand.New(rand.NewPCG(w.o.Seed, 1))
	w.byID = map[string]*head{}
	for i := range w.o.Routers {
		s, err := w.service(uint64(i))
		if err != nil {
			return err
		}
		w.routers = append(w.routers, s)
	}
	for i := range w.o.Heads {
		h, err := newHead(w, i)
		if err != nil {
			return err
		}
		w.heads = append(w.heads, h)
		w.byID[h.id] = h
		// Reports of a fleet do not come all at once.
		w.events.add(time.Duration(i)*w.o.Reports/time.Duration(len(w.o.Heads)), h.report)
	}
	for _, e := range w.o.Events {
		w.events.add(e.At, func() { w.err = cmp.Or(w.err, e.Do(&Fleet{w})) })
	}
	w.upkeep()
	if w.exchanges() {
		w.exchange()
	}
	return nil
}

func (w *world) service(i uint64) (*service, error) {
	metrics, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	published := event.New(metrics)
	s := &service{model: w.o.Model, known: strategy.NewKnown(strategy.KnownOptions{Blocks: w.blocks()})} // there is nothing to keep secret
	if w.exchanges() {
		s.heard = make([]map[string]fleet.Others, w.o.Routers)
	}
	var err error
	if s.fleet, err = registry.New(registry.Options{
		Store: memstore.New(), Events: published, Metrics: metrics, Log: log, Now: w.now,
		Random: rand.New(rand.NewPCG(w.o.Seed, 2+i)).Float64,
		Lease:  registry.LeaseOptions{BaseInterval: max(w.o.Reports, usualReports)},
		Eject:  fleet.EjectOptions{Enabled: true},
	}); err != nil {
		return nil, err
	}
	if err := s.fleet.Load(w.ctx); err != nil {
		return nil, err
	}
	if s.router, err = routing.New(routing.Options{
		Fleet: s.fleet, Policies: memstore.New(), Events: published, Metrics: metrics, Log: log, Now: w.now,
		Seed: strategy.Mix(w.o.Seed, i+1), Memory: s.known, Watchers: w.o.Watchers,
	}); err != nil {
		return nil, err
	}
	_, err = s.router.Apply(w.ctx, routing.Change{Make: routing.To(w.o.Policy), Expect: routing.AnyRevision, Source: policy.SourceAPI})
	return s, err
}

// Bounds of the blocks that a router remembers: the upper one is that of the service.
const (
	leastBlocks = 1 << 14
	mostBlocks  = 1 << 18
)

// blocks is how many blocks a router remembers: as the service does, unless a part of
// that is a multiple of what all heads hold.
func (w *world) blocks() int {
	tokens := 0
	for i := range w.o.Heads {
		tokens += w.o.Heads[i].Profile.KVTokens + w.o.Heads[i].Profile.CPUTokens
	}
	return min(max(4*tokens/workload.BlockTokens, leastBlocks), mostBlocks)
}

// upkeep does what the services do all the time.
func (w *world) upkeep() {
	for _, s := range w.routers {
		s.fleet.Step(w.ctx, w.now())
		s.router.Expire()
	}
	w.events.add(w.at+tick, w.upkeep)
}

// arrive takes the next request that comes by the clock.
func (w *world) arrive() {
	a, ok := w.o.Source.Next()
	if !ok {
		w.over = true
		return
	}
	w.events.add(a.At, func() {
		w.begin(&request{arrival: a})
		w.arrive()
	})
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

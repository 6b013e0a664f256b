package sim

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"headway/internal/engine"
	"headway/internal/fleet"
)

// head is a simulated head: an engine, its leases, and the requests there.
type head struct {
	w        *world
	index    int
	id       string
	region   string
	weight   float64
	full     engine.Profile // with its speed
	profile  engine.Profile // at which it works
	engine   *engine.Engine
	leases   []fleet.Lease // one for each service
	requests map[*engine.Sequence]*request
	steps    time.Duration // the end of the step that is scheduled, 0: none
	boots    int           // what was scheduled for an earlier engine is void
	down     bool
	broken   bool // each request fails at once
}

// maxWaiting is so long a queue that no simulation fills it.
const maxWaiting = math.MaxInt32

func newHead(w *world, i int) (*head, error) {
	is := &w.o.Heads[i]
	h := &head{w: w, index: i, id: "head-" + strconv.Itoa(i+1), region: cmp.Or(is.Region, onlyRegion), weight: cmp.Or(is.Weight, 1), full: is.Profile, down: true}
	if is.Speed > 0 {
		h.full = h.full.Faster(is.Speed)
	}
	h.profile = h.full
	if is.Absent {
		return h, nil
	}
	return h, h.start()
}

// start gives the head an engine without requests and with an empty cache, and
// registers it.
func (h *head) start() (err error) {
	if h.engine, err = engine.New(engine.Options{Profile: h.profile, MaxWaiting: maxWaiting}); err != nil {
		return err
	}
	h.requests = map[*engine.Sequence]*request{}
	h.boots++
	h.steps = 0
	h.down = false
	return h.register()
}

func (h *head) register() error {
	spec := fleet.Spec{ID: h.id, Endpoint: "http://127.0.0.1:" + strconv.Itoa(8000+h.index%1000), ModelTypes: []string{h.w.o.Model}, Region: h.region, Weight: h.weight}
	h.leases = h.leases[:0]
	for _, s := range h.w.routers {
		done, err := s.fleet.Register(h.w.ctx, spec, &fleet.StatusReport{Status: fleet.StatusActive, Load: h.load()})
		if err != nil {
			return err
		}
		h.leases = append(h.leases, done.Lease)
	}
	return nil
}

// stop ends the head without a word: its requests are lost, and no report comes.
func (h *head) stop() {
	lost := make([]*request, 0, len(h.requests))
	for _, q := range h.requests {
		lost = append(lost, q)
	}
	slices.SortFunc(lost, func(a, b *request) int { return a.number - b.number })
	h.down = true
	h.boots++
	h.requests = nil
	for _, q := range lost {
		h.w.lost(q)
	}
}

func (h *head) load() fleet.Load {
	l := h.engine.Load(h.w.at)
	return fleet.Load{
		InFlight: int64(l.Running), Queued: int64(l.Waiting), PendingPromptTokens: int64(l.PendingPromptTokens),
		KVCapacityTokens: int64(l.KVCapacityTokens), KVCacheUsage: l.KVUsage, Utilization: l.Utilization, TokensPerSecond: l.TokensPerSecond,
	}
}

// report reports to every service, and again after the interval.
func (h *head) report() {
	if !h.down {
		load := h.load()
		for i, s := range h.w.routers {
			lease, err := s.fleet.Report(h.id, fleet.StatusReport{Epoch: h.leases[i].Epoch, Status: fleet.StatusActive, Load: load})
			if err != nil {
				h.w.err = fmt.Errorf("report of %s: %w", h.id, err)
				return
			}
			h.leases[i] = lease
		}
	}
	h.w.events.add(h.w.at+h.w.o.Reports, h.report)
}

var errRefused = errors.New("the head is down or broken")

func (h *head) submit(q *request) (*engine.Sequence, error) {
	if h.down || h.broken {
		return nil, errRefused
	}
	s, err := h.engine.Submit(h.w.at, engine.Request{PromptTokens: q.arrival.Input, OutputTokens: q.arrival.Output, Blocks: q.blocks})
	if err != nil {
		return nil, err
	}
	h.requests[s] = q
	h.schedule()
	return s, nil
}

// schedule plans for the end of the step under way.
func (h *head) schedule() {
	next, busy := h.engine.Next()
	if !busy || next == h.steps {
		return
	}
	h.steps = next
	boot := h.boots
	h.w.events.add(next, func() {
		if boot == h.boots {
			h.step()
		}
	})
}

// step takes the tokens of the step that ends now.
func (h *head) step() {
	for _, t := range h.engine.Advance(h.w.at) {
		if t.N > 1 && !t.Last {
			continue
		}
		q := h.requests[t.Sequence]
		if t.N == 1 {
			h.w.firstToken(q)
		}
		if t.Last {
			delete(h.requests, t.Sequence)
			h.w.done(q)
		}
	}
	h.schedule()
}

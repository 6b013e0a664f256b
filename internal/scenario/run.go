// Package scenario runs scripts that say, line by line, what a fleet does and
// how requests are placed on it. A script is a specification that reads like
// one, of strategies above all; it runs on the real registry and the real
// router, on a clock of its own.
//
//	policy                         a policy document in YAML, up to end
//	head a region=eu weight=2      registers head a and reports it active;
//	                               status=none leaves out the report;
//	                               models=m,n max_in_flight=8 label.gpu=h100
//	report a status=draining       reports, and so each time from now on;
//	                               in_flight=5 queued=2 pending_prompt_tokens=9000
//	                               kv_cache_usage=0.5 utilization=0.5 too
//	silent a b                     they report no more while time passes
//	talking a                      it does again
//	admin a draining               sets the admin state
//	remove a                       deregisters
//	advance 10s                    time passes; heads report at their interval
//	decide 100 region=eu -> a=100  100 decisions; see expect.go for what may
//	                               stand behind the arrow. Settings: model region
//	                               mode strategy session exclude label.NAME;
//	                               sessions=10 takes ten sessions in turn. Each
//	                               ends at once, unless the word hold is there
//	finish 3                       ends the oldest 3 of those held, or all
//	routable a b                   these take new requests, and no others
//	health a suspect               the health of a head
//	inflight a 3                   places taken at a head
//	open 0                         reservations that have not ended
//
// Everything behind # is a comment. Model m is meant where none is named.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/policy"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/strict"
)

// defaultSeed makes the router's random choices reproducible. The start of a
// rotation and the phase of reports stay random, so a script must hold for any.
const defaultSeed = 1

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// theModel is the default model type.
const theModel = "m"

// tick is below what the registry takes for a pause of the machine.
const tick = 250 * time.Millisecond

type run struct {
	fleet  *registry.Registry
	router *routing.Router
	leases map[string]*member
	held   []*routing.Decision
	asked  int64 // decisions so far
	now    time.Time
}

// member is a head that the script registered.
type member struct {
	lease  fleet.Lease
	status fleet.Status
	load   fleet.Load
	next   time.Time // when it reports again
	silent bool
}

// Run runs a script; seed 0 is 1. The error names the failed line.
func Run(ctx context.Context, s *Script, seed uint64) error {
	if seed == 0 {
		seed = defaultSeed
	}
	r := &run{leases: map[string]*member{}, now: epoch}
	metrics, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	events := event.New(metrics)
	var err error
	if r.fleet, err = registry.New(registry.Options{
		Store: memstore.New(), Events: events, Metrics: metrics, Log: log, Now: r.clock,
		Random: rand.New(rand.NewPCG(seed, 0)).Float64,
	}); err != nil {
		return err
	}
	if err := r.fleet.Load(ctx); err != nil {
		return err
	}
	if r.router, err = routing.New(routing.Options{
		Fleet: r.fleet, Policies: memstore.New(), Events: events, Metrics: metrics, Log: log, Now: r.clock, Seed: seed,
	}); err != nil {
		return err
	}
	for i := range s.steps {
		st := &s.steps[i]
		if err := r.step(ctx, st); err != nil {
			return s.fault(st.line, fmt.Errorf("%s: %w", st.command, err))
		}
	}
	return nil
}

func (r *run) clock() time.Time { return r.now }

func (r *run) step(ctx context.Context, st *step) error {
	switch st.command {
	case "policy":
		return r.policy(ctx, st)
	case "head":
		return r.head(ctx, st)
	case "report":
		return r.report(st)
	case "silent", "talking":
		return r.each(st.words, func(m *member) { m.silent, m.next = st.command == "silent", r.now })
	case "admin":
		return r.admin(ctx, st)
	case "remove":
		delete(r.leases, st.words[0])
		return r.fleet.Deregister(ctx, st.words[0])
	case "advance":
		return r.advance(ctx, st.words[0])
	case "decide":
		return r.decide(ctx, st)
	case "finish":
		return r.finish(st.words)
	}
	return r.look(st)
}

func (r *run) policy(ctx context.Context, st *step) error {
	next, faults := policy.Parse([]byte(st.block), "yaml")
	if len(faults) > 0 {
		return &strict.InvalidError{Faults: faults}
	}
	_, err := r.router.Apply(ctx, routing.Change{Make: routing.To(next), Expect: routing.AnyRevision, Source: policy.SourceAPI})
	return err
}

func (r *run) head(ctx context.Context, st *step) error {
	spec := fleet.Spec{
		ID: st.words[0], Endpoint: "http://127.0.0.1:8000", ModelTypes: st.list("models"), Region: st.settings["region"], Labels: st.labels(),
	}
	if spec.ModelTypes == nil {
		spec.ModelTypes = []string{theModel}
	}
	if spec.Region == "" {
		spec.Region = "here"
	}
	if w := st.settings["weight"]; w != "" {
		var err error
		if spec.Weight, err = strconv.ParseFloat(w, 64); err != nil {
			return fmt.Errorf("weight %q is no number", w)
		}
	}
	if n := st.settings["max_in_flight"]; n != "" {
		var err error
		if spec.MaxInFlight, err = number(n, 1, 1e6); err != nil {
			return err
		}
	}
	m := &member{load: fleet.UnknownLoad(), status: fleet.StatusActive}
	var first *fleet.StatusReport
	if given := st.settings["status"]; given != "none" {
		if err := m.take(st); err != nil {
			return err
		}
		first = &fleet.StatusReport{Status: m.status, Load: m.load}
	} else {
		m.silent = true
	}
	done, err := r.fleet.Register(ctx, spec, first)
	if err != nil {
		return err
	}
	m.lease, m.next = done.Lease, r.now.Add(done.Lease.HeartbeatInterval)
	r.leases[spec.ID] = m
	return nil
}

func (m *member) take(st *step) error {
	if s := st.settings["status"]; s != "" {
		status, ok := fleet.ParseStatus(s)
		if !ok {
			return fmt.Errorf("%q is no status", s)
		}
		m.status = status
	}
	for name, count := range map[string]*int64{
		"in_flight": &m.load.InFlight, "queued": &m.load.Queued, "pending_prompt_tokens": &m.load.PendingPromptTokens,
	} {
		if v := st.settings[name]; v != "" {
			n, err := number(v, 0, 1e9)
			if err != nil {
				return err
			}
			*count = n
		}
	}
	for name, share := range map[string]*float64{"kv_cache_usage": &m.load.KVCacheUsage, "utilization": &m.load.Utilization} {
		if v := st.settings[name]; v != "" {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				return fmt.Errorf("%s %q is no number", name, v)
			}
			*share = n
		}
	}
	return nil
}

func (r *run) each(ids []string, f func(*member)) error {
	for _, id := range ids {
		m := r.leases[id]
		if m == nil {
			return fmt.Errorf("no head %q is registered", id)
		}
		f(m)
	}
	return nil
}

func (r *run) report(st *step) error {
	id := st.words[0]
	m := r.leases[id]
	if m == nil {
		return fmt.Errorf("no head %q is registered", id)
	}
	if err := m.take(st); err != nil {
		return err
	}
	return r.beat(id, m)
}

func (r *run) beat(id string, m *member) error {
	lease, err := r.fleet.Report(id, fleet.StatusReport{Epoch: m.lease.Epoch, Status: m.status, Load: m.load})
	if err != nil {
		return fmt.Errorf("report of %s: %w", id, err)
	}
	m.lease, m.next = lease, r.now.Add(lease.HeartbeatInterval)
	return nil
}

func (r *run) admin(ctx context.Context, st *step) error {
	state, ok := fleet.ParseAdminState(st.words[1])
	if !ok {
		return fmt.Errorf("%q is no admin state", st.words[1])
	}
	_, err := r.fleet.Patch(ctx, st.words[0], registry.Patch{State: &state})
	return err
}

// advance lets time pass in ticks, in which heads report and leases expire.
func (r *run) advance(ctx context.Context, by string) error {
	d, err := time.ParseDuration(by)
	if err != nil || d <= 0 || d > maxAdvance {
		return fmt.Errorf("%q is no time from 1ns to %s", by, maxAdvance)
	}
	if total := r.now.Sub(epoch) + d; total > maxAdvance {
		return fmt.Errorf("a script lasts at most %s, not %s", maxAdvance, total)
	}
	for d > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		step := min(d, tick)
		d -= step
		r.now = r.now.Add(step)
		for _, id := range slices.Sorted(maps.Keys(r.leases)) {
			if m := r.leases[id]; !m.silent && !r.now.Before(m.next) {
				if err := r.beat(id, m); err != nil {
					return err
				}
			}
		}
		r.fleet.Step(ctx, r.now)
		r.router.Expire()
	}
	return nil
}

func (r *run) decide(ctx context.Context, st *step) error {
	n, hold := int64(1), false
	for _, word := range st.words {
		var err error
		if word == "hold" {
			hold = true
		} else if n, err = number(word, 1, maxDecisions); err != nil {
			return err
		}
	}
	req := strategy.Request{
		ModelType: st.settings["model"], Region: st.settings["region"], Strategy: st.settings["strategy"],
		SessionKey: st.settings["session"], Exclude: st.list("exclude"), Labels: st.labels(),
	}
	if req.ModelType == "" {
		req.ModelType = theModel
	}
	if mode := st.settings["mode"]; mode != "" {
		var ok bool
		if req.RegionMode, ok = strategy.ParseRegionMode(mode); !ok {
			return fmt.Errorf("%q is no region mode", mode)
		}
	}
	sessions := int64(0)
	if s := st.settings["sessions"]; s != "" {
		var err error
		if sessions, err = number(s, 1, maxDecisions); err != nil {
			return err
		}
	}
	if r.asked += n; r.asked > maxDecisions {
		return fmt.Errorf("a script makes at most %d decisions, not %d", maxDecisions, r.asked)
	}
	got := make([]outcome, 0, n)
	for i := range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		if sessions > 0 {
			req.SessionKey = fmt.Sprintf("session-%d", i%sessions)
		}
		o, err := r.once(&req, hold)
		if err != nil {
			return err
		}
		got = append(got, o)
	}
	return meet(st.expect, got)
}

func (r *run) once(req *strategy.Request, hold bool) (outcome, error) {
	d, err := r.router.Decide(req)
	if none, ok := errors.AsType[*routing.NoHeadError](err); ok {
		return outcome{refused: none.Failure.String()}, nil
	}
	if override, ok := errors.AsType[*routing.OverrideError](err); ok {
		return outcome{refused: "override:" + override.Field}, nil
	}
	if invalid, ok := errors.AsType[*strict.InvalidError](err); ok {
		return outcome{refused: "invalid:" + invalid.Faults[0].Pointer}, nil
	}
	if err != nil {
		return outcome{}, err
	}
	if hold {
		r.held = append(r.held, d)
	} else {
		r.router.End(d, routing.Outcome{Result: routing.ResultOK})
	}
	return outcome{head: d.Head.ID}, nil
}

func (r *run) finish(words []string) error {
	n := int64(len(r.held))
	if len(words) > 0 {
		var err error
		if n, err = number(words[0], 0, n); err != nil {
			return err
		}
	}
	for _, d := range r.held[:n] {
		r.router.End(d, routing.Outcome{Result: routing.ResultOK})
	}
	r.held = slices.Delete(r.held, 0, int(n))
	return nil
}

func (r *run) look(st *step) error {
	same := func(got, want string) error {
		if got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		return nil
	}
	switch st.command {
	case "open":
		return same(fmt.Sprint(r.router.Open()), st.words[0])
	case "routable":
		heads := map[string]bool{}
		for _, p := range r.fleet.Snapshot().Pools {
			for _, h := range slices.Concat(p.All.Active.Heads, p.All.Degraded.Heads) {
				heads[h.ID] = true
			}
		}
		var got []string
		for id := range heads {
			got = append(got, id)
		}
		slices.Sort(got)
		slices.Sort(st.words)
		return same(strings.Join(got, " "), strings.Join(st.words, " "))
	}
	v, err := r.fleet.Head(st.words[0])
	switch {
	case errors.Is(err, fleet.ErrHeadNotFound) && st.command == "health":
		return same("gone", st.words[1])
	case err != nil:
		return err
	case st.command == "health":
		return same(v.Head.Health.String(), st.words[1])
	}
	return same(fmt.Sprint(v.Head.Live.InFlight()), st.words[1])
}

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
//	                               sessions=10 takes ten sessions in turn;
//	                               tokens=2000 is the length of the prompt, and
//	                               blocks=1,2,3 are its blocks. Each ends at once,
//	                               unless the word hold is there
//	answer 3                       the oldest 3 of those held, or all, begin to be
//	                               answered
//	finish 3                       ends the oldest 3 of those held, or all
//	routable a b                   these take new requests, and no others
//	health a suspect               the health of a head
//	inflight a 3                   places taken at a head
//	open 0                         reservations that have not ended
//
// Everything behind # is a comment. Model m is meant where none is named.
package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
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
	heads  map[string]*member
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
	seed = cmp.Or(seed, defaultSeed)
	r := &run{heads: map[string]*member{}, now: epoch}
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
		return r.quiet(st)
	case "admin":
		return r.admin(ctx, st)
	case "remove":
		delete(r.heads, st.words[0])
		return r.fleet.Deregister(ctx, st.words[0])
	case "advance":
		return r.advance(ctx, st.words[0])
	case "decide":
		return r.decide(ctx, st)
	case "answer":
		return r.first(st.words, func(d *routing.Decision) { r.router.Begun(d) })
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
		ID: st.words[0], Endpoint: "http://127.0.0.1:8000", ModelTypes: st.list("models"),
		Region: cmp.Or(st.settings["region"], "here"), Labels: st.labels(),
	}
	if len(spec.ModelTypes) == 0 {
		spec.ModelTypes = []string{theModel}
	}
	m := &member{load: fleet.UnknownLoad(), status: fleet.StatusActive, silent: st.settings["status"] == "none"}
	err := errors.Join(st.fraction("weight", &spec.Weight), st.whole("max_in_flight", 1, 1e6, &spec.MaxInFlight))
	var first *fleet.StatusReport
	if !m.silent {
		err = errors.Join(err, m.take(st))
		first = &fleet.StatusReport{Status: m.status, Load: m.load}
	}
	if err != nil {
		return err
	}
	done, err := r.fleet.Register(ctx, spec, first)
	if err != nil {
		return err
	}
	m.lease, m.next = done.Lease, r.now.Add(done.Lease.HeartbeatInterval)
	r.heads[spec.ID] = m
	return nil
}

// take takes the settings of a report.
func (m *member) take(st *step) error {
	if s := st.settings["status"]; s != "" {
		var ok bool
		if m.status, ok = fleet.ParseStatus(s); !ok {
			return fmt.Errorf("%q is no status", s)
		}
	}
	return errors.Join(
		st.whole("in_flight", 0, 1e9, &m.load.InFlight),
		st.whole("queued", 0, 1e9, &m.load.Queued),
		st.whole("pending_prompt_tokens", 0, 1e9, &m.load.PendingPromptTokens),
		st.fraction("kv_cache_usage", &m.load.KVCacheUsage),
		st.fraction("utilization", &m.load.Utilization),
	)
}

func (r *run) member(id string) (*member, error) {
	if m := r.heads[id]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("no head %q is registered", id)
}

func (r *run) quiet(st *step) error {
	for _, id := range st.words {
		m, err := r.member(id)
		if err != nil {
			return err
		}
		m.silent, m.next = st.command == "silent", r.now
	}
	return nil
}

func (r *run) report(st *step) error {
	m, err := r.member(st.words[0])
	if err == nil {
		err = m.take(st)
	}
	if err != nil {
		return err
	}
	return r.beat(st.words[0], m)
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
		for _, id := range slices.Sorted(maps.Keys(r.heads)) {
			if m := r.heads[id]; !m.silent && !r.now.Before(m.next) {
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
		ModelType: cmp.Or(st.settings["model"], theModel), Region: st.settings["region"], Strategy: st.settings["strategy"],
		SessionKey: st.settings["session"], Exclude: st.list("exclude"), Labels: st.labels(),
	}
	if mode := st.settings["mode"]; mode != "" {
		var ok bool
		if req.RegionMode, ok = strategy.ParseRegionMode(mode); !ok {
			return fmt.Errorf("%q is no region mode", mode)
		}
	}
	sessions := int64(0)
	if err := errors.Join(
		st.whole("sessions", 1, maxDecisions, &sessions), st.whole("tokens", 1, 1e9, &req.InputTokens), st.blocks(&req),
	); err != nil {
		return err
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
		r.router.End(d, routing.Outcome{Result: routing.ResultOK, CachedTokens: fleet.Unknown})
	}
	return outcome{head: d.Head.ID}, nil
}

func (r *run) finish(words []string) error {
	ended := 0
	err := r.first(words, func(d *routing.Decision) {
		r.router.End(d, routing.Outcome{Result: routing.ResultOK, CachedTokens: fleet.Unknown})
		ended++
	})
	r.held = slices.Delete(r.held, 0, ended)
	return err
}

// first does something with the oldest of the decisions that are held, as many as
// the words say, or all.
func (r *run) first(words []string, do func(*routing.Decision)) error {
	n := int64(len(r.held))
	if len(words) > 0 {
		var err error
		if n, err = number(words[0], 0, n); err != nil {
			return err
		}
	}
	for _, d := range r.held[:n] {
		do(d)
	}
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
		var got []string
		for _, h := range r.fleet.Snapshot().Sorted() {
			if h.Routable() {
				got = append(got, h.ID)
			}
		}
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

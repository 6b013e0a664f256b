package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"headway/internal/engine"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/workload"
)

// Contender is one way to place requests.
type Contender struct {
	Name   string
	Policy *policy.Policy
	Pick   func(*Fleet, *workload.Arrival) (head int) // as in Options
	// Reports is how often heads report, for rules that are made for other intervals;
	// 0: as usual.
	Reports time.Duration
}

// Study compares contenders at several loads. Traffic, Profile, Heads, Contenders, and
// either Loads or Rates are required.
type Study struct {
	Traffic    *workload.Traffic
	Profile    engine.Profile
	Heads      int
	Model      string // model type of all requests; "": that of the traffic, else UsualModel
	Contenders []Contender
	Loads      []float64 // parts of the saturation rate
	Rates      []float64 // requests a second
	Saturation float64   // the rate of load 1; 0: it is searched for, if there are Loads
	Carried    bool      // which rate each contender carries is searched for too
	Scenarios  []Scenario
	Routers    int
	Window     time.Duration
	Loss       float64
	Seed       uint64                           // of the first round
	Rounds     int                              // with a seed each, over which results are averaged; 0: 1
	Watch      func(*Contender) routing.Watcher // makes one for each run; nil: none
	// Progress is called with the part that is done, by one goroutine at a time.
	Progress func(part float64)
}

// searchRuns is about how many runs a search for a rate takes.
const searchRuns = 10

// The rate that saturates a fleet depends on the length of a play that is shorter.
const (
	fewRequests = 4000
	shortPlay   = 3 * time.Minute
)

// base is the strategy whose saturation is load 1.
const base = "round_robin"

// Base is the contender whose saturation is load 1.
func Base() (Contender, error) { return Named(base) }

// Named is the contender of a strategy with its usual parameters.
func Named(strategy string) (Contender, error) {
	doc := policy.Document{DefaultStrategy: strategy, CallerMay: []string{"exclude"}}
	p, faults := policy.Compile(doc)
	if len(faults) > 0 {
		return Contender{}, errors.New(faults[0].Reason)
	}
	return Contender{Name: strategy, Policy: p}, nil
}

// Run runs the study. If it fails, or ctx ends before, the report has the results that
// there are until then.
func (s *Study) Run(ctx context.Context) (*Report, error) {
	r := &Report{Trace: s.Traffic.Name, Profile: s.Profile.Name, Heads: s.Heads, Seed: max(s.Seed, 1), Rounds: max(s.Rounds, 1), ModelType: s.model(), Results: []Result{}}
	for _, c := range s.Scenarios {
		r.Scenarios = append(r.Scenarios, c.Name)
	}
	r.Notes = slices.Clone(s.Traffic.Notes)
	if err := s.possible(r); err != nil {
		return r, err
	}
	p := s.progress()
	if len(s.Loads) > 0 {
		rate, err := s.saturationRate(ctx, p)
		if err != nil {
			return r, err
		}
		r.SaturationRate = &rate
		if span := s.Traffic.Span(rate); s.Saturation == 0 && (s.Traffic.Requests < fewRequests || span < shortPlay) {
			r.Notes = append(r.Notes, fmt.Sprintf("load 1.0 is of %d requests in %s: a longer trace may have another one; want %d and %s at least",
				s.Traffic.Requests, span.Round(time.Second), fewRequests, shortPlay))
		}
	}
	cells := s.cells(r.SaturationRate)
	err := s.runAll(ctx, cells, p)
	for i := range cells {
		if c := &cells[i]; c.complete() {
			r.Results = append(r.Results, c.result())
		}
	}
	if err != nil || !s.Carried {
		return r, err
	}
	r.Carried, err = s.carried(ctx, p)
	return r, err
}

// model is the model type of all requests.
func (s *Study) model() string { return cmp.Or(s.Model, s.Traffic.Model, UsualModel) }

// possible reports what keeps a run from being set up, before any has begun, and notes
// rules of policies that apply to none of the requests.
func (s *Study) possible(r *Report) error {
	for i := range s.Contenders {
		c := &s.Contenders[i]
		setup, err := s.setup(c, s.Scenarios, 1, 1, nil)
		if err != nil {
			return err
		}
		if idle := setup.Policy.Unmatched(setup.Model, setup.Regions); len(idle) > 0 {
			from := "they name no region"
			if len(setup.Regions) > 0 {
				from = "their regions are " + strings.Join(setup.Regions, " and ")
			}
			r.Notes = append(r.Notes, fmt.Sprintf("%s: no request is matched by %s: their model type is %s, and %s", c.Name, strings.Join(idle, ", "), setup.Model, from))
		}
	}
	return nil
}

// saturationRate is the rate of load 1.
func (s *Study) saturationRate(ctx context.Context, p *progress) (float64, error) {
	if s.Saturation > 0 {
		return s.Saturation, nil
	}
	contender, err := Base()
	if err != nil {
		return 0, err
	}
	rate, err := s.searching(&contender, nil, p).saturation(ctx)
	if err == nil && rate == 0 {
		err = fmt.Errorf("%s keeps up with no rate, however low; give --rate instead of --load", base)
	}
	p.searched()
	return rate, err
}

// carried finds the rate that each contender carries.
func (s *Study) carried(ctx context.Context, p *progress) (all []Carried, err error) {
	for i := range s.Contenders {
		c := &s.Contenders[i]
		rate, err := s.searching(c, s.Scenarios, p).carried(ctx)
		if err != nil {
			return all, err
		}
		p.searched()
		all = append(all, Carried{c.Name, rate})
	}
	return all, nil
}

func (s *Study) searching(c *Contender, scenarios []Scenario, p *progress) *searching {
	return &searching{s.Traffic, func(rate float64) (*Setup, error) {
		return s.setup(c, scenarios, rate, max(s.Seed, 1), p.count())
	}}
}

// setup is that of one run.
func (s *Study) setup(c *Contender, scenarios []Scenario, rate float64, seed uint64, progress func(int)) (*Setup, error) {
	setup := &Setup{Options: Options{
		Policy: c.Policy, Model: c.Policy.Model(s.model()), Pick: c.Pick, Reports: c.Reports, Seed: seed, Progress: progress,
		Routers: s.Routers, Window: s.Window, Loss: s.Loss, Heads: make([]Head, s.Heads),
	}, span: s.Traffic.Span(rate)}
	for i := range setup.Heads {
		setup.Heads[i].Profile = s.Profile
	}
	if s.Watch != nil {
		setup.Watchers = []routing.Watcher{s.Watch(c)}
	}
	for _, scenario := range scenarios {
		if err := scenario.set(setup); err != nil {
			return nil, fmt.Errorf("scenario %s: %w", scenario.Name, err)
		}
	}
	setup.play = workload.Play{Rate: rate, Seed: seed, Regions: setup.Regions}
	var err error
	setup.Source, err = s.Traffic.Play(setup.play)
	return setup, err
}

// cell is a contender at a load.
type cell struct {
	contender *Contender
	load      *float64
	rate      float64
	rounds    []*Measured // each is written by the one run that makes it
}

// complete reports whether all rounds have ended.
func (c *cell) complete() bool { return !slices.Contains(c.rounds, nil) }

func (s *Study) cells(saturation *float64) []cell {
	var cells []cell
	at := func(load *float64, rate float64) {
		for i := range s.Contenders {
			cells = append(cells, cell{&s.Contenders[i], load, rate, make([]*Measured, max(s.Rounds, 1))})
		}
	}
	for _, load := range s.Loads {
		at(&load, load**saturation)
	}
	for _, rate := range s.Rates {
		at(nil, rate)
	}
	return cells
}

// runAll runs all rounds of the cells, as many at once as there are processors.
func (s *Study) runAll(ctx context.Context, cells []cell, p *progress) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type job struct {
		cell  *cell
		round int
	}
	jobs := make(chan job)
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), max(len(cells)*max(s.Rounds, 1), 1)) {
		workers.Go(func() {
			for j := range jobs {
				if err := s.runOne(ctx, j.cell, j.round, p); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range cells {
		for round := range max(s.Rounds, 1) {
			select {
			case jobs <- job{&cells[i], round}:
			case <-ctx.Done():
			}
		}
	}
	close(jobs)
	workers.Wait()
	return context.Cause(ctx)
}

func (s *Study) runOne(ctx context.Context, c *cell, round int, p *progress) error {
	setup, err := s.setup(c.contender, s.Scenarios, c.rate, max(s.Seed, 1)+uint64(round), p.count())
	if err != nil {
		return err
	}
	c.rounds[round], err = Run(ctx, setup.Options)
	return err
}

// progress counts the requests that have ended in all runs.
type progress struct {
	done atomic.Int64
	mu   sync.Mutex
	all  float64 // requests
	jump int64   // requests that count as done after the search under way
	each int64   // requests that a search counts for
	say  func(part float64)
}

func (s *Study) progress() *progress {
	each := int64(s.Traffic.Requests) * searchRuns
	all := float64(int64(s.Traffic.Requests) * int64((len(s.Loads)+len(s.Rates))*len(s.Contenders)*max(s.Rounds, 1)))
	p := &progress{each: each, jump: each, say: s.Progress}
	if len(s.Loads) > 0 && s.Saturation == 0 {
		all += float64(each)
	}
	if s.Carried {
		all += float64(each) * float64(len(s.Contenders))
	}
	p.all = all
	return p
}

// sayEvery is how many requests end between two calls.
const sayEvery = 1000

// count is Options.Progress of a run.
func (p *progress) count() func(int) {
	if p.say == nil {
		return nil
	}
	return func(int) {
		if done := p.done.Add(1); done%sayEvery == 0 {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.say(min(float64(done)/p.all, 1))
		}
	}
}

// searched has the search that ended count for as much as was planned.
func (p *progress) searched() {
	p.done.Store(p.jump)
	p.jump += p.each
}

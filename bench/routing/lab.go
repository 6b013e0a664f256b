package main

import (
	"context"
	"embed"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"headway/bench/routing/peers"
	"headway/internal/engine"
	"headway/internal/routing"
	"headway/internal/sim"
	"headway/internal/workload"
)

//go:embed traces/*.zst
var traces embed.FS

// The fleet of all figures.
const (
	heads   = 8
	profile = "qwen32b-h100x2"
)

// traffic is a workload of the figures.
type traffic struct {
	name   string
	shown  string
	open   string // as workload.Open takes it, or a file of traces
	rounds int    // seeds that are averaged
	// ratesOf is the traffic whose saturation is load 1; "": its own.
	ratesOf string
}

var workloads = []traffic{
	{name: "conversation", shown: "Mooncake conversation", open: "mooncake_conversation.jsonl", rounds: 3},
	{name: "agents", shown: "agents", open: "agents:sessions=260,turns=33", rounds: 8, ratesOf: "conversation"},
	{name: "chat", shown: "Azure conversation 2023", open: "azure_llm_2023_conv.csv", rounds: 1},
	{name: "bursts", shown: "bursts (gamma, cv 3)", open: "gamma:requests=8000", rounds: 1},
	{name: "days", shown: "days (diurnal)", open: "diurnal:requests=8000", rounds: 1},
}

// run names one run.
type run struct {
	workload  string
	contender string
	load      float64
	scenario  string // names with spaces between them
	routers   int
	window    time.Duration
	requests  int // 0: all
}

// carrying names a search for the rate that a contender carries.
type carrying struct{ workload, contender string }

// result is what a run showed, with the mean regret of its placements in ms.
type result struct {
	sim.Result
	regret float64
}

// regrets is a routing.Watcher that averages the regret of placements.
type regrets struct {
	mu  sync.Mutex
	sum float64
	n   int
}

// Sampled implements routing.Watcher.
func (r *regrets) Sampled(s *routing.Sample) {
	if regret := s.Regret(); !math.IsNaN(regret) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sum += regret
		r.n++
	}
}

// Ended implements routing.Watcher.
func (*regrets) Ended(*routing.Decision, *routing.Outcome, bool) {}

// Refused implements routing.Watcher.
func (*regrets) Refused(string, string, time.Time) {}

// lab makes runs, each once.
type lab struct {
	ctx context.Context //nolint:containedctx // of the one call of main
	dir string          // of unpacked traces
	say func(string)

	mu         sync.Mutex
	planned    []func() error
	results    map[run]result
	carried    map[carrying]float64
	saturation map[string]float64
	opened     map[string]*workload.Traffic
	planning   bool
}

func newLab(ctx context.Context, dir string, say func(string)) (*lab, error) {
	l := &lab{
		ctx: ctx, dir: dir, say: say,
		results: map[run]result{}, carried: map[carrying]float64{}, saturation: map[string]float64{}, opened: map[string]*workload.Traffic{},
	}
	return l, l.unpack()
}

// unpack writes the traces where workload.Open finds them.
func (l *lab) unpack() error {
	files, err := traces.ReadDir("traces")
	if err != nil {
		return err
	}
	unpacker, err := zstd.NewReader(nil)
	if err != nil {
		return err
	}
	defer unpacker.Close()
	for _, f := range files {
		packed, err := traces.ReadFile("traces/" + f.Name())
		if err != nil {
			return err
		}
		text, err := unpacker.DecodeAll(packed, nil)
		if err != nil {
			return fmt.Errorf("unpack %s: %w", f.Name(), err)
		}
		if err := os.WriteFile(filepath.Join(l.dir, strings.TrimSuffix(f.Name(), ".zst")), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func workloadNamed(name string) *traffic {
	for i := range workloads {
		if workloads[i].name == name {
			return &workloads[i]
		}
	}
	panic("no workload " + name)
}

// traffic opens a workload; requests as for workload.Open.
func (l *lab) traffic(name string, requests int) (*workload.Traffic, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := fmt.Sprint(name, requests)
	if t := l.opened[key]; t != nil {
		return t, nil
	}
	open := workloadNamed(name).open
	if !strings.Contains(open, ":") {
		open = filepath.Join(l.dir, open)
	}
	t, err := workload.Open(open, requests)
	if err == nil {
		l.opened[key] = t
	}
	return t, err
}

// contender is a strategy, a peer, or the oracle.
func contender(name string) (sim.Contender, error) {
	if name == "oracle" {
		c, err := sim.Named("random")
		c.Name, c.Pick = name, oracle
		return c, err
	}
	c, err := sim.Named(name)
	for _, p := range peers.All {
		if p.Name == name && p.Polls {
			c.Reports = 50 * time.Millisecond
		}
	}
	return c, err
}

// study is that of a run.
func (l *lab) study(r run) (*sim.Study, error) {
	t, err := l.traffic(r.workload, r.requests)
	if err != nil {
		return nil, err
	}
	c, err := contender(r.contender)
	if err != nil {
		return nil, err
	}
	s := &sim.Study{Traffic: t, Profile: profileNamed(profile), Heads: heads, Contenders: []sim.Contender{c}, Seed: 1, Routers: max(r.routers, 1), Window: r.window}
	for name := range strings.FieldsSeq(r.scenario) {
		scenario, err := sim.ParseScenario(name)
		if err != nil {
			return nil, err
		}
		s.Scenarios = append(s.Scenarios, scenario)
	}
	return s, nil
}

func profileNamed(name string) engine.Profile {
	for _, p := range engine.Profiles() {
		if p.Name == name {
			return p
		}
	}
	panic("no profile " + name)
}

// rate is load 1 of a workload in requests a second.
func (l *lab) rate(name string) (float64, error) {
	if of := workloadNamed(name).ratesOf; of != "" {
		name = of
	}
	l.mu.Lock()
	rate := l.saturation[name]
	l.mu.Unlock()
	if rate > 0 {
		return rate, nil
	}
	t, err := l.traffic(name, 0)
	if err != nil {
		return 0, err
	}
	s := &sim.Study{Traffic: t, Profile: profileNamed(profile), Heads: heads, Loads: []float64{1}, Seed: 1}
	report, err := s.Run(l.ctx)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.saturation[name] = *report.SaturationRate
	l.say(fmt.Sprintf("load 1.0 of %s is %.3f requests/s", name, *report.SaturationRate))
	return *report.SaturationRate, nil
}

// get is the result of a run, of zeros while runs are planned.
func (l *lab) get(r run) result {
	l.mu.Lock()
	defer l.mu.Unlock()
	of, done := l.results[r]
	if !done && l.planning {
		l.results[r] = result{}
		l.planned = append(l.planned, func() error { return l.make(r) })
	}
	return of
}

func (l *lab) make(r run) error {
	s, err := l.study(r)
	if err != nil {
		return err
	}
	rate, err := l.rate(r.workload)
	if err != nil {
		return err
	}
	s.Rates = []float64{r.load * rate}
	if s.Rounds = workloadNamed(r.workload).rounds; r.requests > 0 {
		s.Rounds = 1
	}
	var watched regrets
	s.Watch = func(*sim.Contender) routing.Watcher { return &watched }
	report, err := s.Run(l.ctx)
	if err != nil {
		return fmt.Errorf("%+v: %w", r, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.results[r] = result{report.Results[0], watched.sum / float64(max(watched.n, 1))}
	return nil
}

// carries is the rate that a contender carries at 95 % goodput, 0 while runs are
// planned.
func (l *lab) carries(name, by string) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := carrying{name, by}
	rate, done := l.carried[key]
	if !done && l.planning {
		l.carried[key] = 0
		l.planned = append(l.planned, func() error {
			s, err := l.study(run{workload: name, contender: by})
			if err != nil {
				return err
			}
			s.Carried = true
			report, err := s.Run(l.ctx)
			if err != nil {
				return err
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.carried[key] = report.Carried[0].Rate
			return nil
		})
	}
	return rate
}

// all makes the runs that a function asks for, as many at once as there are
// processors.
func (l *lab) all(asks func()) error {
	l.planning = true
	asks()
	l.planning = false
	l.say(fmt.Sprintf("%d runs and searches", len(l.planned)))
	for _, w := range workloads { // before runs that wait for it
		if l.asksFor(w.name) && l.ctx.Err() == nil {
			if _, err := l.rate(w.name); err != nil {
				return err
			}
		}
	}
	jobs := make(chan func() error)
	var first error
	var once sync.Once
	var done int
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for job := range jobs {
				if err := job(); err != nil {
					once.Do(func() { first = err })
				}
			}
		})
	}
	for _, job := range l.planned {
		jobs <- job
		if done++; done%20 == 0 {
			l.say(fmt.Sprintf("%d of %d", done, len(l.planned)))
		}
	}
	close(jobs)
	workers.Wait()
	l.planned = nil
	return first
}

func (l *lab) asksFor(name string) bool {
	for r := range l.results {
		if r.workload == name {
			return true
		}
	}
	return false
}

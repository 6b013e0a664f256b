package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/internal/cmdline"
	"headway/internal/engine"
	"headway/internal/fleet"
	"headway/internal/sim"
	"headway/internal/strategy"
	"headway/internal/strict"
	"headway/internal/terminal"
	"headway/internal/workload"
)

// simulation is what the flags of 'headway simulate' say.
type simulation struct {
	trace      string
	requests   int
	strategies []string
	policies   []string
	scenarios  []string
	profile    string
	plot       string
	study      sim.Study
}

const simulateHelp = `Play a workload on a simulated fleet, once for each strategy and load, and
compare what callers would see. The heads are models of inference engines in
virtual time; the registry, the policy, the router and its strategies are those of
the service. Nothing is sent anywhere, and equal flags give equal results.

  headway simulate --trace sample: --strategies adaptive,round_robin --load 0.6,0.8,0.95

--trace names a file of requests, in Mooncake's JSON lines, Azure's CSV or what
'headway decisions export' writes, gzipped or not; sample: is a part of Mooncake's
conversation trace that the program has; or a generator, with parameters such as
agents:sessions=100,turns=20:

%s
All requests have one model type, by which rules of a --policy match: that of
--model-type, else the one that the trace names, else "simulated". They name no
region, but with the scenario region-loss. Rules that match none of them are noted.

Rates are those of the whole fleet. A load is a part of the rate that saturates
it: 1.0 is the highest rate at which round_robin, without the scenarios, has
answered 95 %% of what an unlimited fleet would have answered by the time the last
request comes. It is found by bisection and printed. It depends on the length of a
short trace.

Goodput is the share of requests with the first token within 2 s or 3 times what an
idle head takes for the prompt, and 100 ms for each further token. --carried finds
the highest rate at which each strategy keeps 95 %% goodput.

Scenarios, which may be given with another value and several at once:

%s`

func newSimulate() *cobra.Command {
	s := new(simulation)
	cmd := addOutput(command("simulate --trace NAME", "Compare strategies on a simulated fleet",
		fmt.Sprintf(simulateHelp, indented(workload.Generators()), indented(sim.Scenarios())), s.run))
	f := cmd.Flags()
	f.StringVar(&s.trace, "trace", "", "file of a trace, sample:, or a generator")
	f.IntVar(&s.requests, "requests", 0, "how many requests: a trace is cut or repeated; 0: all of it, the usual number of a generator")
	f.StringSliceVar(&s.strategies, "strategies", []string{"adaptive", "least_loaded", "round_robin"}, "strategies to compare, with their usual parameters")
	f.StringArrayVar(&s.policies, "policy", nil, "file of a policy to compare; may be given several times")
	f.Float64SliceVar(&s.study.Loads, "load", nil, "loads, as parts of the saturation rate (default 0.8)")
	f.Float64SliceVar(&s.study.Rates, "rate", nil, "requests per second, instead of loads")
	for _, name := range []string{"load", "rate"} {
		f.Lookup(name).DefValue = "" // the help says what is used, and not that the list is empty
	}
	f.IntVar(&s.study.Heads, "heads", 8, "number of heads, 1 to 1000")
	f.StringVar(&s.study.Model, "model-type", "", "model type of all requests, for the rules of policies (default: that of the trace if it names one alone, else "+sim.UsualModel+")")
	f.StringVar(&s.profile, "profile", "qwen32b-h100x2", "what the heads are: "+strings.Join(profileNames(), ", "))
	f.IntVar(&s.study.Routers, "routers", 1, "number of routers over the fleet, each with a part of the requests")
	f.DurationVar(&s.study.Window, "window", 0, "how often the routers send one another what they know; 0: they don't")
	f.Float64Var(&s.study.Loss, "loss", 0, "share of that which is lost")
	f.StringArrayVar(&s.scenarios, "scenario", nil, "what is special: "+strings.Join(sim.ScenarioNames(), ", ")+"; may be given several times")
	f.Uint64Var(&s.study.Seed, "seed", 1, "seed of all that is random")
	f.IntVar(&s.study.Rounds, "rounds", 1, "rounds with a seed each, over which results are averaged")
	f.StringVar(&s.plot, "plot", "", "write plots: into a file that ends in .svg or .png, or each into a directory")
	f.BoolVar(&s.study.Carried, "carried", false, "find the rate that each strategy carries at 95 % goodput")
	complete := func(flag string, values []string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	complete("profile", profileNames())
	complete("scenario", sim.ScenarioNames())
	complete("strategies", strategyNames())
	return cmd
}

func indented(lines []string) string { return "  " + strings.Join(lines, "\n  ") + "\n" }

func profileNames() (names []string) {
	for _, p := range engine.Profiles() {
		names = append(names, p.Name)
	}
	return names
}

func strategyNames() (names []string) {
	for _, s := range strategy.Specs() {
		names = append(names, s.Name)
	}
	return names
}

func (s *simulation) run(c *call) error {
	if err := s.read(c); err != nil {
		return err
	}
	bar := newProgress(c.ErrOrStderr())
	s.study.Progress = bar.show
	report, err := s.study.Run(c.Context())
	bar.clear()
	if errors.Is(err, sim.ErrFleet) {
		return cmdline.Errorf("--scenario: %w", err)
	}
	stopped := c.Context().Err() != nil && errors.Is(err, c.Context().Err())
	if err != nil && !stopped {
		return err
	}
	report.Interrupted = stopped
	if err := c.showOr(report, func() error { return writeReport(c, report) }); err != nil {
		return err
	}
	if s.plot != "" {
		if err := writePlots(s.plot, report); err != nil {
			return err
		}
	}
	if stopped {
		return errors.New("interrupted: what is shown is what had ended")
	}
	return nil
}

// read reads what the flags say, and refuses what cannot be.
func (s *simulation) read(c *call) (err error) {
	o := &s.study
	if err := s.check(c); err != nil {
		return err
	}
	for _, name := range s.scenarios {
		scenario, err := sim.ParseScenario(name)
		if err != nil {
			return cmdline.Errorf("--scenario: %w", err)
		}
		o.Scenarios = append(o.Scenarios, scenario)
	}
	if o.Contenders, err = s.contenders(c); err != nil {
		return err
	}
	o.Traffic, err = workload.Open(s.trace, s.requests)
	if errors.Is(err, workload.ErrName) {
		return cmdline.Errorf("--trace: %w", err)
	}
	return missing(err)
}

// Bounds of loads and rates. With less the time between two requests is out of reach.
const (
	leastRate = 0.001
	mostRate  = 1e6
)

// check refuses numbers and names outside their bounds.
func (s *simulation) check(c *call) error {
	o := &s.study
	i := slices.Index(profileNames(), s.profile)
	possible := func(values []float64) bool {
		return !slices.ContainsFunc(values, func(v float64) bool { return !(v >= leastRate && v <= mostRate) })
	}
	switch {
	case i < 0:
		return cmdline.Errorf("--profile: %s", strict.Unknown("profile", s.profile, profileNames()))
	case o.Model != "" && !fleet.ValidModelType(o.Model):
		return cmdline.Errorf("--model-type %s: want a name of a model type", strict.Quote(o.Model))
	case o.Heads < 1 || o.Heads > 1000:
		return cmdline.Errorf("--heads %d: want 1 to 1000", o.Heads)
	case o.Routers < 1 || o.Routers > 100:
		return cmdline.Errorf("--routers %d: want 1 to 100", o.Routers)
	case o.Rounds < 1:
		return cmdline.Errorf("--rounds %d: want at least 1", o.Rounds)
	case s.requests < 0 || s.requests == 1:
		return cmdline.Errorf("--requests %d: want at least 2", s.requests)
	case o.Window != 0 && o.Window < time.Millisecond:
		return cmdline.Errorf("--window %v: want at least 1ms, or 0", o.Window)
	case o.Window == 0 && c.Flags().Changed("loss"):
		return cmdline.Errorf("--loss: without --window nothing is sent that could be lost")
	case !(o.Loss >= 0 && o.Loss <= 1):
		return cmdline.Errorf("--loss %v: want 0 to 1", o.Loss)
	case len(o.Rates) > 0 && len(o.Loads) > 0:
		return cmdline.Errorf("--load and --rate: want one of them")
	case !possible(o.Loads) || !possible(o.Rates):
		return cmdline.Errorf("--load, --rate: want numbers from %v to %v", leastRate, mostRate)
	}
	if err := checkPlot(s.plot); err != nil {
		return err
	}
	if len(o.Rates)+len(o.Loads) == 0 {
		o.Loads = []float64{0.8}
	}
	o.Profile = engine.Profiles()[i]
	return nil
}

// contenders are the strategies and the policies.
func (s *simulation) contenders(c *call) (all []sim.Contender, err error) {
	names := s.strategies
	if len(s.policies) > 0 && !c.Flags().Changed("strategies") {
		names = nil
	}
	for _, name := range names {
		if !slices.Contains(strategyNames(), name) {
			return nil, cmdline.Errorf("--strategies: %s", strict.Unknown("strategy", name, strategyNames()))
		}
		contender, err := sim.Named(name)
		if err != nil {
			return nil, cmdline.Errorf("--strategies: %s: %w", name, err)
		}
		all = append(all, contender)
	}
	for _, file := range s.policies {
		read, err := readPolicy(file, c.InOrStdin(), c.ErrOrStderr())
		if err != nil {
			return nil, err
		}
		all = append(all, sim.Contender{Name: file, Policy: read})
	}
	if len(all) == 0 {
		return nil, cmdline.Errorf("--strategies: want at least one")
	}
	return all, nil
}

// writeReport writes what people read.
func writeReport(c *call, r *sim.Report) error {
	for _, note := range r.Notes {
		c.note("%s: %s\n", r.Trace, note)
	}
	if err := c.say("%s, %s %s, %s\n", r.Trace, terminal.Count(r.Heads, "head"), r.Profile, fmt.Sprintf("seed %d", r.Seed)); err != nil {
		return err
	}
	if r.SaturationRate != nil {
		_ = c.say("load 1.0 is %.4g requests/s: above it round_robin falls behind\n", *r.SaturationRate)
	}
	if len(r.Scenarios) > 0 {
		_ = c.say("scenario: %s\n", strings.Join(r.Scenarios, ", "))
	}
	t := &terminal.Table{Columns: []string{"LOAD", "RATE/S", "STRATEGY", "TTFT MEAN", "× BEST", "P50", "P90", "P99", "GOODPUT", "HITS", "IMBALANCE", "SESSION", "FAILED"}}
	for _, of := range byLoad(r.Results) {
		for i := range of {
			addResult(t, &of[i], of[0].TTFT.Mean)
		}
	}
	if err := t.Write(c.w, true); err != nil {
		return err
	}
	return writeCarried(c, r)
}

// byLoad groups results by rate, in each the least mean first.
func byLoad(results []sim.Result) (groups [][]sim.Result) {
	sorted := slices.Clone(results)
	slices.SortStableFunc(sorted, func(a, b sim.Result) int {
		return cmp.Or(cmp.Compare(a.Rate, b.Rate), cmp.Compare(a.TTFT.Mean, b.TTFT.Mean))
	})
	for i, r := range sorted {
		if i == 0 || r.Rate != sorted[i-1].Rate {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], r)
	}
	return groups
}

func addResult(t *terminal.Table, r *sim.Result, best float64) {
	load, session := "-", "-"
	if r.Load != nil {
		load = fmt.Sprintf("%.4g", *r.Load)
	}
	if r.Session.Mean > 0 {
		session = fmt.Sprintf("%.0f s", r.Session.Mean)
	}
	percent := func(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }
	t.Add(load, fmt.Sprintf("%.3f", r.Rate), r.Strategy, millis(r.TTFT.Mean), fmt.Sprintf("%.2f", r.TTFT.Mean/max(best, 1e-9)),
		millis(r.TTFT.P50), millis(r.TTFT.P90), millis(r.TTFT.P99), percent(r.Goodput), percent(r.HitRate),
		fmt.Sprintf("%.2f", r.Imbalance), session, r.Failed)
}

func millis(v float64) string { return fmt.Sprintf("%.0f ms", v) }

func writeCarried(c *call, r *sim.Report) error {
	if len(r.Carried) == 0 {
		return nil
	}
	t := &terminal.Table{Columns: []string{"STRATEGY", "CARRIES/S AT 95 % GOODPUT", "× round_robin"}}
	base := 0.
	for _, of := range r.Carried {
		if of.Strategy == "round_robin" {
			base = of.Rate
		}
	}
	for _, of := range r.Carried {
		times := "-"
		if base > 0 {
			times = fmt.Sprintf("%.2f", of.Rate/base)
		}
		t.Add(of.Strategy, fmt.Sprintf("%.3f", of.Rate), times)
	}
	_ = c.say("\n")
	return t.Write(c.w, true)
}

// progress is a bar on a terminal; elsewhere it shows nothing.
type progress struct {
	w     io.Writer // nil: none
	begun time.Time
	shown time.Time
}

// A bar appears on runs that take so long, and changes so often.
const (
	barAfter = time.Second
	barEvery = 200 * time.Millisecond
	barWidth = 40
)

func newProgress(w io.Writer) *progress {
	p := &progress{begun: time.Now()}
	if terminal.IsTerminal(w) {
		p.w = w
	}
	return p
}

func (p *progress) show(part float64) {
	now := time.Now()
	if p.w == nil || now.Sub(p.begun) < barAfter || now.Sub(p.shown) < barEvery {
		return
	}
	p.shown = now
	full := int(part * barWidth)
	left := ""
	if part > 0.02 {
		left = ", " + terminal.Short(time.Duration(float64(now.Sub(p.begun))*(1-part)/part)) + " left"
	}
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %3.0f %%%s", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), 100*part, left)
}

func (p *progress) clear() {
	if p.w != nil && !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

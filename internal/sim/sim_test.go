package sim

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"headway/internal/engine"
	"headway/internal/workload"
)

// profile is that of the heads of tests.
func profile(t testing.TB, name string) engine.Profile {
	t.Helper()
	i := slices.IndexFunc(engine.Profiles(), func(p engine.Profile) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("there is no profile %s", name)
	}
	return engine.Profiles()[i]
}

// traffic is a short workload.
func traffic(t testing.TB, name string, requests int) *workload.Traffic {
	t.Helper()
	w, err := workload.Open(name, requests)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func contenders(t testing.TB, names ...string) (all []Contender) {
	t.Helper()
	for _, name := range names {
		c, err := Named(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// study is a small one; its heads are busy at 4 requests a second.
func study(t testing.TB, strategies ...string) *Study {
	t.Helper()
	return &Study{
		Traffic: traffic(t, workload.Sample, 600), Profile: profile(t, "qwen32b-h100x2"), Heads: 8,
		Contenders: contenders(t, strategies...), Rates: []float64{4}, Seed: 1,
	}
}

func run(t testing.TB, s *Study) *Report {
	t.Helper()
	r, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// scenario adds scenarios to a study.
func (s *Study) scenario(t testing.TB, names ...string) *Study {
	t.Helper()
	for _, name := range names {
		c, err := ParseScenario(name)
		if err != nil {
			t.Fatal(err)
		}
		s.Scenarios = append(s.Scenarios, c)
	}
	return s
}

func TestEqualStudiesHaveEqualResults(t *testing.T) {
	results := func(seed uint64) string {
		s := study(t, "adaptive", "least_loaded", "random", "session_affinity").scenario(t, "death", "speeds")
		s.Traffic = traffic(t, workload.Sample, 200)
		s.Routers, s.Window, s.Loss, s.Seed = 3, 100*time.Millisecond, 0.1, seed
		text, err := json.Marshal(run(t, s).Results)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	one := results(1)
	if again := results(1); one != again {
		t.Errorf("two results of one study:\n%s\n%s", one, again)
	}
	if one == results(2) {
		t.Error("another seed changes nothing")
	}
}

// What is known of the model: the cache and the load are worth much, in this order.
func TestTheProductionStrategiesDecide(t *testing.T) {
	r := run(t, study(t, "adaptive", "least_loaded", "round_robin"))
	if len(r.Results) != 3 {
		t.Fatalf("%d results", len(r.Results))
	}
	for i, result := range r.Results {
		if result.Requests != 600 || result.Failed != 0 {
			t.Errorf("%s: %d requests, %d failed", result.Strategy, result.Requests, result.Failed)
		}
		if result.Goodput <= 0 || result.Goodput > 1 || result.Imbalance < 1 || result.TTFT.P50 > result.TTFT.P90 || result.TTFT.P90 > result.TTFT.P99 {
			t.Errorf("%s: %+v", result.Strategy, result)
		}
		if i > 0 && result.TTFT.Mean < 1.1*r.Results[i-1].TTFT.Mean {
			t.Errorf("%s has a mean of %.0f ms, %s of %.0f", result.Strategy, result.TTFT.Mean, r.Results[i-1].Strategy, r.Results[i-1].TTFT.Mean)
		}
	}
	if hits := r.Results[0].HitRate; hits < 1.3*r.Results[1].HitRate {
		t.Errorf("adaptive finds %.3f of the tokens in caches, least_loaded %.3f", hits, r.Results[1].HitRate)
	}
}

// A pick in place of the strategy is what the router places.
func TestAPickIsPlaced(t *testing.T) {
	s := study(t, "round_robin")
	s.Contenders[0].Pick = func(*Fleet, *workload.Arrival) int { return 3 }
	m := measure(t, s)
	for i, n := range m.Computed {
		if (n > 0) != (i == 3) {
			t.Errorf("head %d computed %d tokens", i, n)
		}
	}
}

// measure runs the first contender of a study.
func measure(t testing.TB, s *Study) *Measured {
	t.Helper()
	setup, err := s.setup(&s.Contenders[0], s.Scenarios, s.Rates[0], 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Run(t.Context(), setup.Options)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTheFleetForeseesFirstTokens(t *testing.T) {
	s := study(t, "round_robin")
	foreseen := map[string]time.Duration{}
	var off, n float64
	s.Contenders[0].Pick = func(f *Fleet, a *workload.Arrival) int {
		best, least := 0, time.Duration(1<<62)
		for i := range f.Heads() {
			if at, ok := f.Foresee(i, a); ok && at < least {
				best, least = i, at
			}
		}
		foreseen[a.Session+a.At.String()] = least - a.At
		return best
	}
	oracle := measure(t, s)
	for _, ttft := range foreseen {
		off += ms(ttft)
		n++
	}
	// Requests that come later do not delay an earlier one's first token by much.
	if is := mean(oracle.TTFT); off/n > is*1.02 || off/n < is*0.9 {
		t.Errorf("foreseen are %.0f ms on average, and it was %.0f", off/n, is)
	}
	if rule := run(t, study(t, "round_robin")).Results[0].TTFT.Mean; mean(oracle.TTFT) > rule/2 {
		t.Errorf("with foresight %.0f ms, in turn %.0f", mean(oracle.TTFT), rule)
	}
}

// A prompt longer than what a head holds fails, once, and harms no other.
func TestWhatNoHeadHoldsFails(t *testing.T) {
	s := study(t, "adaptive")
	s.Traffic = traffic(t, "poisson:requests=300,input=60000,output=100", 0)
	s.Rates = []float64{0.5}
	m := measure(t, s)
	if m.Requests != 300 || m.Failed == 0 || m.Failed > 100 {
		t.Errorf("%d of %d failed", m.Failed, m.Requests)
	}
	if len(m.TTFT) != m.Requests-m.Failed || len(m.Ends) != len(m.TTFT) {
		t.Errorf("%d first tokens, %d ends of %d", len(m.TTFT), len(m.Ends), m.Requests-m.Failed)
	}
}

// Routers that share the fleet and not what they know place worse than those that
// exchange it.
func TestRoutersExchangeWhatTheyKnow(t *testing.T) {
	alone, together := study(t, "adaptive"), study(t, "adaptive")
	for _, s := range []*Study{alone, together} {
		s.Routers, s.Rates = 8, []float64{5}
		s.Traffic = traffic(t, workload.Sample, 1000)
	}
	together.Window = 50 * time.Millisecond
	a, b := run(t, alone).Results[0], run(t, together).Results[0]
	if b.TTFT.Mean > 0.9*a.TTFT.Mean || b.HitRate < a.HitRate {
		t.Errorf("alone %.0f ms and %.3f hits, together %.0f ms and %.3f", a.TTFT.Mean, a.HitRate, b.TTFT.Mean, b.HitRate)
	}
	together.Loss = 1
	if c := run(t, together).Results[0]; c.TTFT.Mean < 1.1*b.TTFT.Mean {
		t.Errorf("with all lost %.0f ms, with none %.0f", c.TTFT.Mean, b.TTFT.Mean)
	}
}

// Where prompts share nothing, the counts of the others are what is worth knowing.
func TestRoutersExchangeTheirCounts(t *testing.T) {
	means := map[bool]float64{}
	for _, exchanges := range []bool{false, true} {
		s := study(t, "adaptive")
		s.Traffic = traffic(t, "poisson:requests=1000,shared=0,input=6000,output=100", 0)
		s.Routers, s.Rates, s.Contenders[0].Reports = 8, []float64{15}, 10*time.Second
		if exchanges {
			s.Window = 50 * time.Millisecond
		}
		means[exchanges] = run(t, s).Results[0].TTFT.Mean
	}
	if means[true] > 0.8*means[false] {
		t.Errorf("with counts %.0f ms, without %.0f", means[true], means[false])
	}
}

func TestARunEndsWithItsContext(t *testing.T) {
	s := study(t, "random")
	ctx, cancel := context.WithCancel(t.Context())
	setup, err := s.setup(&s.Contenders[0], nil, 4, 1, func(int) { cancel() })
	if err != nil {
		t.Fatal(err)
	}
	if m, err := Run(ctx, setup.Options); m != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", m, err)
	}
}

func TestSessionsOfAgentsFollowOnTheirAnswers(t *testing.T) {
	s := study(t, "adaptive", "round_robin")
	s.Traffic, s.Rates = traffic(t, "agents:sessions=30,turns=8", 0), []float64{3}
	r := run(t, s)
	fast, slow := r.Results[0], r.Results[1]
	if fast.Session.Mean < 10 || fast.Session.P90 < fast.Session.Mean || slow.Session.Mean <= fast.Session.Mean {
		t.Errorf("sessions took %+v and %+v", fast.Session, slow.Session)
	}
	if fast.HitRate < 0.7 {
		t.Errorf("%.2f of the tokens were cached", fast.HitRate)
	}
}

func TestAStudyThatIsInterruptedKeepsWhatEnded(t *testing.T) {
	s := study(t, "least_loaded", "round_robin", "random", "adaptive")
	s.Rounds = 1
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	s.Traffic = traffic(t, workload.Sample, 1100)
	s.Rates = []float64{4, 4.1, 4.2, 4.3}
	s.Progress = func(part float64) {
		if calls++; part > 0.5 {
			cancel()
		}
	}
	r, err := s.Run(ctx)
	if !errors.Is(err, context.Canceled) || calls == 0 {
		t.Fatalf("%v after %d calls", err, calls)
	}
	if n := len(r.Results); n < 4 || n > 12 {
		t.Errorf("%d results of 16", n)
	}
	for _, result := range r.Results {
		if result.Requests != 1100 {
			t.Errorf("a result of %d requests", result.Requests)
		}
	}
}

func TestOptionsNameWhatIsWrong(t *testing.T) {
	for _, o := range []Options{{}, {Source: nil, Heads: []Head{{}}}} {
		if _, err := Run(t.Context(), o); err == nil || err.Error() != "sim: Source, Heads and Policy are required" {
			t.Errorf("%v", err)
		}
	}
	s := study(t, "random")
	s.Loss, s.Routers, s.Window = 2, 2, time.Second
	if _, err := s.Run(t.Context()); err == nil || err.Error() != "sim: Loss must be 0 to 1" {
		t.Errorf("%v", err)
	}
	if _, err := Named("fastest"); err == nil {
		t.Error("an unknown strategy is taken")
	}
}

// The result of two rounds is the mean of each alone.
func TestRoundsHaveSeedsOfTheirOwn(t *testing.T) {
	s := study(t, "random")
	alone := 0.
	for seed := range uint64(2) {
		s.Seed = 1 + seed
		alone += run(t, s).Results[0].TTFT.Mean / 2
	}
	s.Seed, s.Rounds = 1, 2
	if both := run(t, s).Results[0]; both.Requests != 1200 || both.TTFT.Mean < alone*0.999 || both.TTFT.Mean > alone*1.001 {
		t.Errorf("two rounds of %d requests: %.1f ms, alone %.1f", both.Requests, both.TTFT.Mean, alone)
	}
}

// BenchmarkStudy plays 100,000 requests at 8 heads. What it reports is time of the
// processor.
func BenchmarkStudy(b *testing.B) {
	const requests = 100_000
	for name, rate := range map[string]float64{"gamma:requests=100000": 21, "agents:sessions=2700,turns=33": 4.8} {
		for _, strategy := range []string{"adaptive", "round_robin"} {
			b.Run(strategy+"/"+name[:strings.Index(name, ":")], func(b *testing.B) {
				s := study(b, strategy)
				s.Traffic, s.Rates = traffic(b, name, 0), []float64{rate}
				began, answered := processorTime(b), 0
				b.ResetTimer()
				for b.Loop() {
					answered += run(b, s).Results[0].Requests
				}
				b.ReportMetric((processorTime(b)-began).Seconds()/float64(answered)*requests, "s/100k")
			})
		}
	}
}

// processorTime is what the process has used so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

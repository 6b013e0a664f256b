package effectiveness_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/effectiveness"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// world is a router, what watches it, and heads that compute one prompt after the
// other.
type world struct {
	*testing.T
	fleet   *registry.Registry
	router  *routing.Router
	watch   *effectiveness.Watch
	known   *strategy.Known
	metrics *prometheus.Registry
	random  *rand.Rand
	busy    map[string]time.Time // until when a head computes
	perTok  map[string]time.Duration
	open    sync.WaitGroup
}

// play runs test with heads of the model type m, on fake time.
func play(t *testing.T, heads int, test func(*world)) {
	t.Helper()
	playWith(t, heads, effectiveness.Objective{}, test)
}

// playWith is play with an objective.
func playWith(t *testing.T, heads int, objective effectiveness.Objective, test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			T: t, metrics: prometheus.NewRegistry(), random: rand.New(rand.NewPCG(1, 2)),
			known: strategy.NewKnown(strategy.KnownOptions{}), busy: map[string]time.Time{}, perTok: map[string]time.Duration{},
		}
		events, log := event.New(w.metrics), slog.New(slog.DiscardHandler)
		lease := registry.LeaseOptions{BaseInterval: 24 * time.Hour}
		var err error
		w.fleet, err = registry.New(registry.Options{Store: memstore.New(), Events: events, Metrics: w.metrics, Log: log, Lease: lease})
		w.check(err)
		w.check(w.fleet.Load(t.Context()))
		w.watch, err = effectiveness.New(effectiveness.Options{Known: w.known, Metrics: w.metrics, Objective: objective})
		w.check(err)
		w.router, err = routing.New(routing.Options{
			Fleet: w.fleet, Policies: memstore.New(), Events: events, Metrics: w.metrics, Log: log, Seed: 1,
			Memory: w.known, Watchers: []routing.Watcher{w.watch},
		})
		w.check(err)
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { w.check(w.fleet.Run(ctx)) })
		wait.Go(func() { w.check(w.router.Run(ctx)) })
		for i := range heads {
			w.head(fmt.Sprint("h", i), "m")
		}
		test(w)
		w.open.Wait()
		cancel()
		wait.Wait()
	})
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Error(err)
	}
}

func (w *world) head(id, model string) {
	w.Helper()
	_, err := w.fleet.Register(w.Context(), fleet.Spec{ID: id, Endpoint: "http://127.0.0.1:9000", ModelTypes: []string{model}, Region: "us"},
		&fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
	w.check(err)
	w.perTok[id] = 50 * time.Microsecond
}

// send places a prompt, which its head computes after those before it. It returns
// the time to its first token in ms.
func (w *world) send(req strategy.Request) float64 {
	w.Helper()
	if req.ModelType == "" {
		req.ModelType = "m"
	}
	d, err := w.router.Decide(&req)
	if err != nil {
		w.Fatal(err)
	}
	id, work := d.Head.ID, d.Work()
	from := time.Now()
	if w.busy[id].After(from) {
		from = w.busy[id]
	}
	w.busy[id] = from.Add(10*time.Millisecond + time.Duration(work.New)*w.perTok[id])
	took := time.Until(w.busy[id])
	w.open.Go(func() {
		time.Sleep(took)
		w.router.Begun(d)
		time.Sleep(time.Second)
		w.router.End(d, routing.Outcome{Result: routing.ResultOK, TTFT: ms(took), CachedTokens: int64(work.Tokens - work.New)})
	})
	return ms(took)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// value is the sum of a metric's series of a strategy, or with "" of all.
func (w *world) value(name, by string) (sum float64) {
	w.Helper()
	families, err := w.metrics.Gather()
	w.check(err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			of := by == ""
			for _, l := range m.GetLabel() {
				of = of || l.GetName() == "strategy" && l.GetValue() == by
			}
			if f.GetName() == name && of {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// traffic sends so many prompts by a strategy, and returns their mean time to the
// first token in ms.
func (w *world) traffic(by string, n int) (mean float64) {
	w.Helper()
	for range n {
		hashes := []uint64{uint64(w.random.IntN(200)), w.random.Uint64()}
		mean += w.send(strategy.Request{Strategy: by, PrefixHashes: hashes, BlockTokens: 512, InputTokens: 1024 + int64(w.random.IntN(2000))}) / float64(n)
		time.Sleep(time.Duration(w.random.ExpFloat64() * float64(40*time.Millisecond)))
	}
	time.Sleep(5 * time.Second)
	return mean
}

func TestWhatPlacementsLeadTo(t *testing.T) {
	play(t, 4, func(w *world) {
		w.traffic("adaptive", 300) // learns how fast heads are
		time.Sleep(time.Hour)
		means := map[string]float64{}
		for _, by := range []string{"adaptive", "random"} {
			means[by] = w.traffic(by, 400)
		}
		effects := w.watch.Report(15*time.Minute, "")
		for by, mean := range means {
			e := effects[by]
			if e.Decisions != 400 || e.Predictions != 400 || math.Abs(e.Compared-400) > 1e-9 || e.Met+e.Missed != 400 || e.Promises != 400 {
				t.Errorf("%s: %+v, want 400 of each", by, e)
			}
			if math.Abs(e.TTFT-mean) > 0.01 {
				t.Errorf("%s: the mean time to the first token is %v ms, want %v", by, e.TTFT, mean)
			}
			if !e.Reliable() || e.Calibration < 0.001 || math.Abs(e.Bias) > e.Calibration {
				t.Errorf("%s: off by %.3f, in the mean by %.3f", by, e.Calibration, e.Bias)
			}
			if e.Promised == 0 || e.Promised != e.Kept || e.Promised != e.Delivered {
				t.Errorf("%s: %d tokens are promised, %d delivered, %d kept; want the same", by, e.Promised, e.Delivered, e.Kept)
			}
			if !(e.Imbalance > 0 && e.Imbalance < 1) {
				t.Errorf("%s: imbalance %v", by, e.Imbalance)
			}
		}
		for _, m := range []struct {
			name string
			want float64
		}{
			{"predictions_total", 400},
			{"regret_decisions_total", 400},
			{"prefix_promised_tokens_total", float64(effects["random"].Promised)},
			{"observed_seconds_total", 0.4 * means["random"]},
			{"regret_seconds_total", 0.4 * effects["random"].Regret},
			{"objective_total", 400},
			{"prediction_error_seconds_total", 0.4 * means["random"] * effects["random"].Calibration},
		} {
			if got := w.value("headway_strategy_"+m.name, "random"); math.Abs(got-m.want) > 0.01 {
				t.Errorf("headway_strategy_%s of random is %v, want %v", m.name, got, m.want)
			}
		}
		a, r := effects["adaptive"], effects["random"]
		if !(a.Regret < r.Regret/3) || !(a.TTFT < r.TTFT) || a.Imbalance >= r.Imbalance || a.Promised <= r.Promised {
			t.Errorf("adaptive is no better than random: %+v; %+v", a, r)
		}
	})
}

// A window has what ended within it, and the whole of the last minutes.
func TestAWindowForgets(t *testing.T) {
	play(t, 2, func(w *world) {
		w.traffic("random", 5)
		time.Sleep(20 * time.Minute)
		w.traffic("random", 7)
		w.head("other", "n")
		w.send(strategy.Request{ModelType: "n", Strategy: "random"})
		time.Sleep(10 * time.Second)
		for _, q := range []struct {
			window time.Duration
			model  string
			want   int64
		}{
			{time.Hour, "", 13},
			{15 * time.Minute, "", 8},
			{15 * time.Minute, "m", 7},
			{15 * time.Minute, "n", 1},
			{time.Hour, "x", 0},
			{0, "", 8},
			{24 * time.Hour, "", 13},
		} {
			if got := w.watch.Report(q.window, q.model)["random"].Decisions; got != q.want {
				t.Errorf("%v of model type %q has %d decisions, want %d", q.window, q.model, got, q.want)
			}
		}
		time.Sleep(40 * time.Minute)
		if got := w.watch.Report(time.Hour, "")["random"].Decisions; got != 8 {
			t.Errorf("an hour after the first ones %d decisions are left, want 8", got)
		}
		time.Sleep(time.Hour)
		if e := w.watch.Report(time.Hour, "")["random"]; e.Decisions != 0 || !math.IsNaN(e.TTFT) || !math.IsNaN(e.Regret) || e.Reliable() {
			t.Errorf("two hours after all of them: %+v", e)
		}
	})
}

// A window of so many minutes has the minute of now and those before it, each for an hour
// at most, also for what was asked beside.
func TestAWindowIsOfWholeMinutes(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 30, 0, time.UTC)
	w, err := effectiveness.New(effectiveness.Options{
		Known: strategy.NewKnown(strategy.KnownOptions{}), Metrics: prometheus.NewRegistry(), Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	d := &routing.Decision{Strategy: "random", ModelType: "m", Head: &fleet.Head{Spec: fleet.Spec{Weight: 1}}}
	began := now
	for ; now.Before(began.Add(3 * time.Hour)); now = now.Add(time.Minute) { // two a minute, at its begin and its end
		for _, at := range []time.Time{now.Truncate(time.Minute), now.Truncate(time.Minute).Add(time.Minute - 1)} {
			w.Ended(d, &routing.Outcome{At: at}, false)
			w.Sampled(&routing.Sample{Decision: d, At: at, Share: 1, Chosen: -1, Best: -1, Shadows: []routing.Shadow{{Strategy: "other"}}})
		}
	}
	now = now.Add(-time.Minute)
	for window, minutes := range map[time.Duration]int64{
		0: 1, 59 * time.Second: 1, time.Minute: 1, 119 * time.Second: 1, 2 * time.Minute: 2, 15 * time.Minute: 15, time.Hour: 60, 2 * time.Hour: 60,
	} {
		if got := w.Report(window, "")["random"].Decisions; got != 2*minutes {
			t.Errorf("a window of %v has %d decisions, want those of %d minutes, %d", window, got, minutes, 2*minutes)
		}
		if got := w.Shadows(window, "")[0].Decisions; got != 2*minutes {
			t.Errorf("a window of %v has %d decisions with a shadow, want those of %d minutes, %d", window, got, minutes, 2*minutes)
		}
	}
	now = now.Add(2 * time.Hour)
	w.Ended(d, &routing.Outcome{At: now}, false)
	if got := w.Report(time.Hour, "")["random"].Decisions; got != 1 {
		t.Errorf("after two hours without a decision an hour has %d, want 1", got)
	}
}

// What an outcome does not say is not counted, and what comes late is counted once.
func TestOnlyWhatIsSaidCounts(t *testing.T) {
	play(t, 1, func(w *world) {
		decide := func() *routing.Decision {
			d, err := w.router.Decide(&strategy.Request{ModelType: "m", InputTokens: 100, TTL: 10 * time.Second})
			w.check(err)
			return d
		}
		silent, failed, slow, cancelled, late, overLong := decide(), decide(), decide(), decide(), decide(), decide()
		none := routing.Outcome{TTFT: float64(fleet.Unknown), Duration: float64(fleet.Unknown), CachedTokens: fleet.Unknown}
		with := func(change func(*routing.Outcome)) routing.Outcome {
			o := none
			change(&o)
			return o
		}
		w.router.End(silent, with(func(o *routing.Outcome) { o.Result = routing.ResultOK }))
		w.router.End(failed, with(func(o *routing.Outcome) { o.Result, o.StatusCode, o.TTFT = routing.ResultError, 500, 3 }))
		w.router.End(slow, with(func(o *routing.Outcome) { o.Result, o.TTFT = routing.ResultOK, 2001 }))
		time.Sleep(250 * time.Millisecond)
		w.check(w.router.FirstToken(cancelled.ID()))
		w.router.End(cancelled, with(func(o *routing.Outcome) { o.Result = routing.ResultCancelled }))
		w.router.End(overLong, with(func(o *routing.Outcome) { o.Result, o.TTFT = routing.ResultOK, math.MaxFloat64 }))
		time.Sleep(time.Minute)
		for range 2 {
			w.check(w.router.Finish(late.ID(), with(func(o *routing.Outcome) { o.Result, o.TTFT, o.CachedTokens = routing.ResultOK, 749, 40 })))
		}
		e := w.watch.Report(time.Hour, "m")["adaptive"]
		if e.Decisions != 6 || e.Met != 2 || e.Missed != 3 || e.Promises != 1 || e.Delivered != 40 || e.Kept != 0 || e.Predictions != 0 {
			t.Errorf("%+v", e)
		}
		if want := (2001. + 250 + 749 + 24*3600*1000) / 4; math.Abs(e.TTFT-want) > 1 {
			t.Errorf("the mean time to the first token is %v ms, want %v", e.TTFT, want)
		}
	})
}

// The time of a whole answer is not that of its first token: it says nothing of how far
// expected times are off, and of the objective only that it was met.
func TestTheTimeOfAWholeAnswerIsNoFirstToken(t *testing.T) {
	play(t, 1, func(w *world) {
		w.traffic("adaptive", 50)
		w.open.Wait()
		answer := func(after time.Duration, o routing.Outcome) (before, then effectiveness.Effect) {
			before = w.watch.Report(time.Hour, "")["adaptive"]
			d, err := w.router.Decide(&strategy.Request{ModelType: "m", InputTokens: 1000})
			w.check(err)
			time.Sleep(after)
			w.router.Answered(d)
			o.Result, o.CachedTokens = routing.ResultOK, fleet.Unknown
			w.router.End(d, o)
			return before, w.watch.Report(time.Hour, "")["adaptive"]
		}
		for name, o := range map[string]routing.Outcome{
			"by the data plane":        {Whole: true},
			"with its time":            {Whole: true, TTFT: 1},
			"as the caller reports it": {TTFT: 1, Duration: 1, OutputTokens: 20},
		} {
			for _, after := range []time.Duration{time.Second, 3 * time.Second} {
				if o.TTFT > 0 {
					o.TTFT, o.Duration = ms(after), ms(after)
				}
				before, then := answer(after, o)
				if then.Predictions != before.Predictions || then.TTFT != before.TTFT || then.Missed != before.Missed {
					t.Errorf("%s after %v: %+v, before %+v", name, after, then, before)
				}
				if met := then.Met > before.Met; met != (after < 2*time.Second) {
					t.Errorf("%s after %v: the objective of 2 s is met: %v", name, after, met)
				}
			}
		}
		before, then := answer(time.Second, routing.Outcome{TTFT: 1000, Duration: 1000, OutputTokens: 1})
		if then.Predictions != before.Predictions+1 {
			t.Error("an answer of one token has its first with the end")
		}
	})
}

// Long prompts have more time for their first token, by what a head without other
// requests takes.
func TestTheObjectiveGrowsWithThePrompt(t *testing.T) {
	for _, c := range []struct {
		objective     effectiveness.Objective
		met, missed   float64 // ms, of a short prompt
		long, tooLong float64 // of one that takes 5 s alone
	}{
		{effectiveness.Objective{}, 1999, 2001, 2.5 * 5000, 4 * 5000},
		{effectiveness.Objective{Least: 500 * time.Millisecond, Factor: 6}, 499, 501, 5 * 5000, 7 * 5000},
		{effectiveness.Objective{Least: 500 * time.Millisecond}, 499, 501, 499, 501},
	} {
		playWith(t, 2, c.objective, func(w *world) {
			w.traffic("adaptive", 200)
			took := func(tokens int64, ms float64) (met bool) {
				before := w.watch.Report(time.Hour, "")["adaptive"]
				d, err := w.router.Decide(&strategy.Request{ModelType: "m", Strategy: "adaptive", InputTokens: tokens})
				w.check(err)
				w.router.End(d, routing.Outcome{Result: routing.ResultOK, TTFT: ms, CachedTokens: fleet.Unknown})
				return w.watch.Report(time.Hour, "")["adaptive"].Met > before.Met
			}
			if !took(1000, c.met) || took(1000, c.missed) {
				t.Errorf("%+v: a short prompt has %v ms", c.objective, c.met)
			}
			if !took(100_000, c.long) || took(100_000, c.tooLong) {
				t.Errorf("%+v: a long prompt has from %v to %v ms", c.objective, c.long, c.tooLong)
			}
		})
	}
}

// A hundred thousand model types make no more than a bounded number of places to
// count in.
func TestModelTypesAreBounded(t *testing.T) {
	play(t, 0, func(w *world) {
		for i := range 300 {
			w.head("x", fmt.Sprint("m", i))
			w.send(strategy.Request{ModelType: fmt.Sprint("m", i), Strategy: "random"})
			time.Sleep(2 * time.Second)
		}
		all, first, last, beyond := w.watch.Report(time.Hour, ""), w.watch.Report(time.Hour, "m0"), w.watch.Report(time.Hour, "m299"), w.watch.Report(time.Hour, "other")
		if all["random"].Decisions != 300 || first["random"].Decisions != 1 || last["random"].Decisions != 0 || beyond["random"].Decisions != 100 {
			t.Errorf("%d decisions, %d of the first model type, %d of the last, %d of other; want 300, 1, 0, 100",
				all["random"].Decisions, first["random"].Decisions, last["random"].Decisions, beyond["random"].Decisions)
		}
	})
}

// What is expected too early and too late does not cancel out, but for the bias.
func TestTheErrorHasNoSign(t *testing.T) {
	play(t, 2, func(w *world) {
		w.traffic("adaptive", 200)
		time.Sleep(time.Hour)
		for i := range 40 {
			d, err := w.router.Decide(&strategy.Request{ModelType: "m", Strategy: "adaptive", InputTokens: 2000})
			w.check(err)
			w.router.End(d, routing.Outcome{Result: routing.ResultOK, TTFT: d.Predicted() * (0.5 + float64(i%2)), CachedTokens: fleet.Unknown})
		}
		if e := w.watch.Report(time.Minute, "")["adaptive"]; math.Abs(e.Calibration-0.5) > 0.01 || math.Abs(e.Bias) > 0.01 {
			t.Errorf("off by %.3f, in the mean by %.3f; want 0.5 and 0", e.Calibration, e.Bias)
		}
	})
}

package routing_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/policy"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// world is a real registry and a real router over a store in memory.
type world struct {
	testing.TB
	fleet   *registry.Registry
	router  *routing.Router
	metrics *prometheus.Registry
	events  *event.Stream
}

// lasting are leases that no test outlasts, however slow the machine is.
var lasting = registry.LeaseOptions{BaseInterval: time.Hour}

func newWorld(t testing.TB, change func(*routing.Options)) *world {
	t.Helper()
	return newWorldOf(t, lasting, change)
}

// newWorldOf is newWorld for tests about leases, which run on fake time.
func newWorldOf(t testing.TB, lease registry.LeaseOptions, change func(*routing.Options)) *world {
	t.Helper()
	reg := prometheus.NewRegistry()
	events := event.New(reg)
	log := slog.New(slog.DiscardHandler)
	heads, err := registry.New(registry.Options{Store: memstore.New(), Events: events, Metrics: reg, Log: log, Lease: lease, Eject: fleet.EjectOptions{Enabled: true}})
	check(t, err)
	check(t, heads.Load(t.Context()))
	o := routing.Options{Fleet: heads, Policies: memstore.New(), Events: events, Metrics: reg, Log: log, Seed: 1}
	if change != nil {
		change(&o)
	}
	router, err := routing.New(o)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { check(t, heads.Run(ctx)) })
	wait.Go(func() { check(t, router.Run(ctx)) })
	t.Cleanup(func() { cancel(); wait.Wait() })
	return &world{t, heads, router, reg, events}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// head registers an active head; change may alter what it says of itself.
func (w *world) head(id, region string, change func(*fleet.Spec)) fleet.Lease {
	w.Helper()
	spec := fleet.Spec{ID: id, Endpoint: "http://127.0.0.1:9000", ModelTypes: []string{"m"}, Region: region}
	if change != nil {
		change(&spec)
	}
	r, err := w.fleet.Register(w.Context(), spec, &fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
	check(w, err)
	return r.Lease
}

func (w *world) report(id string, lease fleet.Lease, status fleet.Status) {
	w.Helper()
	_, err := w.fleet.Report(id, fleet.StatusReport{Epoch: lease.Epoch, Status: status, Load: fleet.UnknownLoad()})
	check(w, err)
}

func (w *world) decide(req strategy.Request) *routing.Decision {
	w.Helper()
	if req.ModelType == "" {
		req.ModelType = "m"
	}
	d, err := w.router.Decide(&req)
	check(w, err)
	return d
}

func (w *world) refused(req strategy.Request) routing.Failure {
	w.Helper()
	if req.ModelType == "" {
		req.ModelType = "m"
	}
	d, err := w.router.Decide(&req)
	no, ok := errors.AsType[*routing.NoHeadError](err)
	if !ok {
		w.Fatalf("decided on %v, error %v; want a NoHeadError", d, err)
	}
	return no.Failure
}

func (w *world) policy(yaml string) {
	w.Helper()
	next, faults := policy.Parse([]byte(yaml), "yaml")
	if len(faults) > 0 {
		w.Fatal(faults)
	}
	_, err := w.router.Apply(w.Context(), routing.Change{Make: routing.To(next), Expect: routing.AnyRevision, Source: policy.SourceAPI})
	check(w, err)
}

func inFlight(w *world) (sum int64) {
	for _, p := range w.fleet.Snapshot().Pools {
		for _, h := range p.All.Heads {
			sum += h.Live.InFlight()
		}
	}
	return sum
}

func TestDecisionReservesUntilItsOutcome(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "us", nil)
	d := w.decide(strategy.Request{})
	if d.Head.ID != "a" || inFlight(w) != 1 || w.router.Open() != 1 {
		t.Fatalf("chose %s, in flight %d, open %d; want a, 1, 1", d.Head.ID, inFlight(w), w.router.Open())
	}
	for range 3 { // repeats are harmless
		check(t, w.router.Finish(d.ID(), routing.Outcome{Result: routing.ResultOK, StatusCode: 200}))
	}
	if inFlight(w) != 0 || w.router.Open() != 0 {
		t.Errorf("in flight %d, open %d after the outcome; want 0, 0", inFlight(w), w.router.Open())
	}
	o, ended := d.Outcome()
	if !ended || o.Result != routing.ResultOK || o.StatusCode != http.StatusOK {
		t.Errorf("outcome %+v, %v", o, ended)
	}
}

func TestReservationEndsWhenItsTimeRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *routing.Options) { o.ReservationTTL = 10 * time.Second })
		w.head("a", "us", nil)
		d := w.decide(strategy.Request{})
		time.Sleep(9 * time.Second)
		if w.router.Open() != 1 {
			t.Fatal("ended before its time")
		}
		time.Sleep(2 * time.Second)
		if o, _ := d.Outcome(); o.Result != routing.ResultExpired || inFlight(w) != 0 {
			t.Fatalf("after its time: %v, in flight %d", o.Result, inFlight(w))
		}
		// The true outcome may come late. It is kept, and gives nothing back twice.
		check(t, w.router.Finish(d.ID(), routing.Outcome{Result: routing.ResultError}))
		if o, _ := d.Outcome(); o.Result != routing.ResultError || inFlight(w) != 0 {
			t.Errorf("after a late outcome: %v, in flight %d", o.Result, inFlight(w))
		}
	})
}

func TestNewerDecisionsEvictTheOldestReservation(t *testing.T) {
	w := newWorld(t, func(o *routing.Options) { o.Recent = 16 })
	w.head("a", "us", nil)
	first := w.decide(strategy.Request{})
	for range 16 {
		w.decide(strategy.Request{})
	}
	if o, _ := first.Outcome(); o.Result != routing.ResultEvicted {
		t.Errorf("the oldest reservation ended %q; want evicted", o.Result)
	}
	if w.router.Open() != 16 || inFlight(w) != 16 {
		t.Errorf("open %d, in flight %d; want 16, 16", w.router.Open(), inFlight(w))
	}
	if _, err := w.router.Decision(first.ID()); !errors.Is(err, routing.ErrDecisionNotFound) {
		t.Errorf("looking up the evicted decision: %v", err)
	}
}

func TestRecentDecisionsAreReadBackNewestFirst(t *testing.T) {
	w := newWorld(t, func(o *routing.Options) { o.Recent = 10000 })
	w.head("a", "us", nil)
	w.head("b", "us", func(s *fleet.Spec) { s.ModelTypes = []string{"n"} })
	var ids []string
	for i := range 12000 {
		d := w.decide(strategy.Request{ModelType: []string{"m", "n"}[i%2]})
		ids = append(ids, d.ID())
		check(t, w.router.Finish(d.ID(), routing.Outcome{Result: routing.ResultOK}))
	}
	recent := w.router.Recent(routing.RecentQuery{Limit: 10000})
	if len(recent) != 10000 {
		t.Fatalf("%d decisions can be read back; want 10000", len(recent))
	}
	for i, d := range recent {
		if d.ID() != ids[len(ids)-1-i] {
			t.Fatalf("decision %d from the newest is %s; want %s", i, d.ID(), ids[len(ids)-1-i])
		}
		if _, ended := d.Outcome(); !ended {
			t.Fatalf("decision %d has lost its outcome", i)
		}
	}
	page := w.router.Recent(routing.RecentQuery{Limit: 5, Head: "b", Before: recent[0].Place()})
	for _, d := range page {
		if d.Head.ID != "b" || d.Sequence() >= recent[0].Sequence() {
			t.Errorf("page has %s at %d", d.Head.ID, d.Sequence())
		}
	}
	if len(page) != 5 {
		t.Errorf("page of %d; want 5", len(page))
	}
}

func TestADecisionIDCannotBeGuessed(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "us", nil)
	id := w.decide(strategy.Request{}).ID()
	for _, wrong := range []string{
		"", "dec_", id[:len(id)-1], id + "0", strings.ToUpper(id), "dec_" + strings.Repeat("0", 32),
		id[:len(id)-1] + string('0'+('1'-id[len(id)-1]%2)), "../" + id,
	} {
		if wrong == id {
			continue
		}
		if err := w.router.Finish(wrong, routing.Outcome{Result: routing.ResultOK}); !errors.Is(err, routing.ErrDecisionNotFound) {
			t.Errorf("outcome of %q: %v; want not found", wrong, err)
		}
	}
	if w.router.Open() != 1 {
		t.Error("a guess ended the reservation")
	}
}

func TestMaxInFlightIsNeverPassed(t *testing.T) {
	w := newWorld(t, nil)
	const limit = 2
	held := map[string]*atomic.Int64{}
	for i := range 4 {
		id := fmt.Sprintf("h%d", i)
		held[id] = new(atomic.Int64)
		w.head(id, "us", func(s *fleet.Spec) { s.MaxInFlight = limit })
	}
	var over, taken atomic.Int64
	var wait sync.WaitGroup
	for range 32 { // ask for 8 places
		wait.Go(func() {
			for range 500 {
				d, err := w.router.Decide(&strategy.Request{ModelType: "m"})
				if err != nil {
					continue
				}
				taken.Add(1)
				if held[d.Head.ID].Add(1) > limit {
					over.Add(1)
				}
				runtime.Gosched()
				held[d.Head.ID].Add(-1)
				_ = w.router.Finish(d.ID(), routing.Outcome{Result: routing.ResultOK})
			}
		})
	}
	wait.Wait()
	if over.Load() > 0 || taken.Load() == 0 || inFlight(w) != 0 {
		t.Errorf("over the limit %d times, %d taken, in flight at the end %d", over.Load(), taken.Load(), inFlight(w))
	}
	for range 4 * limit {
		w.decide(strategy.Request{})
	}
	if f := w.refused(strategy.Request{}); f != routing.FailAtCapacity {
		t.Errorf("a full fleet refuses with %q", f)
	}
	for _, p := range w.fleet.Snapshot().Pools["m"].All.Heads {
		if p.Live.InFlight() != limit {
			t.Errorf("%s has %d in flight; want exactly %d", p.ID, p.Live.InFlight(), limit)
		}
	}
}

func TestFailuresHaveReasons(t *testing.T) {
	w := newWorld(t, nil)
	w.policy("default_strategy: random\naliases: {gpt: ghost}\ncaller_may: [strategy, region_mode, exclude, labels, explain]")
	a := w.head("a", "us", nil)
	for _, c := range []struct {
		req  strategy.Request
		want routing.Failure
	}{
		{strategy.Request{ModelType: "nobody"}, routing.FailUnknownModel},
		{strategy.Request{ModelType: "gpt"}, routing.FailNoHeads},
		{strategy.Request{Region: "eu", RegionMode: strategy.RegionRequire}, routing.FailRegion},
		{strategy.Request{Exclude: []string{"a"}}, routing.FailExcluded},
		{strategy.Request{Labels: map[string]string{"gpu": "h100"}}, routing.FailLabels},
	} {
		if got := w.refused(c.req); got != c.want {
			t.Errorf("%+v: %q; want %q", c.req, got, c.want)
		}
	}
	w.report("a", a, fleet.StatusDraining)
	if got := w.refused(strategy.Request{}); got != routing.FailUnroutable {
		t.Errorf("drained: %q", got)
	}
	got := map[string]float64{}
	families, err := w.metrics.Gather()
	check(t, err)
	for _, f := range families {
		if f.GetName() != "routing_decisions_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			var model, strategy string
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "model_type":
					model = l.GetValue()
				case "strategy":
					strategy = l.GetValue()
				}
			}
			if strategy == "none" {
				got[model] += m.GetCounter().GetValue()
			}
		}
	}
	if want := map[string]float64{"m": 4, "ghost": 1, "other": 1}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("failures counted as %v; want %v", got, want)
	}
}

func TestPreferSpillsToTheNearestAndSaysWhy(t *testing.T) {
	w := newWorld(t, nil)
	w.policy(`
default_strategy: least_loaded
regions:
  eu: {distances_ms: {us: 80, asia: 160}}
caller_may: [strategy, region_mode, exclude, labels, explain]`)
	eu := w.head("eu1", "eu", nil)
	w.head("us1", "us", nil)
	w.head("asia1", "asia", nil)
	if d := w.decide(strategy.Request{Region: "eu"}); d.Head.ID != "eu1" || d.Spilled {
		t.Errorf("went to %s, spilled %v", d.Head.ID, d.Spilled)
	}
	w.report("eu1", eu, fleet.StatusOffline)
	d := w.decide(strategy.Request{Region: "eu"})
	if d.Head.ID != "us1" || !d.Spilled || d.Distance != 80 {
		t.Errorf("spilled to %s, %v ms away; want us1, 80", d.Head.ID, d.Distance)
	}
	if reason := string(d.AppendReason(nil)); !strings.Contains(reason, "no head available in eu, 80 ms away") {
		t.Errorf("the reason does not say why: %s", reason)
	}
	if reason := string(w.decide(strategy.Request{Region: "nowhere"}).AppendReason(nil)); !strings.HasSuffix(reason, "; no head and no policy knows the region, so all are equally far") {
		t.Errorf("of an unknown region: %s", reason)
	}
	if f := w.refused(strategy.Request{Region: "eu", RegionMode: strategy.RegionRequire}); f != routing.FailRegion && f != routing.FailUnroutable {
		t.Errorf("require failed with %q", f)
	}
}

func TestADegradedHeadIsTakenOnlyWithoutAnActiveOne(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.head("a", "us", nil), w.head("b", "us", nil)
	w.report("a", a, fleet.StatusDegraded)
	for range 20 {
		if d := w.decide(strategy.Request{}); d.Head.ID != "b" {
			t.Fatalf("took %s; want the active b", d.Head.ID)
		}
	}
	w.report("b", b, fleet.StatusOffline)
	if d := w.decide(strategy.Request{}); d.Head.ID != "a" {
		t.Errorf("took %s; want the degraded a", d.Head.ID)
	}
}

func TestAlternativesAreOtherHeadsBestFirst(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 6 {
		w.head(fmt.Sprintf("h%d", i), "us", nil)
	}
	for _, spec := range strategy.Specs() {
		d := w.decide(strategy.Request{Strategy: spec.Name, SessionKey: "s"})
		ids := []string{d.Head.ID}
		for _, p := range d.Alternatives() {
			ids = append(ids, p.Head.ID)
		}
		slices.Sort(ids)
		if unique := slices.Compact(slices.Clone(ids)); len(ids) != 1+strategy.MaxAlternatives || len(unique) != len(ids) {
			t.Errorf("%s: head and alternatives are %v; want 4 different ones", spec.Name, ids)
		}
	}
}

func TestAChangeInvalidatesRememberedCandidatesAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	a := w.head("a", "us", nil)
	w.head("b", "us", nil)
	hits := func() float64 { return value(t, w.metrics, "cache_hits_total") }
	w.decide(strategy.Request{})
	before := hits()
	for range 10 {
		w.decide(strategy.Request{})
	}
	if got := hits() - before; got != 10 {
		t.Errorf("%v hits of 10 equal decisions", got)
	}
	w.report("a", a, fleet.StatusDraining)
	for range 50 {
		if d := w.decide(strategy.Request{}); d.Head.ID == "a" {
			t.Fatal("a draining head was taken from the cache")
		}
	}
}

func TestARememberedSetNeverPinsTraffic(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 8 {
		w.head(fmt.Sprintf("h%d", i), "us", nil)
	}
	for _, spec := range strategy.Specs() {
		share := map[string]int{}
		for range 800 {
			d := w.decide(strategy.Request{Strategy: spec.Name})
			share[d.Head.ID]++
		}
		for id, n := range share {
			if n > 200 {
				t.Errorf("%s sent %d of 800 to %s", spec.Name, n, id)
			}
		}
	}
}

func TestASessionStaysUntilItsHeadGoes(t *testing.T) {
	w := newWorld(t, nil)
	leases := map[string]fleet.Lease{}
	for i := range 5 {
		id := fmt.Sprintf("h%d", i)
		leases[id] = w.head(id, "us", nil)
	}
	req := strategy.Request{Strategy: "session_affinity", SessionKey: "alice"}
	first := w.decide(req)
	check(t, w.router.Finish(first.ID(), routing.Outcome{Result: routing.ResultOK}))
	for range 20 {
		d := w.decide(req)
		if d.Head.ID != first.Head.ID || !d.Sticky {
			t.Fatalf("the session moved from %s to %s (sticky %v)", first.Head.ID, d.Head.ID, d.Sticky)
		}
		check(t, w.router.Finish(d.ID(), routing.Outcome{Result: routing.ResultOK}))
	}
	w.report(first.Head.ID, leases[first.Head.ID], fleet.StatusOffline)
	if d := w.decide(req); d.Head.ID == first.Head.ID {
		t.Error("the session stayed with a head that is offline")
	}
}

func TestThePolicySaysWhatCallersMayChoose(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "us", nil)
	w.policy("default_strategy: round_robin\ncaller_may: []")
	for field, req := range map[string]strategy.Request{
		"/strategy":    {Strategy: "random"},
		"/region_mode": {Region: "us", RegionMode: strategy.RegionRequire},
		"/exclude":     {Exclude: []string{"b"}},
		"/labels":      {Labels: map[string]string{"a": "b"}},
		"/explain":     {Explain: true},
	} {
		req.ModelType = "m"
		_, err := w.router.Decide(&req)
		override, ok := errors.AsType[*routing.OverrideError](err)
		if !ok || override.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if d := w.decide(strategy.Request{}); d.Strategy != "round_robin" {
		t.Errorf("decided by %s", d.Strategy)
	}
}

// A head of a farther region is not taken however little it costs, and the explanation
// says that this is why. It comes behind those that were compared.
func TestExplainNamesFartherHeads(t *testing.T) {
	w := newWorld(t, nil)
	w.policy(`default_strategy: least_loaded
regions: {us: {distances_ms: {eu: 80}}}
caller_may: [strategy, explain, labels]`)
	for id, region := range map[string]string{"near": "us", "busy": "us", "far": "eu", "nowhere": "ap"} {
		w.head(id, region, nil)
	}
	for range 3 {
		w.live("near").TryAcquire(0, fleet.Work{})
		w.live("busy").TryAcquire(0, fleet.Work{})
	}
	w.live("busy").TryAcquire(0, fleet.Work{})
	filters := func(req strategy.Request) string {
		t.Helper()
		req.Explain = true
		d := w.decide(req)
		w.done(d, fleet.Unknown)
		var got []string
		for _, c := range d.Explanation().Candidates {
			got = append(got, c.HeadID+":"+c.Filter)
		}
		slices.Sort(got[2:])
		return fmt.Sprint(got)
	}
	if got := filters(strategy.Request{Region: "us"}); got != "[near: busy: far:farther nowhere:farther]" {
		t.Error(got)
	}
	if got := filters(strategy.Request{}); strings.Contains(got, "farther") {
		t.Errorf("without a region: %s", got)
	}
	if got := filters(strategy.Request{Region: "us", Strategy: "priority_region"}); strings.Contains(got, "farther") {
		t.Errorf("a strategy that compares regions: %s", got)
	}
}

func TestExplainShowsEveryCandidateAndWhatRemovedIt(t *testing.T) {
	w := newWorld(t, nil)
	w.head("ok", "us", nil)
	w.head("far", "eu", nil)
	w.head("excluded", "us", nil)
	w.report("drained", w.head("drained", "us", nil), fleet.StatusDraining)
	w.head("full", "us", func(s *fleet.Spec) { s.MaxInFlight = 1 })
	if d := w.decide(strategy.Request{Exclude: []string{"ok", "far", "excluded"}}); d.Head.ID != "full" {
		t.Fatalf("filled %s", d.Head.ID)
	}
	d := w.decide(strategy.Request{
		Region: "us", RegionMode: strategy.RegionRequire, Exclude: []string{"excluded"},
		Strategy: "least_loaded", Explain: true,
	})
	got := map[string]string{}
	for _, c := range d.Explanation().Candidates {
		got[c.HeadID] = c.Filter
		if c.Chosen != (c.HeadID == "ok") {
			t.Errorf("%s chosen: %v", c.HeadID, c.Chosen)
		}
		if len(c.Signals) == 0 {
			t.Errorf("%s has no signals", c.HeadID)
		}
	}
	want := map[string]string{"ok": "", "far": "region", "excluded": "exclude", "drained": "status", "full": "capacity"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("filters %v; want %v", got, want)
	}
	if d.Explanation().Formula == "" || d.Explanation().SnapshotRevision == 0 || d.Explanation().Rule != routing.RuleByCaller {
		t.Errorf("explanation %+v", d.Explanation())
	}
}

// Explanations are long, so the newest are kept that have room together.
func TestExplanationsAreReadBackWithinTheirBound(t *testing.T) {
	w := newWorld(t, nil)
	const heads, kept = 100, 50_000 / 100
	w.fill(heads)
	var made []*routing.Decision
	for range kept + 2 {
		made = append(made, w.decide(strategy.Request{Explain: true}))
		w.decide(strategy.Request{}) // takes no room
	}
	for i, d := range made {
		found, err := w.router.Decision(d.ID())
		check(t, err)
		if e := found.Explanation(); (e != nil) != (i >= 2) || e != nil && len(e.Candidates) != heads {
			t.Fatalf("explanation of decision %d of %d: %+v", i+1, len(made), e)
		}
	}
}

// After any mix of decisions, outcomes, cancellations, re-registrations and
// removals, ending what is open leaves nothing in flight anywhere.
func TestAccountingIsExactAfterChaos(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, func(o *routing.Options) { o.Recent = 64 })
		lives := map[*fleet.Live]bool{}
		var open []string
		rt.Repeat(map[string]func(*rapid.T){
			"register": func(rt *rapid.T) {
				w.head(fmt.Sprintf("h%d", rapid.IntRange(0, 5).Draw(rt, "head")), "us", func(s *fleet.Spec) {
					s.MaxInFlight = rapid.Int64Range(0, 3).Draw(rt, "max")
				})
			},
			"remove": func(rt *rapid.T) {
				_ = w.fleet.Deregister(t.Context(), fmt.Sprintf("h%d", rapid.IntRange(0, 5).Draw(rt, "head")))
			},
			"decide": func(rt *rapid.T) {
				spec := rapid.SampledFrom(strategy.Specs()).Draw(rt, "strategy")
				for range rapid.IntRange(1, 20).Draw(rt, "n") {
					d, err := w.router.Decide(&strategy.Request{ModelType: "m", Strategy: spec.Name, SessionKey: "s"})
					if err == nil {
						lives[d.Head.Live] = true
						open = append(open, d.ID())
					}
				}
			},
			"finish": func(rt *rapid.T) {
				if len(open) > 0 {
					i := rapid.IntRange(0, len(open)-1).Draw(rt, "which")
					_ = w.router.Finish(open[i], routing.Outcome{Result: routing.ResultOK})
				}
			},
		})
		for _, id := range open {
			if err := w.router.Finish(id, routing.Outcome{Result: routing.ResultCancelled}); err != nil && !errors.Is(err, routing.ErrDecisionNotFound) {
				rt.Fatal(err)
			}
		}
		for l := range lives {
			if n := l.InFlight(); n != 0 {
				rt.Fatalf("a head has %d in flight at the end", n)
			}
		}
		if w.router.Open() != 0 {
			rt.Fatalf("%d reservations open at the end", w.router.Open())
		}
	})
}

func value(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	check(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// labelled is the value of the metric's sample that has the label.
func labelled(t testing.TB, reg *prometheus.Registry, name, label, is string) float64 {
	t.Helper()
	families, err := reg.Gather()
	check(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == label && l.GetValue() == is {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	t.Fatalf("no metric %s with %s=%q", name, label, is)
	return 0
}

package routing_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// Decisions that found no head are listed with the others, in the order in which
// they were made, and page like them.
func TestDecisionsThatFoundNoHeadAreListed(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "us", func(s *fleet.Spec) { s.MaxInFlight = 1 })
	var want []string
	note := func(failed bool) {
		list := w.router.Recent(routing.RecentQuery{Limit: 1})
		if len(list) != 1 || (list[0].Head == nil) != failed {
			t.Fatalf("the newest is %+v; want failed %v", list, failed)
		}
		want = append(want, list[0].ID())
	}
	w.refused(strategy.Request{ModelType: "ghost", Region: "mars"})
	note(true)
	for range 3 {
		d := w.decide(strategy.Request{Region: "us"})
		note(false)
		w.refused(strategy.Request{Region: "us"})
		note(true)
		w.refused(strategy.Request{Region: "us", Labels: map[string]string{"x": "y"}})
		note(true)
		check(t, w.router.Finish(d.ID(), routing.Outcome{Result: routing.ResultOK}))
	}
	slices.Reverse(want)
	for _, size := range []int{1, 2, 3, 100} {
		var got []string
		q := routing.RecentQuery{Limit: size}
		for {
			page := w.router.Recent(q)
			if len(page) == 0 {
				break
			}
			for _, d := range page {
				got = append(got, d.ID())
				if found, err := w.router.Decision(d.ID()); err != nil || found != d {
					t.Errorf("looking up %s: %v", d.ID(), err)
				}
			}
			place := page[len(page)-1].Place()
			if again, ok := routing.ParsePlace(place.String()); !ok || again != place {
				t.Fatalf("place %v is read as %v, %v", place, again, ok)
			}
			q.Before = place
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %v; want %v", size, got, want)
		}
	}
	failed, err := w.router.Decision(want[0])
	check(t, err)
	if failed.Failure != routing.FailLabels || failed.Strategy != "none" || failed.ModelType != "m" || failed.Region != "us" ||
		string(failed.AppendReason(nil)) != "no head: labels" || failed.At.IsZero() {
		t.Errorf("kept as %+v, reason %s", failed, failed.AppendReason(nil))
	}
	for name, err := range map[string]error{
		"outcome": w.router.Finish(want[0], routing.Outcome{Result: routing.ResultOK}), "progress": w.router.FirstToken(want[0]),
	} {
		if !errors.Is(err, routing.ErrDecisionNotFound) {
			t.Errorf("%s of one that found no head: %v", name, err)
		}
	}
	if list := w.router.Recent(routing.RecentQuery{Limit: 100, ModelType: "ghost"}); len(list) != 1 || list[0].Failure != routing.FailUnknownModel {
		t.Errorf("of the unknown model type: %+v", list)
	}
	if list := w.router.Recent(routing.RecentQuery{Limit: 100, Head: "a"}); len(list) != 3 {
		t.Errorf("%d are listed of head a; want 3", len(list))
	}
	for _, wrong := range []string{"", "0", "x", "1.", "1.x", "1.0", "01", "-1", "1.2.3"} {
		if p, ok := routing.ParsePlace(wrong); ok {
			t.Errorf("%q is read as place %v", wrong, p)
		}
	}
}

// Callers cannot push the decisions that found a head out by failing.
func TestFailedDecisionsAreBounded(t *testing.T) {
	w := newWorld(t, func(o *routing.Options) { o.Recent = 16 })
	w.head("a", "us", nil)
	d := w.decide(strategy.Request{})
	for i := range 3000 {
		w.refused(strategy.Request{ModelType: fmt.Sprintf("ghost-%d", i)})
	}
	list := w.router.Recent(routing.RecentQuery{Limit: 10_000})
	if len(list) != 1024+1 || list[0].ModelType != "ghost-2999" || list[1023].ModelType != "ghost-1976" || list[1024] != d {
		t.Errorf("%d are listed, from %s on", len(list), list[0].ModelType)
	}
	if w.router.Open() != 1 {
		t.Errorf("%d reservations are open", w.router.Open())
	}
}

// What failed or spilled is explained without being asked for, and a share of
// all, as far as there is room.
func TestWhatFailedOrSpilledIsExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.policy("default_strategy: least_loaded\nregions:\n  us: {distances_ms: {eu: 80}}\ncaller_may: [region_mode]")
		w.head("near", "us", func(s *fleet.Spec) { s.MaxInFlight = 1 })
		w.head("far", "eu", func(s *fleet.Spec) { s.MaxInFlight = 1 })
		if d := w.decide(strategy.Request{Region: "us"}); d.Explanation() != nil {
			t.Error("a usual decision was explained")
		}
		d := w.decide(strategy.Request{Region: "us"})
		e := d.Explanation()
		if !d.Spilled || e == nil {
			t.Fatalf("went to %s, spilled %v, explained %v", d.Head.ID, d.Spilled, e)
		}
		filters := map[string]string{}
		for _, c := range e.Candidates {
			filters[c.HeadID] = c.Filter
			if c.Chosen != (c.HeadID == "far") || c.Signals[0].Value != map[string]float64{"near": 1, "far": 0}[c.HeadID] {
				t.Errorf("%+v", c)
			}
		}
		if filters["near"] != "capacity" || filters["far"] != "" {
			t.Errorf("removed by %v", filters)
		}
		_, err := w.router.Decide(&strategy.Request{ModelType: "m", Region: "us"})
		if no, ok := errors.AsType[*routing.NoHeadError](err); !ok || no.Explanation != nil {
			t.Errorf("%v: explained to a caller that did not ask", err)
		}
		failed := w.router.Recent(routing.RecentQuery{Limit: 1})[0]
		if e := failed.Explanation(); failed.Failure != routing.FailAtCapacity || e == nil || len(e.Candidates) != 2 || e.Candidates[0].Chosen {
			t.Errorf("%+v is explained by %+v", failed, e)
		}
		w.refused(strategy.Request{ModelType: "ghost"})
		failed = w.router.Recent(routing.RecentQuery{Limit: 1})[0]
		if e := failed.Explanation(); e == nil || e.Strategy != "none" || e.SnapshotRevision == 0 {
			t.Errorf("an unknown model type is explained by %+v", e)
		}
	})
}

func TestAShareOfDecisionsIsExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *routing.Options) { o.ExplainShare = 0.5 })
		w.fill(10)
		explained := func() (n int) {
			for range 1000 {
				if w.decide(strategy.Request{}).Explanation() != nil {
					n++
				}
			}
			return n
		}
		if n := explained(); n < 400 || n > 600 {
			t.Errorf("%d of 1,000 were explained; want half", n)
		}
		for range 12 { // 50,000 candidates at once, and not all of the half
			explained()
		}
		if n := explained(); n != 0 {
			t.Errorf("%d more were explained without room", n)
		}
		time.Sleep(time.Second)
		if n := explained(); n < 400 || n > 600 {
			t.Errorf("after a second %d were explained; there is room for 1,000", n)
		}
	})
}

// A scrape has a 0 for all that may fail, before it does.
func TestKnownNamesHaveTheirSeriesOfFailures(t *testing.T) {
	w := newWorld(t, nil)
	series := func() map[string]float64 {
		t.Helper()
		got := map[string]float64{}
		families, err := w.metrics.Gather()
		check(t, err)
		for _, f := range families {
			if f.GetName() != "routing_decisions_total" {
				continue
			}
			for _, m := range f.GetMetric() {
				labels := map[string]string{}
				for _, l := range m.GetLabel() {
					labels[l.GetName()] = l.GetValue()
				}
				if labels["strategy"] == "none" {
					got[labels["model_type"]+" "+labels["region"]] = m.GetCounter().GetValue()
				}
			}
		}
		return got
	}
	w.head("a", "us", nil)
	w.policy("default_strategy: random\naliases: {best: large}\nregions:\n  eu: {distances_ms: {us: 80}}\ncaller_may: [region_mode]")
	want := map[string]float64{
		"other other": 0, "m other": 0, "large other": 0, "other us": 0, "other eu": 0, "m us": 0, "m eu": 0, "large us": 0, "large eu": 0,
	}
	if got := series(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("series of failures %v; want %v", got, want)
	}
	w.refused(strategy.Request{Region: "eu", RegionMode: strategy.RegionRequire})
	want["m eu"] = 1
	if got := series(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after a failure %v; want %v", got, want)
	}
	w.head("b", "ap", func(s *fleet.Spec) { s.ModelTypes = []string{"new"} })
	if got := series(); len(got) != 16 {
		t.Errorf("with another model type and region %v; want 16 pairs", got)
	}
	for i := range 60 {
		w.head(fmt.Sprintf("h%d", i), fmt.Sprintf("r%d", i), func(s *fleet.Spec) {
			s.ModelTypes = nil
			for j := range 60 {
				s.ModelTypes = append(s.ModelTypes, fmt.Sprintf("m%d", j))
			}
		})
	}
	if got := series(); len(got) < 1900 || len(got) > 2001 {
		t.Errorf("%d series of 3,600 pairs; want 2,000 at most", len(got))
	}
}

// Mistakes of callers differ from failures of the fleet.
func TestReasonsOfFailuresSayWhoseTheyAre(t *testing.T) {
	w := newWorld(t, nil)
	w.policy("default_strategy: random\naliases: {gone: ghost}\nregions:\n  eu: {distances_ms: {us: 80}}\ncaller_may: [region_mode, exclude, labels]")
	w.head("a", "us", func(s *fleet.Spec) { s.MaxInFlight = 1 })
	require := func(region string) strategy.Request {
		return strategy.Request{Region: region, RegionMode: strategy.RegionRequire}
	}
	w.refused(strategy.Request{ModelType: "typo"})
	w.refused(strategy.Request{ModelType: "gone"})
	w.refused(require("eu"))
	w.refused(require("typo"))
	w.refused(require("typo"))
	w.refused(strategy.Request{Exclude: []string{"a"}})
	w.refused(strategy.Request{Labels: map[string]string{"x": "y"}})
	w.decide(strategy.Request{})
	w.refused(strategy.Request{})
	for reason, want := range map[string]float64{
		"unknown_model_type": 1, "no_heads": 1, "region": 1, "unknown_region": 2, "excluded": 1, "labels": 1, "at_capacity": 1, "unroutable": 0,
	} {
		if got := labelled(t, w.metrics, "headway_decision_failures_total", "reason", reason); got != want {
			t.Errorf("%v failures are %s; want %v", got, reason, want)
		}
	}
}

// A blank session key is none, and who sends none is counted.
func TestABlankSessionKeyIsNone(t *testing.T) {
	w := newWorld(t, nil)
	w.fill(8)
	spread := func(key string) int {
		heads := map[string]bool{}
		for range 100 {
			d := w.decide(strategy.Request{Strategy: "session_affinity", SessionKey: key})
			heads[d.Head.ID] = true
			w.router.End(d, routing.Outcome{Result: routing.ResultOK})
		}
		return len(heads)
	}
	const name = "headway_decisions_without_session_total"
	for i, blank := range []string{"", " ", "\t \n"} {
		if n := spread(blank); n < 6 {
			t.Errorf("key %q went to %d heads; want all 8", blank, n)
		}
		if got := value(t, w.metrics, name); got != float64(100*(i+1)) {
			t.Errorf("%v decisions without a session after key %q", got, blank)
		}
	}
	if n := spread("alice"); n != 1 {
		t.Errorf("a session went to %d heads", n)
	}
	w.decide(strategy.Request{Strategy: "least_loaded"})
	if got := value(t, w.metrics, name); got != 300 {
		t.Errorf("%v decisions without a session; those with one, and other strategies, do not count", got)
	}
}

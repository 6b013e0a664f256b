package routing_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// shares makes decisions that end at once, and returns the part of each head.
func (w *world) shares(req strategy.Request) map[string]float64 {
	w.Helper()
	const n = 2000
	got := map[string]float64{}
	for range n {
		d := w.decide(req)
		got[d.Head.ID] += 1. / n
		w.router.End(d, routing.Outcome{Result: routing.ResultOK})
	}
	return got
}

// Two heads that differ by less than a request share the traffic, the one with
// less a bit more: the least of reports that all read takes not all.
func TestLessThanARequestIsRoundedAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		a, b := w.head("a", "us", nil), w.head("b", "us", nil)
		w.shares(strategy.Request{}) // outcomes come
		w.counts("a", a, 1, 0)
		w.counts("b", b, 0, 0)
		// Ours are 2 of 3 requests: two thirds of the one at a count.
		for _, name := range []string{"least_loaded", "power_of_two", "geo_preferred"} {
			if got := w.shares(strategy.Request{Strategy: name})["a"]; got < 0.1 || got > 0.25 {
				t.Errorf("%s: the head with one request more gets %.3f; want 1/6", name, got)
			}
		}
	})
}

// What a head reported once is worth less and less, until the head counts as those
// that report.
func TestReportsFadeIntoWhatIsUsual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		a, b := w.head("a", "us", nil), w.head("b", "us", nil)
		w.shares(strategy.Request{})
		w.counts("a", a, 40, 0)
		w.counts("b", b, 0, 0)
		explained := func() map[string]float64 {
			d := w.decide(strategy.Request{Strategy: "least_loaded", Explain: true})
			costs := map[string]float64{}
			for _, c := range d.Explanation().Candidates {
				costs[c.HeadID] = c.Cost * fleet.AssumedCapacity
			}
			w.router.End(d, routing.Outcome{Result: routing.ResultOK})
			return costs
		}
		// Of 42 requests 2 are ours: 2/42 · 40 and one more.
		if got := explained(); got["b"] != 1 || got["a"] < 2.8 || got["a"] > 3 {
			t.Errorf("by fresh reports the costs are %v", got)
		}
		last := 3.
		for range 3 {
			time.Sleep(time.Second)
			got := explained()
			if got["a"] >= last || got["a"]+got["b"] < 3.7 || got["a"]+got["b"] > 4.1 {
				t.Errorf("a second later the costs are %v; want a nearer to b, and both as much as before", got)
			}
			last = got["a"]
		}
		if last > 2.4 {
			t.Errorf("after 3 s of a lifetime of 2 s the busy head costs %v still", last)
		}
	})
}

// So it is where tokens are weighed.
func TestReportsFadeWhereTokensAreWeighed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		a, b := w.head("a", "us", nil), w.head("b", "us", nil)
		w.shares(strategy.Request{})
		w.counts("a", a, 40, 8)
		w.counts("b", b, 0, 0)
		last := math.Inf(1)
		for range 4 {
			costs := map[string]float64{}
			d := w.decide(strategy.Request{Explain: true})
			for _, c := range d.Explanation().Candidates {
				costs[c.HeadID] = c.Cost
			}
			w.router.End(d, routing.Outcome{Result: routing.ResultOK})
			if ratio := costs["a"] / costs["b"]; ratio < 1 || ratio-1 > 0.8*(last-1) {
				t.Errorf("a costs %.2f times as much as b, and %.2f a second before", ratio, last)
			} else {
				last = ratio
			}
			time.Sleep(time.Second)
		}
	})
}

// An explanation marks what the cost came of.
func TestAnExplanationMarksTheSignalsThatCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		lease := w.head("a", "us", func(s *fleet.Spec) { s.MaxInFlight = 10 })
		w.head("b", "us", nil)
		report := func(load fleet.Load) {
			_, err := w.fleet.Report("a", fleet.StatusReport{Epoch: lease.Epoch, Status: fleet.StatusActive, Load: load})
			check(t, err)
		}
		used := func(name string) (used, unused map[string]bool, filter string) {
			used, unused = map[string]bool{}, map[string]bool{}
			d := w.decide(strategy.Request{Strategy: name, Explain: true})
			for _, c := range d.Explanation().Candidates {
				for _, s := range c.Signals {
					if c.HeadID == "a" {
						filter = c.Filter
						map[bool]map[string]bool{true: used, false: unused}[s.Used][s.Name] = true
					}
				}
			}
			w.router.End(d, routing.Outcome{Result: routing.ResultOK})
			return used, unused, filter
		}
		want := func(strategy, filter string, names ...string) {
			t.Helper()
			got, rest, removed := used(strategy)
			for _, name := range names {
				if !got[name] {
					t.Errorf("%s does not use %s", strategy, name)
				}
			}
			if len(got) != len(names) || removed != filter || len(rest) == 0 {
				t.Errorf("%s uses %v and not %v, removed by %q; want %v", strategy, got, rest, removed, names)
			}
		}
		load := fleet.Load{InFlight: 4, Queued: 0, PendingPromptTokens: 100, KVCapacityTokens: fleet.Unknown, KVCacheUsage: 0.5, Utilization: 0.5, TokensPerSecond: 9}
		report(load)
		want("least_loaded", "", "picked_since_report", "reported_in_flight", "reported_queued", "pending_prompt_tokens")
		w.router.End(w.decide(strategy.Request{Exclude: []string{"b"}}), routing.Outcome{Result: routing.ResultOK})
		want("least_loaded", "", "in_flight", "reported_in_flight", "reported_queued", "pending_prompt_tokens")
		want("round_robin", "")
		load.KVCacheUsage = 0.99
		report(load)
		want("round_robin", "full", "kv_cache_usage")
		load.KVCacheUsage, load.Queued = 0.5, 30
		report(load)
		want("round_robin", "full", "reported_in_flight", "reported_queued")
		load.Queued, load.InFlight = 0, 10
		report(load)
		want("round_robin", "full", "in_flight", "reported_in_flight", "reported_queued")
		load = fleet.UnknownLoad()
		load.Utilization, load.TokensPerSecond = 1, 9
		report(load)
		want("round_robin", "full", "in_flight", "utilization")
		load.Utilization, load.TokensPerSecond = 0.3, 9
		report(load)
		want("least_loaded", "", "in_flight", "utilization")
	})
}

package routing_test

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/routing"
	"headway/internal/strategy"
)

// shadowPolicy asks three strategies beside the default, for each decision that
// chance lets it.
func shadowPolicy(w *world, decides string, shadows string) {
	w.Helper()
	w.policy(fmt.Sprintf("default_strategy: %s\nshadow: [%s]\nshadow_share: 0.05\ncaller_may: [strategy, region_mode, exclude, labels]", decides, shadows))
}

// placed are the heads of so many requests, some of which end, and what remains known
// after them.
func placed(t *testing.T, decides, shadows string) (heads, known string, shadowed int) {
	t.Helper()
	seen := new(watcher)
	w := newWorld(t, func(o *routing.Options) { o.Watchers = []routing.Watcher{seen} })
	if shadows == "" {
		w.policy("default_strategy: " + decides + "\ncaller_may: [strategy, region_mode, exclude, labels]")
	} else {
		shadowPolicy(w, decides, shadows)
	}
	for i := range 9 {
		w.head(fmt.Sprint("h", i), []string{"us", "eu", "ap"}[i%3], nil)
	}
	var open []*routing.Decision
	for i := range 1500 {
		d := w.decide(strategy.Request{
			Region: []string{"us", "eu", ""}[i%3], SessionKey: fmt.Sprint("s", i%40),
			PrefixHashes: []uint64{uint64(i % 30), uint64(i)}, BlockTokens: 200, InputTokens: 400,
		})
		heads += d.Head.ID + fmt.Sprintf("%.6g ", d.Cost)
		if open = append(open, d); i%7 > 2 {
			w.done(open[0], 100)
			open = open[1:]
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, name := range []string{"headway_reservations_open", "headway_decisions_without_session_total", "cache_hits_total", "cache_misses_total"} {
		known += fmt.Sprintf("%s %v, ", name, value(t, w.metrics, name))
	}
	for _, s := range seen.samples {
		for _, of := range s.Shadows {
			if shadowed++; of.Head == nil || of.Strategy == decides {
				t.Fatalf("%s chose nothing beside %s", of.Strategy, decides)
			}
		}
	}
	return heads, known + fmt.Sprint(inFlight(w)), shadowed
}

// What decisions choose, and what is counted and remembered of them, is the same
// whether or not others are asked beside.
func TestShadowsChangeNoDecision(t *testing.T) {
	for decides, shadows := range map[string]string{
		"round_robin":          "weighted_round_robin, random, session_affinity",
		"weighted_round_robin": "round_robin, least_loaded, geo_preferred",
		"session_affinity":     "random, adaptive, round_robin",
		"adaptive":             "session_affinity, power_of_two, round_robin",
		"least_loaded":         "adaptive, session_affinity, power_of_two",
		"random":               "round_robin, priority_region, adaptive",
		"priority_region":      "geo_preferred, round_robin, prefix_aware",
	} {
		var heads, known, same, knownToo string
		var none, asked int
		synctest.Test(t, func(t *testing.T) { heads, known, none = placed(t, decides, "") })
		synctest.Test(t, func(t *testing.T) { same, knownToo, asked = placed(t, decides, shadows) })
		if heads != same || known != knownToo {
			t.Errorf("%s chooses others, or knows others, while %s are asked: %s; %s", decides, shadows, known, knownToo)
		}
		if none != 0 || asked < 3*30 || asked > 3*150 {
			t.Errorf("%d choices of %s for 1,500 decisions by %s, want about 3 for each twentieth", asked, shadows, decides)
		}
	}
}

// Others are asked for the policy's share of the decisions also where few of those are
// sampled.
func TestShadowsAreOfAShareOfTheDecisions(t *testing.T) { synctest.Test(t, ofAShareOfTheDecisions) }

func ofAShareOfTheDecisions(t *testing.T) {
	seen := new(watcher)
	w := newWorld(t, func(o *routing.Options) { o.Watchers = []routing.Watcher{seen} })
	shadowPolicy(w, "random", "round_robin")
	for i := range 40 {
		w.head(fmt.Sprint("h", i), "us", nil)
	}
	const decisions = 10_000
	for range decisions {
		w.done(w.decide(strategy.Request{}), 0)
		time.Sleep(200 * time.Microsecond)
	}
	asked := 0
	for _, s := range seen.samples {
		asked += len(s.Shadows)
	}
	if samples := len(seen.samples); samples > decisions/4 || asked < decisions/25 || asked > decisions/15 {
		t.Errorf("of %d decisions %d are sampled and %d compared, want a twentieth", decisions, samples, asked)
	}
}

// A strategy that decides for the request is not asked beside it; two that rotate have
// turns of their own.
func TestShadowsHaveTurnsOfTheirOwn(t *testing.T) { synctest.Test(t, turnsOfTheirOwn) }

func turnsOfTheirOwn(t *testing.T) {
	seen := new(watcher)
	w := newWorld(t, func(o *routing.Options) { o.Watchers = []routing.Watcher{seen} })
	w.policy("default_strategy: random\nrules: [{match: {region: us}, strategy: round_robin}]\nshadow: [round_robin, random]\ncaller_may: []")
	for i := range 4 {
		w.head(fmt.Sprint("h", i), "us", nil)
	}
	for range 3000 {
		w.done(w.decide(strategy.Request{Region: "eu"}), 0)
		time.Sleep(10 * time.Millisecond)
	}
	turns := map[string]int{}
	for _, s := range seen.samples {
		for _, of := range s.Shadows {
			if of.Strategy != "round_robin" {
				t.Fatalf("%s is asked beside random", of.Strategy)
			}
			turns[of.Head.ID]++
		}
	}
	for id, n := range turns {
		if len(turns) != 4 || n < turns["h0"]-1 || n > turns["h0"]+1 {
			t.Fatalf("%s had %d turns of %v", id, n, turns)
		}
	}
}

// The regret of what another would have chosen is by the same expected times.
func TestShadowsAreComparedByTheSameTimes(t *testing.T) { synctest.Test(t, comparedByTheSameTimes) }

func comparedByTheSameTimes(t *testing.T) {
	seen := new(watcher)
	w := newWorld(t, func(o *routing.Options) { o.Watchers = []routing.Watcher{seen} })
	shadowPolicy(w, "adaptive", "round_robin, random")
	for i := range 3 {
		w.head(fmt.Sprint("h", i), "us", nil)
	}
	var open []*routing.Decision
	for i := range 2000 {
		open = append(open, w.decide(prompt(uint64(i%10), uint64(i))))
		if time.Sleep(time.Duration(10+i%7) * time.Millisecond); len(open) > 5 {
			w.done(open[0], 0)
			open = open[1:]
		}
	}
	compared := 0
	for _, s := range seen.samples {
		for _, of := range s.Shadows {
			if of.Head == s.Decision.Head && !(of.Regret == s.Regret() || math.IsNaN(s.Regret())) {
				t.Fatalf("the same head has a regret of %v and of %v", of.Regret, s.Regret())
			}
			if of.Regret > 0 {
				compared++
			}
		}
	}
	if compared < 20 {
		t.Errorf("%d choices had any regret", compared)
	}
}

// BenchmarkShadow is what one strategy costs that is asked beside, for a decision
// for which it is; and a decision by adaptive among as many heads, for which none is.
func BenchmarkShadow(b *testing.B) {
	ask := strategy.Request{ModelType: "m", SessionKey: "s", PrefixHashes: []uint64{1, 2, 3, 4}, BlockTokens: 500, InputTokens: 2000}
	for _, heads := range []int{8, 100} {
		w := newWorld(b, nil)
		w.fill(heads)
		b.Run(fmt.Sprintf("decision/heads=%d", heads), func(b *testing.B) {
			for b.Loop() {
				w.must(b, &ask)
			}
		})
		for _, name := range []string{"round_robin", "power_of_two", "least_loaded", "random", "session_affinity", "adaptive"} {
			shadowPolicy(w, "weighted_round_robin", name)
			b.Run(fmt.Sprintf("%s/heads=%d", name, heads), func(b *testing.B) {
				shadow := routing.AskShadows(w.router, &ask)
				for b.Loop() {
					shadow()
				}
			})
		}
	}
}

package routing_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// Each field of a request that the policy may reserve to itself is reserved alone.
func TestEachOverrideIsAllowedByItsOwnName(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "us", func(s *fleet.Spec) { s.Labels = map[string]string{"a": "b"} })
	fields := map[string]strategy.Request{
		"strategy":    {Strategy: "random"},
		"region_mode": {Region: "us", RegionMode: strategy.RegionRequire},
		"exclude":     {Exclude: []string{"b"}},
		"labels":      {Labels: map[string]string{"a": "b"}},
		"explain":     {Explain: true},
	}
	for allowed := range fields {
		w.policy("default_strategy: round_robin\ncaller_may: [" + allowed + "]")
		for field, req := range fields {
			req.ModelType = "m"
			_, err := w.router.Decide(&req)
			override, refused := errors.AsType[*routing.OverrideError](err)
			if refused == (field == allowed) || refused && override.Field != "/"+field {
				t.Errorf("with %s allowed, %s: %v", allowed, field, err)
			}
		}
	}
}

// Looking for alternatives in the next region says nothing of the session.
func TestAlternativesDoNotTouchTheSession(t *testing.T) {
	w := newWorld(t, nil)
	w.policy("default_strategy: session_affinity\nregions:\n  us: {distances_ms: {eu: 80}}\ncaller_may: [strategy, exclude]")
	w.head("near", "us", nil)
	w.head("far", "eu", nil)
	req := strategy.Request{Region: "us", SessionKey: "alice"}
	lookups := func() (hits, misses float64) {
		families, err := w.metrics.Gather()
		check(t, err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() != "headway_cache_lookups_total" || m.GetLabel()[0].GetValue() != "sessions" {
					continue
				}
				if m.GetLabel()[1].GetValue() == "hit" {
					hits = m.GetCounter().GetValue()
				} else {
					misses = m.GetCounter().GetValue()
				}
			}
		}
		return hits, misses
	}
	for i := range 3 {
		d := w.decide(req)
		if len(d.Alternatives()) != 1 || d.Head.ID != "near" || d.Sticky != (i > 0) {
			t.Errorf("decision %d: %s, %d alternatives, sticky %v", i, d.Head.ID, len(d.Alternatives()), d.Sticky)
		}
		w.router.End(d, routing.Outcome{Result: routing.ResultOK})
	}
	if hits, misses := lookups(); hits != 2 || misses != 1 {
		t.Errorf("%v sessions were found and %v not; want 2 and 1", hits, misses)
	}

	// Served far away, the session is not found among the near heads, though the
	// look for alternatives finds it.
	req.SessionKey, req.Exclude = "bob", []string{"near"}
	if d := w.decide(req); d.Head.ID != "far" || d.Sticky {
		t.Fatalf("%s, sticky %v; want far", d.Head.ID, d.Sticky)
	}
	req.Exclude = nil
	hits, misses := lookups()
	if d := w.decide(req); d.Head.ID != "near" || d.Sticky || len(d.Alternatives()) != 1 {
		t.Errorf("%s, sticky %v; want near", d.Head.ID, d.Sticky)
	}
	if h, m := lookups(); h != hits || m != misses+1 {
		t.Errorf("%v sessions were found and %v not; want 0 and 1", h-hits, m-misses)
	}
}

// A head whose report says that it has more than its share of requests from
// elsewhere takes no session, though none of ours is there.
func TestASessionGoesElsewhereForTheLoadOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, registry.LeaseOptions{}, nil)
		leases := map[string]fleet.Lease{}
		for _, id := range []string{"a", "b"} {
			leases[id] = w.head(id, "us", func(s *fleet.Spec) { s.MaxInFlight = 100 })
			w.router.End(w.decide(strategy.Request{Exclude: []string{map[string]string{"a": "b", "b": "a"}[id]}}),
				routing.Outcome{Result: routing.ResultOK}) // outcomes are reported
		}
		req := strategy.Request{Strategy: "session_affinity", SessionKey: "s"}
		serve := func() string {
			d := w.decide(req)
			w.router.End(d, routing.Outcome{Result: routing.ResultOK})
			return d.Head.ID
		}
		home := serve()
		for _, others := range []int64{3, 90} {
			for id, lease := range leases {
				w.counts(id, lease, map[bool]int64{true: others}[id == home], 0)
			}
			if got := serve(); (got == home) != (others == 3) {
				t.Errorf("with %d requests of others at %s the session goes to %s", others, home, got)
			}
		}
	})
}

// A new policy holds from the next decision on, whether candidates were kept or not.
func TestTheNextPolicyHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no tick of Run comes between
		w := newWorld(t, nil)
		for _, region := range []string{"us", "eu", "ap"} {
			w.head(region, region, func(s *fleet.Spec) { s.MaxInFlight = 1 })
		}
		for _, near := range []string{"eu", "ap", "eu"} {
			w.policy(fmt.Sprintf("default_strategy: round_robin\nregions:\n  us: {distances_ms: {eu: %d, ap: %d}}",
				map[bool]int{true: 10, false: 90}[near == "eu"], map[bool]int{true: 10, false: 90}[near == "ap"]))
			home := w.decide(strategy.Request{Region: "us"})
			away := w.decide(strategy.Request{Region: "us"})
			if away.Head.ID != near {
				t.Errorf("with %s near it went to %s", near, away.Head.ID)
			}
			w.router.End(home, routing.Outcome{Result: routing.ResultOK})
			w.router.End(away, routing.Outcome{Result: routing.ResultOK})
		}
	})
}

// However often a pool changes, what is counted of remembered candidates is what
// they hold.
func TestRememberedCandidatesAreCountedAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		lease := w.head("flapping", "us", nil)
		for i := range 10 {
			w.head("h"+strconv.Itoa(i), "us", func(s *fleet.Spec) { s.Labels = map[string]string{"n": strconv.Itoa(i % 5)} })
		}
		for i := range 1000 {
			w.report("flapping", lease, []fleet.Status{fleet.StatusDegraded, fleet.StatusActive}[i%2])
			w.decide(strategy.Request{Labels: map[string]string{"n": strconv.Itoa(i % 5)}})
		}
		held, _ := routing.CopiedPlaces(w.router)
		if sum := routing.SumOfCopiedPlaces(w.router); held != sum || sum == 0 {
			t.Errorf("%d places are counted, the sets have %d", held, sum)
		}
	})
}

// Of two reports the older says how much a comparison is worth.
func TestTheOlderReportDecidesTheTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		old, young := w.head("old", "us", nil), w.head("young", "us", nil)
		w.counts("old", old, 50, 0)
		w.counts("young", young, 0, 0)
		share := func() float64 { // of the head that reported more
			n := 0
			const draws = 4000
			for range draws {
				d := w.decide(strategy.Request{Strategy: "power_of_two"})
				if d.Head.ID == "old" {
					n++
				}
				d.Head.Live.Evict(fleet.Work{}) // neither an outcome nor a place
				w.counts("young", young, 0, 0)
			}
			return float64(n) / draws
		}
		if got := share(); got > 0.01 {
			t.Errorf("by fresh reports the busy head gets %.3f of the requests", got)
		}
		time.Sleep(3 * time.Second)
		w.counts("young", young, 0, 0)
		// exp(-3/2) of the draws go by the reports, the rest to either alike.
		if got := share(); got < 0.33 || got > 0.45 {
			t.Errorf("with a report of 3 s it gets %.3f; want 0.39", got)
		}
	})
}

// A replay keeps the strategy that a caller chose, while callers may.
func TestAReplayKeepsTheCallersStrategy(t *testing.T) {
	w := newWorld(t, nil)
	w.policy("default_strategy: round_robin\ncaller_may: [strategy]")
	for i := range 4 {
		w.head(fmt.Sprintf("h%d", i), "us", nil)
	}
	for range 40 {
		w.decide(strategy.Request{Strategy: "random"})
	}
	for _, c := range []struct {
		may   string
		moved bool
	}{{"[strategy]", false}, {"[]", true}} {
		if got := w.router.Replay(parse(t, "default_strategy: least_loaded\ncaller_may: "+c.may)); got.Decisions != 40 || (got.Moved > 0) != c.moved {
			t.Errorf("callers may %s: %d of %d moved", c.may, got.Moved, got.Decisions)
		}
	}
}

func parse(t *testing.T, yaml string) *policy.Policy {
	t.Helper()
	p, faults := policy.Parse([]byte(yaml), "yaml")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

// A reader that is k decisions behind what is kept has lost k.
func TestSinceCountsWhatIsLost(t *testing.T) {
	w := newWorld(t, func(o *routing.Options) { o.Recent = 16 })
	w.head("a", "us", nil)
	for range 40 {
		w.decide(strategy.Request{})
	}
	for _, c := range []struct{ from, lost, first uint64 }{
		{0, 24, 25}, {22, 2, 25}, {23, 1, 25}, {24, 0, 25}, {25, 0, 26}, {39, 0, 40},
	} {
		list, seen, lost := w.router.Since(c.from, 100, nil)
		if lost != c.lost || seen != 40 || len(list) != int(40-c.first+1) || list[0].Sequence() != c.first {
			t.Errorf("since %d: %d lost, %d listed, up to %d; want %d lost", c.from, lost, len(list), seen, c.lost)
		}
	}
	if list, seen, lost := w.router.Since(30, 4, nil); len(list) != 4 || seen != 34 || lost != 0 {
		t.Errorf("at most 4 since 30: %d listed, up to %d, %d lost", len(list), seen, lost)
	}
}

// calls is a Memory that writes down its calls.
type calls []string

func (*calls) Recall(*strategy.Input, strategy.Recall) {}

func (m *calls) Placed(_ *strategy.Input, h *fleet.Head, w fleet.Work) {
	*m = append(*m, fmt.Sprintf("placed at %s with %d tokens", h.ID, w.Tokens))
}

func (m *calls) FirstToken(h *fleet.Head, _ string, w fleet.Work, after time.Duration, _ time.Time) {
	*m = append(*m, fmt.Sprintf("first token of %d tokens at %s after %v", w.Tokens, h.ID, after))
}

func (m *calls) Ended(h *fleet.Head, _ string, w fleet.Work, e strategy.End) {
	*m = append(*m, fmt.Sprint("ended ", e.How == fleet.EndedWell, " at ", h.ID, " with ", e.Cached, " of ", w.Tokens, " cached, ", e.First, " ", e.Took))
}

// A memory hears once of each placement, first token and outcome, also of an
// outcome that comes late, and never of an expiry.
func TestAMemoryHearsOnceOfWhatHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.head("a", "us", nil)
		var memory calls
		routing.SetMemory(w.router, &memory)
		one, late := w.decide(strategy.Request{InputTokens: 9}), w.decide(strategy.Request{TTL: time.Second, InputTokens: 8})
		time.Sleep(500 * time.Millisecond)
		check(t, w.router.FirstToken(one.ID()))
		check(t, w.router.FirstToken(one.ID()))
		time.Sleep(2 * time.Second)
		for range 2 {
			w.router.End(one, routing.Outcome{Result: routing.ResultOK, CachedTokens: 7})
			w.router.End(late, routing.Outcome{Result: routing.ResultError})
		}
		timed := w.decide(strategy.Request{InputTokens: 7})
		time.Sleep(time.Second)
		w.router.End(timed, routing.Outcome{Result: routing.ResultOK, TTFT: 50, Duration: 70})
		want := calls{
			"placed at a with 9 tokens", "placed at a with 8 tokens", "first token of 9 tokens at a after 500ms",
			"ended true at a with 7 of 9 cached, 0s 2.5s", "ended false at a with 0 of 8 cached, 0s 0s",
			"placed at a with 7 tokens", "ended true at a with 0 of 7 cached, 50ms 70ms",
		}
		if !slices.Equal(memory, want) {
			t.Errorf("the memory is calls\n%q\nwant\n%q", memory, want)
		}
	})
}

// A head that registered again as another is not the one that served the session.
func TestASessionDoesNotRememberAnotherHeadOfTheSameID(t *testing.T) {
	w := newWorld(t, nil)
	lease := w.head("a", "us", nil)
	w.head("b", "us", nil)
	req := strategy.Request{Strategy: "session_affinity", SessionKey: "s", Exclude: []string{"b"}}
	w.decide(req)
	if d := w.decide(req); !d.Sticky {
		t.Fatal("the session is not remembered")
	}
	w.report("a", lease, fleet.StatusOffline)
	w.head("a", "us", nil)
	if d := w.decide(req); d.Sticky {
		t.Error("a head that registered again is remembered by a session of the one before")
	}
}

// The chosen head is in its explanation however many there are.
func TestTheChosenHeadIsExplainedAmongManyOthers(t *testing.T) {
	w := newWorld(t, nil)
	w.fill(300)
	last := 0
	for range 200 {
		d := w.decide(strategy.Request{Strategy: "round_robin", Explain: true})
		e, chosen := d.Explanation(), 0
		for _, c := range e.Candidates {
			if c.Chosen && c.HeadID == d.Head.ID {
				chosen++
			}
		}
		if chosen != 1 || len(e.Candidates) != routing.MaxExplained || e.Omitted != 300-routing.MaxExplained {
			t.Fatalf("%s is chosen %d times among %d candidates, %d omitted", d.Head.ID, chosen, len(e.Candidates), e.Omitted)
		}
		if e.Candidates[routing.MaxExplained-1].Chosen {
			last++
		}
	}
	if last == 0 {
		t.Error("no decision was for a head beyond those that are listed")
	}
}

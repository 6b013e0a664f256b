package routing_test

import (
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// prompt is a request by adaptive whose prompt has the blocks, of 500 tokens each.
func prompt(blocks ...uint64) strategy.Request {
	return strategy.Request{Strategy: "adaptive", PrefixHashes: blocks, BlockTokens: 500, InputTokens: int64(500 * len(blocks))}
}

// done ends a request at once, with its first token.
func (w *world) done(d *routing.Decision, cached int64) string {
	w.router.Begun(d)
	w.router.End(d, routing.Outcome{Result: routing.ResultOK, CachedTokens: cached})
	return d.Head.ID
}

func caller(w *world) {
	w.policy("default_strategy: adaptive\ncaller_may: [strategy, region_mode, exclude, labels]")
}

// A prompt goes where its beginning is cached, as long as that head is not much more
// loaded; and what is not shared in caches is not taken for cached.
func TestAdaptiveGoesWhereThePromptIsCached(t *testing.T) {
	w := newWorld(t, nil)
	caller(w)
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		w.head(id, "us", nil)
	}
	first := w.done(w.decide(prompt(1, 2, 3, 4)), 0)
	for range 50 {
		d := w.decide(prompt(1, 2, 3, 4, 5, 6))
		if d.Head.ID != first {
			t.Fatalf("a prompt whose beginning %s has went to %s", first, d.Head.ID)
		}
		if work := d.Work(); work.Tokens != 3000 || work.New > 1000 {
			t.Fatalf("%+v, want 3,000 tokens of which at most 1,000 are new", work)
		}
		w.done(d, 2000)
	}
	for name, req := range map[string]strategy.Request{
		"another scope":      {Strategy: "adaptive", PrefixHashes: []uint64{1, 2, 3, 4}, BlockTokens: 500, InputTokens: 2000, Scope: 7},
		"another beginning":  prompt(9, 2, 3, 4),
		"no word of prompts": {Strategy: "adaptive", InputTokens: 2000},
	} {
		if work := w.decide(req).Work(); work.New != work.Tokens {
			t.Errorf("%s: %+v, and some of it is taken for cached", name, work)
		}
	}
	for range 30 { // of long prompts that wait there
		w.live(first).TryAcquire(0, fleet.Work{Tokens: 8000, Pending: 8000})
	}
	if d := w.decide(prompt(1, 2, 3, 4, 5, 6)); d.Head.ID == first {
		t.Error("a prompt goes where it is cached although 240,000 tokens are ahead there")
	}
}

// What a head had cached is gone when it registers again, and another head never has it.
func TestAnotherEpochHasNothingCached(t *testing.T) {
	w := newWorld(t, nil)
	caller(w)
	w.head("a", "us", nil)
	w.done(w.decide(prompt(1, 2, 3)), 0)
	if work := w.decide(prompt(1, 2, 3)).Work(); work.New > 500 {
		t.Fatalf("%+v, want all but the last block cached", work)
	}
	w.head("a", "us", nil)
	if work := w.decide(prompt(1, 2, 3)).Work(); work.New != work.Tokens {
		t.Errorf("%+v after the head registered anew", work)
	}
	w.head("b", "us", func(s *fleet.Spec) { s.ModelTypes = []string{"n"} })
	req := prompt(1, 2, 3)
	req.ModelType, req.Strategy = "n", ""
	if work := w.decide(req).Work(); work.New != work.Tokens {
		t.Errorf("%+v of another model type", work)
	}
}

// Engines compute the block with the last token of a prompt again, whole or not, since
// the answer begins with it: a prompt that is known whole is work too.
func TestTheEndOfAPromptIsNeverCached(t *testing.T) {
	w := newWorld(t, nil)
	caller(w)
	w.head("a", "us", nil)
	for i, c := range []struct {
		name          string
		per           int32 // tokens of each of four blocks, 0: by the text
		tokens, bytes int64
		want          int32
	}{
		{"whole blocks", 500, 2000, 0, 500},
		{"the last block in part", 500, 1600, 0, 100},
		{"tokens behind the blocks", 500, 2300, 0, 300},
		{"more blocks than tokens", 500, 700, 0, 200},
		{"a text of whole blocks", 0, 256, 1024, 64},
		{"a text and more", 0, 320, 1280, 64},
		{"hashes of a text that ends behind them", 0, 300, 0, 44},
		{"hashes of a text with fewer bytes for a token", 0, 400, 0, 79},
		{"hashes of a text with more bytes for a token", 0, 200, 0, 50},
	} {
		req := strategy.Request{Strategy: "adaptive", BlockTokens: c.per, InputTokens: c.tokens, PromptBytes: c.bytes}
		for block := range uint64(4) {
			req.PrefixHashes = append(req.PrefixHashes, uint64(i+1)<<8|block)
		}
		w.done(w.decide(req), 0)
		if work := w.decide(req).Work(); work.New != c.want {
			t.Errorf("%s: %+v, want %d new tokens", c.name, work, c.want)
		}
	}
}

// One request that names a length that no head can hold does not become what is usual.
func TestAnImpossibleLengthIsNotWhatIsUsual(t *testing.T) {
	w := newWorld(t, nil)
	caller(w)
	w.head("a", "us", nil)
	usual := func() int32 { return w.decide(strategy.Request{Strategy: "adaptive"}).Work().Tokens }
	for range 10 {
		w.decide(strategy.Request{Strategy: "adaptive", InputTokens: 2000})
	}
	if n := usual(); n != 2000 {
		t.Fatalf("%d tokens are usual, want 2,000", n)
	}
	w.decide(strategy.Request{Strategy: "adaptive", InputTokens: 1e9})
	if n := usual(); n > 11_000 {
		t.Errorf("%d tokens are usual after one prompt of a billion", n)
	}
}

// A head that reports nothing of its KV cache is taken to use as much of it as the
// others, and gets its share.
func TestAHeadWithoutAReportOfItsCacheGetsItsShare(t *testing.T) {
	for _, name := range []string{"adaptive", "slo"} {
		w := newWorld(t, nil)
		caller(w)
		load := fleet.UnknownLoad()
		load.KVCacheUsage = 0.9
		for _, id := range []string{"a", "b", "c"} {
			if lease := w.head(id, "us", nil); id != "c" {
				_, err := w.fleet.Report(id, fleet.StatusReport{Epoch: lease.Epoch, Status: fleet.StatusActive, Load: load})
				check(t, err)
			}
		}
		got := map[string]int{}
		for range 150 {
			got[w.decide(strategy.Request{Strategy: name, InputTokens: 1500}).Head.ID]++
		}
		if got["c"] > 52 {
			t.Errorf("%s: %v; want a third at c", name, got)
		}
	}
}

// Heads that never have what is promised are chosen by load alone.
func TestWhatIsNotDeliveredIsNotTrusted(t *testing.T) {
	w := newWorld(t, nil)
	caller(w)
	for _, id := range []string{"a", "b", "c", "d"} {
		w.head(id, "us", nil)
	}
	for range 100 {
		w.done(w.decide(prompt(1, 2, 3, 4)), 0)
	}
	promised := false
	for range 20 {
		req := prompt(1, 2, 3, 4)
		req.Explain, req.Reads = true, true
		d := w.decide(req)
		promised = promised || d.Work().New < d.Work().Tokens
		for _, c := range d.Explanation().Candidates {
			for _, term := range c.Terms {
				if term.Name == "uncached" && term.Value < 2000 {
					t.Fatalf("%s counts with %v of 2,000 tokens to compute: it never has any of them cached", c.HeadID, term.Value)
				}
			}
		}
		w.done(d, 0)
	}
	if !promised {
		t.Error("nothing is promised any more, so that it would not be noticed when heads have it again")
	}
}

// The terms of an explanation are those that the cost is made of.
func TestAnExplanationHasTheTermsOfTheCost(t *testing.T) {
	w := newWorld(t, nil)
	caller(w)
	w.head("a", "us", nil)
	w.head("b", "us", func(s *fleet.Spec) { s.Weight = 2 })
	w.done(w.decide(prompt(1, 2)), 0)
	req := prompt(1, 2, 3)
	req.Explain, req.Reads = true, true
	e := w.decide(req).Explanation()
	for _, c := range e.Candidates {
		v := map[string]float64{}
		for _, t := range c.Terms {
			v[t.Name] = t.Value
		}
		cost := v["slower"] * (v["ahead"] + (1+v["kappa"])*v["uncached"]) / v["weight"] * (v["requests"]/v["weight"] + 16) * (1 + v["kv"]*v["kv"])
		if len(v) != 7 || math.Abs(cost-c.Cost) > 1e-6*c.Cost {
			t.Errorf("%s costs %v, and its terms %v make %v", c.HeadID, c.Cost, v, cost)
		}
	}
}

// watcher keeps what it sees.
type watcher struct {
	mu      sync.Mutex
	samples []routing.Sample
	ended   int
	refused []string // strategy and model type
}

func (w *watcher) Sampled(s *routing.Sample) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keep := *s
	keep.Heads, keep.Blocks, keep.Shadows = slices.Clone(s.Heads), slices.Clone(s.Blocks), slices.Clone(s.Shadows)
	w.samples = append(w.samples, keep)
}

func (w *watcher) Ended(*routing.Decision, *routing.Outcome, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended++
}

func (w *watcher) Refused(by, modelType string, _ time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused = append(w.refused, by+" "+modelType)
}

// Each decision of a quiet service is sampled, with the heads as they were before it.
func TestDecisionsAreSampled(t *testing.T) {
	seen, now := new(watcher), time.Now()
	w := newWorld(t, func(o *routing.Options) {
		o.Watchers = []routing.Watcher{seen}
		o.Now = func() time.Time { // first tokens that come together are one sample
			now = now.Add(10 * time.Millisecond)
			return now
		}
	})
	caller(w)
	for _, id := range []string{"a", "b", "c"} {
		w.head(id, "us", nil)
	}
	w.head("far", "eu", nil)
	for i := range 60 {
		req := prompt(uint64(i), uint64(i)+1000)
		req.Region = "us"
		w.done(w.decide(req), 0)
	}
	req := strategy.Request{Strategy: "random", Region: "us"}
	w.done(w.decide(req), 0)
	if len(seen.samples) != 61 || seen.ended != 61 {
		t.Fatalf("%d samples of 61 decisions, %d ends", len(seen.samples), seen.ended)
	}
	for i, s := range seen.samples {
		if len(s.Heads) != 3 || s.Chosen < 0 || s.Heads[s.Chosen].Head != s.Decision.Head || s.Share != 1 {
			t.Fatalf("sample %d has %d heads, chosen %d, share %v", i, len(s.Heads), s.Chosen, s.Share)
		}
		for _, h := range s.Heads {
			if h.Requests != 0 || h.Ahead != 0 {
				t.Fatalf("sample %d: %+v, want the heads as they were before the decision", i, h)
			}
		}
		if regret := s.Regret(); !math.IsNaN(regret) && regret < 0 {
			t.Errorf("sample %d has a regret of %v ms", i, regret)
		}
		if i < 60 && (len(s.Blocks) != 2 || s.Blocks[0] == uint64(i)) {
			t.Errorf("sample %d has the blocks %v, want keys", i, s.Blocks)
		}
	}
	if last := seen.samples[60]; !math.IsNaN(last.Heads[0].Cost) || math.IsNaN(last.Regret()) {
		t.Errorf("random: cost %v, regret %v; want none and some", last.Heads[0].Cost, last.Regret())
	}
}

// A busy service samples as many as it may, each with the same chance.
func TestABusyServiceSamplesAShare(t *testing.T) {
	seen := new(watcher)
	w := newWorld(t, func(o *routing.Options) { o.Watchers = []routing.Watcher{seen} })
	w.fill(100)
	began := time.Now()
	for range 20_000 {
		w.done(w.decide(strategy.Request{}), fleet.Unknown)
	}
	expected := 0.
	for _, s := range seen.samples {
		expected += 1 / s.Share
	}
	took := time.Since(began).Seconds() // the bound is one of heads a second
	if n := len(seen.samples); float64(n) > 500+300*took || n < 50 {
		t.Errorf("%d of 20,000 decisions among 100 heads are sampled in %.2f s", n, took)
	}
	if expected < 10_000 || expected > 40_000 {
		t.Errorf("by their shares the samples stand for %.0f decisions, want about 20,000", expected)
	}
}

// An answer that came whole says nothing of how long its prompt took: heads stay equal
// and nothing is predicted from it.
func TestWholeAnswersTeachNoSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		caller(w)
		w.head("a", "us", nil)
		w.head("b", "us", nil)
		serve := func(answered func(*routing.Decision) time.Time) {
			for range 50 {
				d := w.decide(strategy.Request{InputTokens: 2000})
				time.Sleep(map[string]time.Duration{"a": time.Second, "b": 5 * time.Second}[d.Head.ID])
				answered(d)
				if n := w.live(d.Head.ID).OwnPending(); n != 0 {
					t.Fatalf("%d tokens are pending after the answer", n)
				}
				w.router.End(d, routing.Outcome{Result: routing.ResultOK})
			}
		}
		serve(w.router.Answered)
		if p := w.decide(strategy.Request{InputTokens: 2000}).Predicted(); !math.IsNaN(p) {
			t.Errorf("whole answers predict a first token in %v ms", p)
		}
		serve(w.router.Begun)
		if p := w.decide(strategy.Request{InputTokens: 2000}).Predicted(); math.IsNaN(p) {
			t.Error("first tokens predict none")
		}
	})
}

// The work of a trial is given back as it was taken, also where its alternatives are
// chosen by what is known of sessions.
func TestATrialGivesItsWorkBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b")
		caller(w)
		req := prompt(1, 2, 3, 4)
		req.Exclude = []string{"b"}
		w.done(w.decide(req), 0)
		w.eject("a", "b")
		time.Sleep(11 * time.Second)
		d := w.decide(prompt(1, 2, 3, 4))
		if !d.Trial || d.Head.ID != "a" {
			t.Fatalf("decided for %s, want the trial of a", d.Head.ID)
		}
		if work := d.Work(); work.New > 500 || w.live("a").OwnPending() != int64(work.Pending) {
			t.Errorf("the trial brings %+v, and the head has %d pending tokens", work, w.live("a").OwnPending())
		}
		if w.done(d, 1500); w.live("a").OwnPending() != 0 {
			t.Errorf("%d pending tokens at a head without requests", w.live("a").OwnPending())
		}
	})
}

// Where all heads of the near region are full and one of the far region is not, that
// gets the requests; where all are full the near ones do.
func TestFullRegionsOverflow(t *testing.T) {
	for _, spec := range strategy.Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			w := newWorld(t, nil)
			caller(w)
			w.policy("regions: {us: {distances_ms: {eu: 20}}}\ncaller_may: [strategy, region_mode]\ndefault_strategy: adaptive")
			leases := map[string]fleet.Lease{"a": w.head("a", "us", nil), "b": w.head("b", "us", nil), "c": w.head("c", "eu", nil)}
			says := func(id string, kv float64) {
				load := fleet.UnknownLoad()
				load.InFlight, load.KVCacheUsage = 3, kv
				_, err := w.fleet.Report(id, fleet.StatusReport{Epoch: leases[id].Epoch, Status: fleet.StatusActive, Load: load})
				check(t, err)
			}
			req := prompt(1, 2, 3, 4)
			req.Strategy, req.Region, req.RegionMode = spec.Name, "us", strategy.RegionPrefer
			places := func() (list []string) {
				for range 20 {
					d := w.decide(req)
					list = append(list, d.Head.Region)
					w.done(d, 0)
				}
				return list
			}
			says("a", 0.99)
			says("b", 0.3)
			says("c", 0.1)
			if got := places(); slices.Contains(got, "eu") {
				t.Errorf("with room in the region: %v", got)
			}
			says("b", 0.99)
			if got := places(); slices.Contains(got, "us") {
				t.Errorf("with a full region: %v", got)
			}
			req.RegionMode = strategy.RegionRequire
			if got := places(); slices.Contains(got, "eu") {
				t.Errorf("out of the region that is required: %v", got)
			}
			req.RegionMode = strategy.RegionPrefer
			says("c", 0.99)
			if got := places(); slices.Contains(got, "eu") {
				t.Errorf("with all full: %v", got)
			}
		})
	}
}

// A request that says nothing of its prompt goes where its conversation was, the surer
// the later its turn; one of another conversation, caller or model finds nothing there.
func TestAConversationGoesWhereItWas(t *testing.T) {
	w := newWorld(t, nil)
	caller(w)
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
		w.head(id, "us", nil)
	}
	req := func(id string, turn int64) strategy.Request {
		return strategy.Request{Strategy: "adaptive", InputTokens: 4000, SessionID: id, Turn: turn}
	}
	first := w.done(w.decide(req("c1", 1)), 0)
	for turn, cached := range map[int64]int32{0: 2000, 1: 2000, 2: 2000, 4: 3000, 40: 3900} {
		d := w.decide(req("c1", turn))
		if work := d.Work(); d.Head.ID != first || work.Tokens-work.New != cached {
			t.Errorf("turn %d goes to %s with %+v, want %s with %d tokens cached", turn, d.Head.ID, work, first, cached)
		}
		w.done(d, int64(cached))
	}
	scoped := req("c1", 9)
	scoped.Scope = 3
	for name, other := range map[string]strategy.Request{"another conversation": req("c2", 9), "another caller": scoped, "no conversation": req(" ", 9)} {
		d := w.decide(other)
		if work := d.Work(); work.New != work.Tokens {
			t.Errorf("%s: %+v", name, work)
		}
		w.done(d, 0)
	}
	// What is known of the prompt itself counts, and nothing else.
	hashed := prompt(1, 2, 3, 4)
	hashed.SessionID, hashed.Turn = "c1", 9
	if work := w.decide(hashed).Work(); work.New != work.Tokens {
		t.Errorf("a prompt that no head has: %+v", work)
	}
}

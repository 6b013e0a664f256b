package routing_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// paced is a world whose heads take 0.1 ms for a token of a prompt, as is known of them
// already.
func paced(t *testing.T, document string, heads ...string) *world {
	t.Helper()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := newWorld(t, func(o *routing.Options) { o.Now = func() time.Time { return now } })
	w.policy(document)
	for _, id := range heads {
		w.head(id, "us", nil)
	}
	for i := range 60 {
		d := w.decide(strategy.Request{Strategy: "adaptive", InputTokens: int64(1000 + 100*(i%7))})
		now = now.Add(time.Duration(d.Work().Tokens) * 100 * time.Microsecond)
		w.done(d, fleet.Unknown)
	}
	return w
}

func refusal(t *testing.T, w *world, req strategy.Request) *routing.NoHeadError {
	t.Helper()
	req.ModelType = "m"
	d, err := w.router.Decide(&req)
	if err == nil {
		w.done(d, fleet.Unknown)
		return nil
	}
	no, ok := errors.AsType[*routing.NoHeadError](err)
	if !ok {
		t.Fatal(err)
	}
	return no
}

const objective = `default_strategy: slo
strategies: {slo: {parameters: {ttft_ms: 1000, slowdown: 3}}}
caller_may: [strategy, exclude, explain]`

// A request is refused if each head has so much to do that it would begin to answer after
// the objective, with what that would be and when to come again.
func TestWhatNoHeadCanBeginInTimeIsRefused(t *testing.T) {
	w := paced(t, objective, "a", "b")
	if no := refusal(t, w, strategy.Request{InputTokens: 1000}); no != nil {
		t.Fatalf("idle heads refuse: %v", no)
	}
	busy := fleet.Work{Tokens: 40_000, Pending: 40_000} // 4 s
	w.live("a").TryAcquire(0, busy)
	if no := refusal(t, w, strategy.Request{InputTokens: 1000}); no != nil {
		t.Fatalf("one of two heads is idle: %v", no)
	}
	w.live("b").TryAcquire(0, busy)
	no := refusal(t, w, strategy.Request{InputTokens: 1000, Explain: true})
	switch {
	case no == nil:
		t.Fatal("a request is placed that would wait for 4 s, with an objective of 1 s")
	case no.Failure != routing.FailObjective || no.Busy || no.Objective != time.Second || math.Abs(no.Soonest.Seconds()-4.1) > 0.4:
		t.Errorf("%v: soonest %v, objective %v, busy %v", no.Failure, no.Soonest, no.Objective, no.Busy)
	case no.RetryAfter != no.Soonest-no.Objective:
		t.Errorf("to come again after %v", no.RetryAfter)
	case !strings.Contains(no.Sentence("m"), "within the objective of 1 s: the soonest would after 4"):
		t.Error(no.Sentence("m"))
	case no.Counts["objective"] != 2 || no.Explanation == nil || no.Explanation.Candidates[0].Filter != "objective":
		t.Errorf("removed %v, explained %+v", no.Counts, no.Explanation)
	}
	if d := no.Decision; d == nil || d.Failure != routing.FailObjective || w.live("a").InFlight() != 1 {
		t.Error("the refusal is not kept, or has a place")
	}
	// A long prompt has longer: three times what an idle head takes for it.
	if no := refusal(t, w, strategy.Request{InputTokens: 15_000}); no == nil || no.Objective < 4*time.Second {
		t.Errorf("5.5 s are expected for a prompt that takes 1.5 s alone: %v", no)
	}
	if no := refusal(t, w, strategy.Request{InputTokens: 40_000}); no != nil {
		t.Errorf("8 s are expected for a prompt that takes 4 s alone: %v", no)
	}
	// Another strategy places it, and so does a fallback.
	if no := refusal(t, w, strategy.Request{InputTokens: 1000, Strategy: "adaptive"}); no != nil {
		t.Errorf("adaptive: %v", no)
	}
	if n := w.router.StrategyStats()["slo"].Refused; n != 2 {
		t.Errorf("%d requests count as refused, want the 2 that were", n)
	}
}

// What is expected of each head stands in an explanation, with the length of the prompt
// that it is expected for.
func TestAnExplanationHasWhatIsExpected(t *testing.T) {
	w := paced(t, objective, "a", "b")
	w.live("a").TryAcquire(0, fleet.Work{Tokens: 40_000, Pending: 40_000})
	for tokens, assumed := range map[int64]bool{1500: false, 0: true} {
		d := w.decide(strategy.Request{InputTokens: tokens, Strategy: "adaptive", Explain: true})
		w.done(d, fleet.Unknown)
		e := d.Explanation()
		if want := float64(tokens); e.Assumed != assumed || !assumed && e.Tokens != want || math.Abs(e.Tokens-1300) > 300 {
			t.Errorf("of %d tokens: explained with %g, assumed: %v", tokens, e.Tokens, e.Assumed)
		}
		for _, c := range e.Candidates {
			if want := e.Tokens/10 + map[string]float64{"a": 4000}[c.HeadID]; !(math.Abs(c.Predicted-want) < want/5) {
				t.Errorf("of %d tokens: %s is expected to answer after %g ms, want about %g", tokens, c.HeadID, c.Predicted, want)
			}
		}
	}
}

// The way to the head is part of when it begins to answer.
func TestTheWayCountsForTheObjective(t *testing.T) {
	w := paced(t, objective+"\nregions: {eu: {distances_ms: {us: 500}}, ap: {distances_ms: {us: 2000}}}", "a")
	if no := refusal(t, w, strategy.Request{InputTokens: 1000, Region: "eu"}); no != nil {
		t.Errorf("0.6 s are expected from eu, with an objective of 1 s: %v", no)
	}
	if no := refusal(t, w, strategy.Request{InputTokens: 1000, Region: "ap"}); no == nil || math.Abs(no.Soonest.Seconds()-2.1) > 0.1 {
		t.Errorf("2.1 s are expected from ap, with an objective of 1 s: %+v", no)
	}
}

// The attempt after one that failed is not refused: the request has waited already. Nor is
// one while a head that takes it is unknown.
func TestAFurtherAttemptIsNotRefused(t *testing.T) {
	w := paced(t, objective, "a", "b")
	d := w.decide(strategy.Request{InputTokens: 1000})
	for _, id := range []string{"a", "b"} {
		w.live(id).TryAcquire(0, fleet.Work{Tokens: 40_000, Pending: 40_000})
	}
	next, err := w.router.Again(d, &strategy.Request{ModelType: "m", InputTokens: 1000}, routing.Outcome{Result: routing.ResultError, StatusCode: 502})
	if err != nil {
		t.Fatalf("the second attempt: %v", err)
	}
	w.done(next, fleet.Unknown)
}

// A request that is refused goes to what the policy falls back to.
func TestARefusedRequestFallsBack(t *testing.T) {
	w := paced(t, objective+"\nfallbacks: [{match: {model_type: m}, to: [{model_type: small}]}]", "a")
	w.head("s", "us", func(s *fleet.Spec) { s.ModelTypes = []string{"small"} })
	w.live("a").TryAcquire(0, fleet.Work{Tokens: 40_000, Pending: 40_000})
	d := w.decide(strategy.Request{InputTokens: 1000})
	if d.Head.ID != "s" || d.Fallback() == nil || d.Fallback().Why != routing.FailObjective {
		t.Errorf("to %s, fallback %+v", d.Head.ID, d.Fallback())
	}
	if n := w.router.StrategyStats()["slo"].Refused; n != 0 {
		t.Errorf("%d requests count as refused, and each has a head", n)
	}
}

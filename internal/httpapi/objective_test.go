package httpapi_test

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// slo is a policy with an objective of a second.
const slo = "default_strategy: slo\nstrategies: {slo: {parameters: {ttft_ms: 1000}}}\ncaller_may: [strategy, explain]"

// paced has the router know that heads of a model take 0.1 ms for a token of a prompt, and
// then puts 6 s of work before its first head.
func (w *world) paced(model string) {
	w.Helper()
	for i := range 60 {
		d, err := w.router.Decide(&strategy.Request{ModelType: model, Strategy: "adaptive", InputTokens: int64(1000 + 100*(i%7))})
		if err != nil {
			w.Fatal(err)
		}
		w.skew.Add(int64(d.Work().Tokens) * int64(100*time.Microsecond))
		w.router.Begun(d)
		w.router.End(d, routing.Outcome{Result: routing.ResultOK, CachedTokens: fleet.Unknown})
	}
	head, busy := w.fleet.Snapshot().Pools[model].All.Heads[0], fleet.Work{Tokens: 60_000, Pending: 60_000}
	head.Live.TryAcquire(0, busy)
	w.Cleanup(func() { head.Live.Release(busy) })
}

// A request that no head is likely to begin to answer within the objective is refused by
// the decision API and the data plane with 429 and when to come again.
func TestWhatMissesItsObjectiveIsRefused(t *testing.T) {
	p, _ := queues(t)
	p.narrow("a", newGate(t).URL, 0)
	p.policy(slo)
	p.paced("m")
	a := p.do(http.MethodPost, "/api/v1/decisions", `{"model_type":"m","input_tokens":1000,"explain":true}`)
	problem := p.problem(http.StatusTooManyRequests, api.CodeObjective, a)
	if problem.Reason != "objective_unreachable" || !strings.Contains(problem.Detail, "within the objective of 1 s") || problem.Removed["objective"] != 1 ||
		problem.Explanation == nil || problem.Explanation.Candidates[0].Filter != "objective" || a.header.Get("Retry-After") == "" {
		t.Errorf("Retry-After %q, %+v", a.header.Get("Retry-After"), problem)
	}
	proxied := p.answer("/v1/chat/completions", chatBody)
	again := proxied.Header.Get("Retry-After")
	if wait, err := strconv.Atoi(again); proxied.StatusCode != http.StatusTooManyRequests || !bytes.Contains(proxied.body, []byte(`"objective_unreachable"`)) || err != nil || wait < 4 || wait > 9 {
		t.Errorf("%d, Retry-After %q: %s", proxied.StatusCode, again, proxied.body)
	}
	// The data plane did not ask for an explanation, and the decision has it all the same.
	kept := into[api.RecentDecision](t, p.do(http.MethodGet, "/api/v1/decisions/"+proxied.Header.Get("X-Headway-Decision-Id"), ""))
	if e := kept.Explanation; e == nil || len(e.Candidates) != 1 || e.Candidates[0].Filter != "objective" || e.Candidates[0].PredictedMs == nil || *e.Candidates[0].PredictedMs < 5000 || e.InputTokens == 0 {
		t.Errorf("the refused request is explained by %+v", e)
	}
	if text := p.scrape(); !strings.Contains(text, `headway_decision_failures_total{reason="objective_unreachable"} 2`) {
		t.Error("the refusals are not counted, or not once")
	}
	const refused = `headway_strategy_refused_total{model_type="m",strategy="slo"} 2`
	list := into[api.StrategyList](t, p.do(http.MethodGet, "/api/v1/strategies?model_type=m", ""))
	for _, s := range list.Data {
		if want := map[bool]uint64{true: 2}[s.Name == "slo"]; s.Results.Refused != want || s.Effectiveness.Refused != int64(want) || want > 0 && s.Results.Decisions != 0 {
			t.Errorf("%s refused %d, within the window %d, of %d decisions", s.Name, s.Results.Refused, s.Effectiveness.Refused, s.Results.Decisions)
		}
	}
	// It is no error of routing, which the guide's alert counts by strategy="none".
	const none = `routing_decisions_total{model_type="m",region="other",strategy="none"} 0`
	if text := p.scrape(); !strings.Contains(text, refused+"\n") || !strings.Contains(text, none+"\n") {
		t.Errorf("want %s and %s", refused, none)
	}
}

package httpapi_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/admission"
	"headway/internal/proxy"
)

// record is the decision of an answer as the API shows it.
func (p *plane) record(of http.Header) api.RecentDecision {
	p.Helper()
	id := of.Get("X-Headway-Decision-Id")
	return into[api.RecentDecision](p, p.must(http.StatusOK, http.MethodGet, "/api/v1/decisions/"+id, ""))
}

// records lists the decisions that a query selects.
func (p *plane) records(query string) []api.RecentDecision {
	p.Helper()
	return into[struct {
		Data       []api.RecentDecision `json:"data"`
		NextCursor string               `json:"next_cursor"`
	}](p, p.must(http.StatusOK, http.MethodGet, "/api/v1/decisions?"+query, "")).Data
}

// A slow answer is looked up by the id that its client has: the decision says what was
// asked for, what failed before and for how long, and what the client waited in all.
func TestADecisionSaysWhatItsClientSaw(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		p.apply(`{"default_strategy":"random","aliases":{"short":"m"}}`)
		var asked atomic.Int64
		for _, id := range []string{"1", "2"} {
			p.script(id, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 1 {
					wait(r, 3*time.Second)
					panic(http.ErrAbortHandler)
				}
				wait(r, 2*time.Second)
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, gateAnswer)
			})
		}
		a := p.answer(chatPath, strings.Replace(chatBody, `"m"`, `"short"`, 1), "X-Request-Id", "support-17")
		if a.StatusCode != http.StatusOK || a.Header.Get("X-Headway-Attempts") != "2" {
			t.Fatalf("%d %s %v", a.StatusCode, a.body, a.Header)
		}
		p.settled()
		d := p.record(a.Header)
		if d.RequestID != "support-17" || d.ModelType != "m" || d.Requested != "short" {
			t.Errorf("asked as %q for %q, %q", d.RequestID, d.Requested, d.ModelType)
		}
		if !strings.Contains(d.Reason, "error (end_of_stream) after 3 s") {
			t.Errorf("reason: %s", d.Reason)
		}
		o := d.Outcome
		if o == nil || o.TTFTMs == nil || *o.TTFTMs != 2000 || o.ClientTTFTMs == nil || *o.ClientTTFTMs != 5000 || o.ClientDurationMs == nil || *o.ClientDurationMs != 5000 {
			t.Errorf("the outcome is %+v", o)
		}
		if d.ReceivedAt == nil || d.At.Sub(*d.ReceivedAt) != 3*time.Second {
			t.Errorf("received at %v, placed at %s", d.ReceivedAt, d.At)
		}
		p.answer(chatPath, chatBody)
		p.settled()
		if list := p.records("request_id=support-17"); len(list) != 1 || list[0].DecisionID != d.DecisionID {
			t.Errorf("by the request's id: %+v", list)
		}
		for result, n := range map[string]int{"ok": 2, "error": 0, "failed": 0, "open": 0, "cancelled": 0} {
			if list := p.records("result=" + result); len(list) != n {
				t.Errorf("%d decisions with the result %s; want %d", len(list), result, n)
			}
		}
		p.problem(http.StatusUnprocessableEntity, api.CodeInvalid, p.do(http.MethodGet, "/api/v1/decisions?result=good", ""))
	})
}

// The policy's bound of a model type is named where it is what keeps a request out.
func TestABoundPoolIsNamed(t *testing.T) {
	p := newPlane(t)
	g := newGate(t)
	p.narrow("a", g.URL, 0)
	p.narrow("b", g.URL, 0)
	p.policy("default_strategy: random\ncaller_may: [explain]\npools: {m: {max_in_flight: 1}}")
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-g.arrived
	problem := p.problem(http.StatusServiceUnavailable, api.CodeNoEligibleHead, p.do(http.MethodPost, "/api/v1/decisions", `{"model_type":"m","explain":true}`))
	if problem.Reason != "pool_full" || !strings.Contains(problem.Detail, "policy") || problem.Removed["pool_full"] != 2 {
		t.Errorf("%+v", problem)
	}
	for _, c := range problem.Explanation.Candidates {
		if c.Filter != "pool_full" {
			t.Errorf("%s was removed by %q", c.Head, c.Filter)
		}
	}
	g.release <- struct{}{}
	<-first
}

// What waits is counted by the model that it waits for.
func TestWhatWaitsIsCountedByModel(t *testing.T) {
	p, g := newGatedPlane(t)
	p.narrow("free", g.URL, 1, "n")
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-g.arrived
	second := p.begin(t.Context(), &all)
	p.waiting(1)
	for model, n := range map[string]string{"m": "1", "n": "0"} {
		if text := p.scrape(); !strings.Contains(text, `headway_admission_waiting_by_model{model_type="`+model+`"} `+n+"\n") {
			t.Errorf("%s is not counted as %s", model, n)
		}
	}
	g.release <- struct{}{}
	g.release <- struct{}{}
	<-first
	<-second
}

// A request that waited as long as it may says for how long, and for what.
func TestAWaitWithoutAPlaceIsNamed(t *testing.T) {
	for bound, want := range map[string]struct{ text, reason string }{
		"":                                 {"Every head of the model is busy, and none had a place in time.", "at_capacity"},
		"\npools: {m: {max_in_flight: 1}}": {"As many requests of the model are under way as the policy allows, and none of them ended in time.", "pool_full"},
	} {
		p := newPlane(t, func(o *proxy.Options) {
			var err error
			if o.Admission, err = admission.New(admission.Options{Metrics: o.Metrics, MaxWaiting: 1, MaxWait: 50 * time.Millisecond}); err != nil {
				t.Fatal(err)
			}
		})
		g := newGate(t)
		places := int64(0)
		if bound == "" {
			places = 1
		}
		p.narrow("a", g.URL, places)
		p.policy("default_strategy: random" + bound)
		var all sync.WaitGroup
		first := p.begin(t.Context(), &all)
		<-g.arrived
		late := p.answer(chatPath, chatBody)
		if _, code, message := errorOf(t, late); code != "queue_timeout" || !strings.HasPrefix(message, want.text) {
			t.Errorf("%s: %s", code, message)
		}
		d := p.record(late.Header)
		if d.Failure != "queue_timeout" || d.QueuedMs == nil || *d.QueuedMs < 50 || !strings.HasPrefix(d.Reason, "no head: queue_timeout after 0.0") || !strings.HasSuffix(d.Reason, " s, "+want.reason) {
			t.Errorf("%s: %s %v", d.Failure, d.Reason, d.QueuedMs)
		}
		if list := p.records("result=failed&request_id=" + url.QueryEscape(late.Header.Get("X-Request-Id"))); len(list) != 1 {
			t.Errorf("%d failed decisions of the request", len(list))
		}
		if n, _ := p.sample("headway_decision_failures_total", "reason", "queue_timeout"); n != 1 {
			t.Errorf("counted %d times", n)
		}
		g.release <- struct{}{}
		<-first
		all.Wait()
	}
}

// A region that is not known is named alike by both APIs.
func TestAnUnknownRegionIsNamedAlike(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	problem := p.problem(http.StatusServiceUnavailable, api.CodeNoEligibleHead, p.do(http.MethodPost, "/api/v1/decisions", `{"model_type":"m","region":"ur","region_mode":"require"}`))
	if problem.Reason != "unknown_region" || !strings.Contains(problem.Detail, "Did you mean us? There are heads in us.") {
		t.Errorf("%+v", problem)
	}
	if d := p.records("result=failed"); len(d) != 1 || d[0].Failure != "unknown_region" {
		t.Errorf("%+v", d)
	}
	a := p.answer(chatPath, chatBody, "X-Headway-Region", "ur")
	if a.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if a.Header.Get("X-Headway-Region") != "us" || a.Header["X-Headway-Fallback"] != nil {
		t.Errorf("the answer of a preferred region that is not known: %v", a.Header)
	}
	d := into[api.RecentDecision](t, p.must(http.StatusOK, http.MethodGet, "/api/v1/decisions/"+a.Header.Get("X-Headway-Decision-Id"), ""))
	if !strings.HasSuffix(d.Reason, "; no head and no policy knows the region, so all are equally far") {
		t.Errorf("the decision does not say so: %s", d.Reason)
	}
	if n, _ := p.sample("headway_decisions_unknown_region_total"); n != 1 {
		t.Errorf("a preferred region that is not known is counted %d times", n)
	}
}

// A head that asked for a pause is shown as such, with the time.
func TestAPausedHeadIsShown(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	p.start("b")
	p.away("a", time.Hour)
	for id, state := range map[string]string{"a": "paused", "b": "fresh"} {
		h := into[api.Head](t, p.must(http.StatusOK, http.MethodGet, "/api/v1/heads/"+id, ""))
		if h.Health.State != state || (state == "paused") != (h.Health.Until != nil && time.Until(*h.Health.Until) > 50*time.Minute) {
			t.Errorf("%s is %+v", id, h.Health)
		}
	}
	if !strings.Contains(p.scrape(), "\nheadway_paused_heads 1\n") {
		t.Error("no head is counted as paused")
	}
	d := into[api.Decision](t, p.must(http.StatusOK, http.MethodPost, "/api/v1/decisions", `{"model_type":"m","explain":true}`))
	for _, c := range d.Explanation.Candidates {
		if (c.Head == "a") != (c.Filter == "paused") {
			t.Errorf("%s was removed by %q", c.Head, c.Filter)
		}
	}
}

// A refusal says which roles have what the caller lacks.
func TestARefusalNamesTheRoles(t *testing.T) {
	p := newPlane(t)
	keys := p.keysOf()
	a := p.do(http.MethodPost, "/api/v1/decisions", `{"model_type":"m"}`, "Authorization", "Bearer "+keys[access.RoleHead])
	if d := p.problem(http.StatusForbidden, api.CodeForbidden, a).Detail; d != "The key does not have the permission decide, which these roles have: operator, admin, client." {
		t.Error(d)
	}
}

// Callers that may read the fleet may have decisions explained where the policy
// does not let others.
func TestWhoReadsTheFleetMayHaveDecisionsExplained(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	p.policy("default_strategy: random\ncaller_may: [strategy]")
	keys := p.keysOf()
	for role, status := range map[access.Role]int{access.RoleAdmin: 200, access.RoleOperator: 200, access.RoleClient: 403} {
		a := p.do(http.MethodPost, "/api/v1/decisions", `{"model_type":"m","explain":true}`, "Authorization", "Bearer "+keys[role])
		if a.status != status {
			t.Errorf("%s: %d %s", role, a.status, a.body)
		}
	}
}

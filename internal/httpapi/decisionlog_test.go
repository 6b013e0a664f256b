package httpapi_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"headway/api"
	"headway/internal/httpapi"
)

// logged is the lines of an answer.
func logged(t testing.TB, a *answer) (list []api.LoggedDecision) {
	t.Helper()
	for line := range bytes.Lines(a.body) {
		list = append(list, into[api.LoggedDecision](t, &answer{body: line}))
	}
	return list
}

func TestTheDecisionLogIsRead(t *testing.T) {
	w := newWorld(t)
	const target = "/api/v1/decision-log"
	if a := w.must(http.StatusOK, http.MethodGet, target, ""); len(a.body) != 0 || a.header.Get("Content-Type") != "application/x-ndjson" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("an empty log is %q, %v", a.body, a.header)
	}
	w.register("a")
	w.register("b")
	for i := range 150 {
		a := w.must(http.StatusOK, http.MethodPost, "/api/v1/decisions", fmt.Sprintf(`{"model_type":"llama-3.1-8b","session_key":"s","input_tokens":%d}`, 100+100*(i%29)))
		d := into[api.Decision](t, a)
		w.must(http.StatusNoContent, http.MethodPost, "/api/v1/decisions/"+d.DecisionID+"/progress", `{"event":"first_token"}`)
		if i < 120 {
			w.must(http.StatusNoContent, http.MethodPost, "/api/v1/decisions/"+d.DecisionID+"/outcome", `{"result":"ok","ttft_ms":50,"output_tokens":9}`)
		}
	}
	eventually(t, func() bool { return len(logged(t, w.must(http.StatusOK, http.MethodGet, target, ""))) == 150 })
	contract := theContract(t)
	ended := 0
	for line := range bytes.Lines(w.must(http.StatusOK, http.MethodGet, target+"?last=1h", "").body) {
		contract.matches(t, "a line", line, "components", "schemas", "LoggedDecision")
		if d := into[api.LoggedDecision](t, &answer{body: line}); d.Outcome != nil {
			ended++
		}
	}
	if ended != 120 {
		t.Errorf("%d of the decisions ended, want 120", ended)
	}
	worst := logged(t, w.must(http.StatusOK, http.MethodGet, target+"?order=regret", ""))
	if len(worst) > 20 || len(worst) > 0 && *worst[0].RegretMs < *worst[len(worst)-1].RegretMs {
		t.Errorf("the worst are %+v", worst)
	}
	for model, want := range map[string]int{"llama-3.1-8b": 150, "llama-3.1-8": 0, "a": 0} {
		if of := logged(t, w.must(http.StatusOK, http.MethodGet, target+"?model_type="+model, "")); len(of) != want {
			t.Errorf("%d decisions are of %s, want %d", len(of), model, want)
		}
	}
	if newest := logged(t, w.must(http.StatusOK, http.MethodGet, target+"?limit=3", "")); len(newest) != 3 || newest[2].InputTokens != 500 {
		t.Errorf("the newest are %+v", newest)
	}
	if old := logged(t, w.must(http.StatusOK, http.MethodGet, target+"?last=1ns", "")); len(old) != 0 {
		t.Errorf("of the last nanosecond are %+v", old)
	}
	for _, bad := range []string{"last=-1h", "last=soon", "last=0s", "limit=0", "limit=10001", "limit=x", "order=name", "since=now"} {
		p := w.problem(http.StatusUnprocessableEntity, api.CodeInvalid, w.do(http.MethodGet, target+"?"+bad, ""))
		if name, _, _ := strings.Cut(bad, "="); len(p.Errors) != 1 || p.Errors[0].Parameter != name {
			t.Errorf("%s: %+v", bad, p.Errors)
		}
	}
	none := newWorld(t, func(o *httpapi.Options) { o.DecisionLog = nil })
	none.problem(http.StatusNotFound, api.CodeNotFound, none.do(http.MethodGet, target, ""))
}

// eventually waits for what another goroutine does.
func eventually(t testing.TB, done func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(until) {
			t.Fatal("it never happened")
		}
	}
}

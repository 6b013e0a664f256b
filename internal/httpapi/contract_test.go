package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/httpapi"
	"headway/internal/memstore"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/strategy"
)

func TestDescriptionAndRoutesAreTheSame(t *testing.T) {
	c := theContract(t)
	w := newPlane(t)
	routes := map[string]httpapi.Operation{}
	for _, o := range w.server.Operations() {
		if _, twice := routes[o.ID]; twice || o.ID == "" {
			t.Errorf("%s %s: operation %q is there twice, or has no name", o.Method, o.Pattern, o.ID)
		}
		routes[o.ID] = o
	}
	for path, item := range c.document.Paths {
		if path == "/heads/{model_type}/{path}" { // no route of the mux, and of any method
			if n := len(item.operations()); n != 5 {
				t.Errorf("%s is described for %d methods", path, n)
			}
			continue
		}
		for method, operation := range item.operations() {
			o, ok := routes[operation.ID]
			if !ok || !strings.EqualFold(o.Method, method) || o.Pattern != path {
				t.Errorf("described is %s %s as %q; the route is %+v", method, path, operation.ID, o)
			}
			delete(routes, operation.ID)
			if _, described := operation.Responses[strconv.Itoa(o.Success)]; !described {
				t.Errorf("%s %s: the usual status %d is not described", method, path, o.Success)
			}
			if _, described := operation.Responses["default"]; !described {
				t.Errorf("%s %s: problems are not described", method, path)
			}
			if operation.Summary == "" || len(operation.Tags) != 1 {
				t.Errorf("%s %s: no summary, or not one tag", method, path)
			}
		}
	}
	for _, o := range routes {
		t.Errorf("%s %s is not described", o.Method, o.Pattern)
	}
}

// What Go programs read must be what is described: a field of one that the
// other lacks would be dropped or refused.
func TestDescriptionAndTypesHaveTheSameFields(t *testing.T) {
	c := theContract(t)
	for name, value := range map[string]any{
		"Registration": api.Registration{}, "RegistrationAnswer": api.RegistrationAnswer{}, "Lease": api.Lease{},
		"StatusReport": api.StatusReport{}, "StatusAnswer": api.StatusAnswer{}, "Load": api.Load{},
		"ReportedLoad": api.ReportedLoad{}, "Capacity": api.Capacity{}, "HeadPatch": api.HeadPatch{}, "Head": api.Head{},
		"Health": api.Health{}, "DecisionRequest": api.DecisionRequest{}, "DecisionHead": api.DecisionHead{},
		"Decision": api.Decision{}, "Fallback": api.Fallback{}, "RecentDecision": api.RecentDecision{}, "Explanation": api.Explanation{},
		"Candidate": api.Candidate{}, "Progress": api.Progress{}, "Outcome": api.Outcome{},
		"RecordedOutcome": api.RecordedOutcome{}, "Strategy": api.Strategy{}, "Policy": policy.Document{},
		"Readiness": api.Readiness{}, "Problem": api.Problem{}, "Fault": api.Fault{},
		"PolicyCheck": api.PolicyCheck{}, "Difference": api.Difference{}, "PolicyReplay": api.PolicyReplay{},
		"ReplayedDecision": api.ReplayedDecision{}, "PolicyRevision": api.PolicyRevision{},
		"Key": api.Key{}, "KeyRequest": api.KeyRequest{}, "AuditRecord": api.AuditRecord{},
		"Event": api.Event{}, "Snapshot": api.Snapshot{}, "Lost": api.Lost{}, "Subscription": api.Subscription{},
		"Envelope": api.Envelope{}, "AdminNotice": api.AdminNotice{}, "DeadLetter": api.DeadLetter{},
		"StateReport":    api.StateReport{},
		"DrainRehearsal": api.DrainRehearsal{}, "RehearsedPool": api.RehearsedPool{}, "RehearsedFigures": api.RehearsedFigures{},
		"LoggedDecision": api.LoggedDecision{}, "LoggedHead": api.LoggedHead{}, "LoggedOutcome": api.LoggedOutcome{},
	} {
		schema, ok := c.document.Components.Schemas[name]
		if !ok {
			t.Errorf("%s is not described", name)
			continue
		}
		have := slices.Collect(maps.Keys(schema.Properties))
		want, required := fields(reflect.TypeOf(value))
		slices.Sort(have)
		if slices.Sort(want); !slices.Equal(have, want) {
			t.Errorf("%s: described are %q, the type has %q", name, have, want)
		}
		// model_type may stand in for model_types, and a policy's fields have
		// forms that compiling it checks.
		slices.Sort(required)
		got := slices.Sorted(slices.Values(schema.Required))
		if !slices.Equal(got, required) {
			t.Errorf("%s: required are %q, always there %q", name, got, required)
		}
	}
}

// fields are the JSON names of a struct's fields, and those that are always
// there.
func fields(t reflect.Type) (all, required []string) {
	own := func(name string) bool { // it stands in for the embedded field of its name
		for f := range t.Fields() {
			if mine, _, _ := strings.Cut(f.Tag.Get("json"), ","); mine == name {
				return true
			}
		}
		return false
	}
	for f := range t.Fields() {
		if f.Anonymous {
			more, always := fields(f.Type)
			all = append(all, slices.DeleteFunc(more, own)...)
			required = append(required, slices.DeleteFunc(always, own)...)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		all = append(all, name)
		if options == "" {
			required = append(required, name)
		}
	}
	return all, required
}

// TestEveryCodeIsDescribed reads the codes from the source: Go cannot list
// constants.
func TestEveryCodeIsDescribed(t *testing.T) {
	source, err := os.ReadFile("../../api/api.go")
	if err != nil {
		t.Fatal(err)
	}
	var want, have []string
	for _, m := range regexp.MustCompile(`(?m)^\tCode\w+ += "(\w+)"`).FindAllSubmatch(source, -1) {
		if code := string(m[1]); code != api.CodeClientGone { // never sent
			want = append(want, code)
		}
	}
	for _, n := range theContract(t).document.Components.Schemas["Problem"].Properties["code"].Enum {
		have = append(have, fmt.Sprint(n))
	}
	slices.Sort(want)
	if slices.Sort(have); !slices.Equal(have, want) || len(want) < 20 {
		t.Errorf("described are %q, sent may be %q", have, want)
	}
}

// exchange is a request and the status that it must get.
type exchange struct {
	method, target, body string
	status               int
	headers              []string
}

const llama = "llama-3.1-8b"

// Every route is asked for what usually goes well, with all that it can say.
func TestUsualAnswersAreAsDescribed(t *testing.T) {
	c := theContract(t)
	w := newWorld(t)
	covered := map[string]bool{}
	ask := func(status int, method, target, body string, headers ...string) *answer {
		t.Helper()
		r := newRequest(t, method, target, body, headers...)
		c.request(t, r, body)
		a := w.ask(r)
		if a.status != status {
			t.Errorf("%s %s %s: %d %s; want %d", method, target, body, a.status, a.body, status)
		}
		c.answer(t, r, a)
		path, _, _ := strings.Cut(target, "?")
		covered[method+" "+path] = true
		return a
	}
	full := `{"id":"full","endpoint":"https://gpu-7.internal:8443","model_types":["llama-3.1-8b","org/model@v2"],"region":"eu-west","zone":"b",` +
		`"version":"0.11.2","engine":"vllm","weight":2.5,"capacity":{"max_in_flight":64},"labels":{"tier":"gold"},"status":"active",` +
		`"load":{"in_flight":3,"queued":0,"pending_prompt_tokens":12000,"kv_cache_usage":0.25,"kv_capacity_tokens":400000,"utilization":0.5,"tokens_per_second":812.5}}`
	registered := into[api.RegistrationAnswer](t, ask(http.StatusCreated, "POST", "/api/v1/heads", full))
	ask(http.StatusOK, "POST", "/api/v1/heads", full)
	ask(http.StatusOK, "POST", "/api/v1/heads", strings.Replace(full, `"id"`, `"take_over":true,"id"`, 1))
	bare := ask(http.StatusCreated, "POST", "/api/v1/heads", `{"id":"bare","endpoint":"http://10.0.0.2:8000","model_type":"llama-3.1-8b","region":"us-east"}`)
	epoch := into[api.RegistrationAnswer](t, bare).Lease.Epoch
	ask(http.StatusOK, "GET", "/api/v1/heads/bare", "")
	ask(http.StatusOK, "PUT", "/api/v1/heads/bare/status", fmt.Sprintf(`{"epoch":%d,"status":"degraded","load":{},"sequence":1}`, epoch))
	ask(http.StatusOK, "PUT", "/api/v1/heads/bare/status", fmt.Sprintf(`{"epoch":%d,"status":"active"}`, epoch))
	ask(http.StatusOK, "GET", "/api/v1/heads/full", "")
	ask(http.StatusOK, "PATCH", "/api/v1/heads/full", `{"admin_state":"maintenance","weight":3,"labels":{"x":"y"}}`)
	ask(http.StatusOK, "PATCH", "/api/v1/heads/full", `{"admin_state":"enabled","weight":0.001,"labels":{}}`)
	ask(http.StatusOK, "PATCH", "/api/v1/heads/full", `{"weight":null,"labels":null}`)
	ask(http.StatusOK, "GET", "/api/v1/heads", "")
	first := into[api.List[api.Head]](t, ask(http.StatusOK, "GET", "/api/v1/heads?limit=1&region=us-east&model_type="+llama, ""))
	if first.NextCursor != "" || len(first.Data) != 1 {
		t.Errorf("the heads of us-east are %+v", first)
	}
	page := into[api.List[api.Head]](t, ask(http.StatusOK, "GET", "/api/v1/heads?limit=1&status=active", ""))
	ask(http.StatusOK, "GET", "/api/v1/heads?limit=1&cursor="+page.NextCursor, "")

	ask(http.StatusOK, "POST", "/api/v1/decisions", `{"model_type":"llama-3.1-8b"}`)
	made := into[api.Decision](t, ask(http.StatusOK, "POST", "/api/v1/decisions",
		`{"model_type":"llama-3.1-8b","region":"ap-south","region_mode":"prefer","strategy":"least_loaded","session_key":"u-1","prompt":"Hello \"you\" \u00e9",`+
			`"prefix_hashes":["00ff","DEADBEEF",17],"input_tokens":1200,"exclude":["absent"],"labels":{},"explain":true}`))
	one := "/api/v1/decisions/" + made.DecisionID
	ask(http.StatusOK, "GET", one, "")
	ask(http.StatusNoContent, "POST", one+"/progress", `{"event":"first_token"}`)
	ask(http.StatusNoContent, "POST", one+"/outcome", `{"result":"ok","status_code":200,"ttft_ms":81.5,"duration_ms":900,"input_tokens":1200,"output_tokens":80,"cached_tokens":0}`)
	ask(http.StatusNoContent, "POST", one+"/outcome", `{"result":"error"}`)
	ask(http.StatusOK, "GET", one, "")
	for _, spec := range strategy.Specs() {
		ask(http.StatusOK, "POST", "/api/v1/decisions", fmt.Sprintf(`{"model_type":%q,"strategy":%q,"region":"eu-west","explain":true}`, llama, spec.Name))
	}
	recent := into[api.List[api.RecentDecision]](t, ask(http.StatusOK, "GET", "/api/v1/decisions?limit=2&model_type="+llama+"&head="+made.Head.ID, ""))
	if len(recent.Data) == 0 {
		t.Error("no recent decision")
	}
	page2 := into[api.List[api.RecentDecision]](t, ask(http.StatusOK, "GET", "/api/v1/decisions?limit=1", ""))
	ask(http.StatusOK, "GET", "/api/v1/decisions?cursor="+page2.NextCursor, "")

	ask(http.StatusOK, "GET", "/api/v1/decision-log?last=1h&limit=3", "")
	for range 50 {
		ask(http.StatusOK, "POST", "/api/v1/decisions", `{"model_type":"llama-3.1-8b","input_tokens":100}`)
	}
	ask(http.StatusOK, "POST", "/api/v1/heads/bare/drain-rehearsal?last=1m", "")
	ask(http.StatusOK, "GET", "/api/v1/strategies", "")
	ask(http.StatusOK, "GET", "/api/v1/strategies?window=1h&model_type="+llama, "")
	document, faults := policy.Parse([]byte(`{"default_strategy":"round_robin","rules":[{"match":{"model_type":"llama*","region":"eu-*"},"strategy":"geo_preferred","region_mode":"require"}],`+
		`"regions":{"eu-west":{"distances_ms":{"us-east":80}}},"strategies":{"session_affinity":{"parameters":{}}},"aliases":{"small":"llama-3.1-8b"},"caller_may":[]}`), "json")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if _, err := w.router.Apply(t.Context(), routing.Change{Make: routing.To(document), Source: policy.SourceFile}); err != nil {
		t.Fatal(err)
	}
	a := ask(http.StatusOK, "GET", "/api/v1/policy", "")
	if a.header.Get("ETag") != `"1"` {
		t.Errorf("ETag %q; want the revision, 1", a.header.Get("ETag"))
	}
	if again := ask(http.StatusNotModified, "GET", "/api/v1/policy", "", "If-None-Match", `"1"`); len(again.body) != 0 {
		t.Errorf("304 with a body: %s", again.body)
	}
	ask(http.StatusOK, "PUT", "/api/v1/policy", `{"default_strategy":"random","rules":[{"match":{},"strategy":"least_loaded"}],"caller_may":["strategy"]}`, "If-Match", `"1"`, "X-Change-Note", "calmer")
	ask(http.StatusOK, "PATCH", "/api/v1/policy", `{"rules":null,"regions":{"eu-west":{"distances_ms":{"us-east":75}}}}`, "If-Match", `"2"`, "Content-Type", "application/merge-patch+json")
	check := into[api.PolicyCheck](t, ask(http.StatusOK, "POST", "/api/v1/policy/validate", `{"default_strategy":"round_robin","caller_may":[]}`))
	if !check.Valid || check.CurrentRevision != 3 || len(check.Differences) != 3 || check.Replay == nil || check.Replay.Decisions == 0 {
		t.Errorf("the dry run says %+v", check)
	}
	hiding := into[api.PolicyCheck](t, ask(http.StatusOK, "POST", "/api/v1/policy/validate", `{"default_strategy":"round_robin","aliases":{"llama-3.1-8b":"other"},"caller_may":[]}`))
	if !hiding.Valid || len(hiding.Warnings) != 1 || hiding.Warnings[0].Pointer != "/aliases/llama-3.1-8b" {
		t.Errorf("an alias over a model type that heads serve: %+v", hiding)
	}
	ask(http.StatusOK, "GET", "/api/v1/policy/revisions?limit=2", "")
	history := into[api.List[api.PolicyRevision]](t, ask(http.StatusOK, "GET", "/api/v1/policy/revisions", ""))
	if len(history.Data) != 4 || !history.Data[0].Current || history.Data[1].Note != "calmer" || history.Data[3].Source != "default" {
		t.Errorf("the history is %+v", history.Data)
	}
	ask(http.StatusOK, "GET", "/api/v1/policy/revisions/1", "")
	ask(http.StatusOK, "GET", "/api/v1/policy/revisions/0", "")
	if a := ask(http.StatusOK, "POST", "/api/v1/policy/revisions/1/restore", "", "If-Match", `"3"`); a.header.Get("ETag") != `"4"` {
		t.Errorf("restored as %s; want a new revision, 4", a.header.Get("ETag"))
	}
	ask(http.StatusOK, "GET", "/api/v1/audit", "")
	ask(http.StatusOK, "GET", "/api/v1/audit?since=2026-01-01T00:00:00Z&actor=key:x&action=policy.*&limit=3", "")
	admin := into[api.Key](t, ask(http.StatusCreated, "POST", "/api/v1/keys", `{"name":"first","role":"admin"}`))
	bearer := []string{"Authorization", "Bearer " + admin.Secret}
	gpu := into[api.Key](t, ask(http.StatusCreated, "POST", "/api/v1/keys",
		`{"name":"gpu rack 7","role":"head","scopes":["head"],"heads":["gpu-7-*"],"regions":["eu-*"],"expires_in_seconds":3600}`, bearer...))
	ask(http.StatusOK, "GET", "/api/v1/keys", "", bearer...)
	if page := into[api.List[api.Key]](t, ask(http.StatusOK, "GET", "/api/v1/keys?limit=1", "", bearer...)); page.NextCursor == "" || page.Data[0].Secret != "" {
		t.Errorf("the first of two keys is %+v", page)
	}
	if k := into[api.Key](t, ask(http.StatusOK, "PATCH", "/api/v1/keys/"+gpu.ID, `{"requests_per_minute":60,"tokens_per_minute":-1}`, bearer...)); k.RequestsPerMinute != 60 || k.TokensPerMinute != -1 || k.Weight != 0 {
		t.Errorf("the patched key is %+v", k)
	}
	ask(http.StatusNoContent, "DELETE", "/api/v1/keys/"+gpu.ID, "", bearer...)
	ask(http.StatusNoContent, "DELETE", "/api/v1/keys/"+admin.ID, "", bearer...) // no other test needs it
	covered["DELETE /api/v1/keys/{id}"] = true
	covered["PATCH /api/v1/keys/{id}"] = true
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/openapi.json", "/"} {
		ask(http.StatusOK, "GET", path, "")
	}
	openMetrics := ask(http.StatusOK, "GET", "/metrics", "", "Accept", "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(openMetrics.header.Get("Content-Type"), "application/openmetrics-text") {
		t.Errorf("Content-Type %s; want OpenMetrics", openMetrics.header.Get("Content-Type"))
	}
	ask(http.StatusUpgradeRequired, "GET", "/api/v1/ws", "")
	ask(http.StatusOK, "GET", "/api/v1/state/export", "")
	ask(http.StatusOK, "GET", "/api/v1/state/check", "")
	ask(http.StatusOK, "GET", "/api/v1/queue/dead-letters", "")
	letters := into[api.List[api.DeadLetter]](t, ask(http.StatusOK, "GET", "/api/v1/queue/dead-letters?limit=1", ""))
	ask(http.StatusOK, "GET", "/api/v1/queue/dead-letters?cursor="+letters.NextCursor, "")
	ask(http.StatusOK, "GET", "/api/v1/queue/dead-letters/1", "")
	ask(http.StatusNoContent, "POST", "/api/v1/queue/dead-letters/1/retry", "")
	ask(http.StatusNoContent, "DELETE", "/api/v1/queue/dead-letters/2", "")
	covered["DELETE /api/v1/queue/dead-letters/1"] = true
	covered["GET /api/v1/events"] = true // it has no end; live_test.go reads it
	w.eject("bare")
	ejected := into[api.Head](t, ask(http.StatusOK, "GET", "/api/v1/heads/bare", ""))
	if h := ejected.Health; ejected.Routable || h.State != "ejected" || h.Reason == "" || h.Until == nil || h.Until.Before(time.Now()) {
		t.Errorf("an ejected head is shown as %+v", ejected)
	}
	ask(http.StatusNoContent, "DELETE", "/api/v1/heads/bare/ejection", "")
	if back := into[api.Head](t, ask(http.StatusOK, "GET", "/api/v1/heads/bare", "")); !back.Routable || back.Health.State != "fresh" {
		t.Errorf("a reinstated head is shown as %+v", back)
	}
	named := ask(http.StatusCreated, "POST", "/api/v1/heads", `{"id":"hidden","endpoint":"http://10.0.0.3:8000","model_type":"small","region":"us-east"}`)
	if got := into[api.RegistrationAnswer](t, named).Warnings; len(got) != 1 || !strings.Contains(got[0], "/aliases/small") {
		t.Errorf("a head whose model type an alias hides gets %q", got)
	}
	w.store.Inject(memstore.Fault{Err: fleet.ErrStoreUnavailable})
	ask(http.StatusServiceUnavailable, "POST", "/api/v1/heads", strings.Replace(full, `"full"`, `"more"`, 1))
	ask(http.StatusServiceUnavailable, "GET", "/readyz", "")
	w.store.Inject(memstore.Fault{})
	ask(http.StatusNoContent, "DELETE", "/api/v1/heads/full", "")

	for _, o := range w.server.Operations() {
		key := o.Method + " " + strings.NewReplacer("/heads/{id}", "/heads/bare", "/decisions/{id}", one[len("/api/v1"):], "{n}", "1").Replace(o.Pattern)
		if o.ID == "deleteHead" || o.ID == "patchHead" {
			key = strings.Replace(key, "bare", "full", 1)
		}
		if !covered[key] {
			t.Errorf("%s was not asked", key)
		}
	}
	if registered.Head.Load == nil || registered.Head.Capacity == nil || registered.Head.Status != "active" {
		t.Errorf("registered as %+v", registered.Head)
	}
}

// brokenBody fails as it is read; the handler's other inputs are sound.
type brokenBody struct{ do func() error }

func (b brokenBody) Read([]byte) (int, error) { return 0, b.do() }
func (b brokenBody) Close() error             { return nil }

// Each kind of problem is brought about once, with what has to stand beside it.
func TestEveryProblemIsAsDescribed(t *testing.T) {
	c := theContract(t)
	w := newWorld(t)
	w.register("a")
	sent := map[string]bool{}
	want := func(status int, code string, r *http.Request, a *answer) api.Problem {
		t.Helper()
		p := w.problem(status, code, a)
		if code == api.CodeNotFound || code == api.CodeMethodNotAllowed {
			c.problem(t, a)
		} else {
			c.answer(t, r, a)
		}
		sent[code] = true
		return p
	}
	const decide = `{"model_type":"llama-3.1-8b"}`
	for _, e := range []struct {
		exchange
		code string
	}{
		{exchange{"POST", "/api/v1/decisions", `{`, 400, nil}, api.CodeInvalidJSON},
		{exchange{"POST", "/api/v1/decisions", `{}`, 422, nil}, api.CodeInvalid},
		{exchange{"POST", "/api/v1/decisions", decide + strings.Repeat(" ", 1<<20), 413, nil}, api.CodeTooLarge},
		{exchange{"POST", "/api/v1/decisions", decide, 415, []string{"Content-Encoding", "gzip"}}, api.CodeUnsupportedMedia},
		{exchange{"GET", "/api/v2/heads", "", 404, nil}, api.CodeNotFound},
		{exchange{"PUT", "/api/v1/heads", `{}`, 405, nil}, api.CodeMethodNotAllowed},
		{exchange{"GET", "/api/v1/ws", "", 426, nil}, api.CodeUpgradeRequired},
		{exchange{"GET", "/api/v1/queue/dead-letters/9", "", 404, nil}, api.CodeLetterNotFound},
		{exchange{"DELETE", "/api/v1/queue/dead-letters/7", "", 503, nil}, api.CodeQueueUnavailable},
		{exchange{"GET", "/api/v1/heads/absent", "", 404, nil}, api.CodeHeadNotFound},
		{exchange{"PUT", "/api/v1/heads/absent/status", `{"epoch":1,"status":"active"}`, 404, nil}, api.CodeHeadNotFound},
		{exchange{"PATCH", "/api/v1/heads/absent", `{"weight":1}`, 404, nil}, api.CodeHeadNotFound},
		{exchange{"DELETE", "/api/v1/heads/absent", "", 404, nil}, api.CodeHeadNotFound},
		{exchange{"PUT", "/api/v1/heads/a/status", `{"epoch":9999,"status":"active"}`, 409, nil}, api.CodeStaleEpoch},
		{exchange{"DELETE", "/api/v1/heads/a/ejection", "", 404, nil}, api.CodeNotEjected},
		{exchange{"POST", "/api/v1/heads/a/drain-rehearsal", "", 409, nil}, api.CodeTooFewRequests},
		{exchange{"POST", "/api/v1/heads", strings.Replace(headBody("a"), "10.0.0.1", "10.0.0.2", 1), 409, nil}, api.CodeHeadContested},
		{exchange{"POST", "/api/v1/decisions", `{"model_type":"nothing"}`, 404, nil}, api.CodeUnknownModelType},
		{exchange{"GET", "/api/v1/decisions/dec_00000000000000000000000000000000", "", 404, nil}, api.CodeDecisionNotFound},
		{exchange{"POST", "/api/v1/decisions/dec_0/progress", `{"event":"first_token"}`, 404, nil}, api.CodeDecisionNotFound},
		{exchange{"POST", "/api/v1/decisions/dec_0/outcome", `{"result":"ok"}`, 404, nil}, api.CodeDecisionNotFound},
		{exchange{"PUT", "/api/v1/policy", `{}`, 428, nil}, api.CodePreconditionMissing},
		{exchange{"PATCH", "/api/v1/policy", `{}`, 412, []string{"If-Match", `"7"`}}, api.CodePreconditionFailed},
		{exchange{"PUT", "/api/v1/policy", `{}`, 422, []string{"If-Match", "*"}}, api.CodeInvalid},
		{exchange{"POST", "/api/v1/policy/revisions/0/restore", "", 428, nil}, api.CodePreconditionMissing},
		{exchange{"POST", "/api/v1/policy/revisions/0/restore", "", 412, []string{"If-Match", `"7"`}}, api.CodePreconditionFailed},
		{exchange{"POST", "/api/v1/policy/revisions/9/restore", "", 404, []string{"If-Match", "*"}}, api.CodeRevisionNotFound},
		{exchange{"GET", "/api/v1/policy/revisions/nine", "", 422, nil}, api.CodeInvalid},
		{exchange{"GET", "/livez?token=x", "", 400, nil}, api.CodeKeyInURL},
		{exchange{"GET", "/openapi.json", "", 421, []string{"Host", "evil.example"}}, api.CodeForeignHost},
		{exchange{"GET", "/metrics", "", 403, []string{"Origin", "https://evil.example"}}, api.CodeCrossOrigin},
	} {
		r := newRequest(t, e.method, e.target, e.body, e.headers...)
		want(e.status, e.code, r, w.ask(r))
	}
	for err, code := range map[error]string{
		fmt.Errorf("save: %w", fleet.ErrStoreUnavailable): api.CodeStateUnavailable,
		fmt.Errorf("save: %w", fleet.ErrConflict):         api.CodeConflict,

		fleet.ErrFleetFull:        api.CodeFleetFull,
		fleet.ErrOverloaded:       api.CodeOverloaded,
		context.DeadlineExceeded:  api.CodeTimeout,
		errors.New("no such row"): api.CodeInternal,
	} {
		w.store.Inject(memstore.Fault{Err: err})
		r := newRequest(t, "POST", "/api/v1/heads", headBody("b"))
		a := w.ask(r)
		p := want(a.status, code, r, a)
		if strings.Contains(string(a.body), "no such row") {
			t.Errorf("%s has internals", a.body)
		}
		if retry := a.header.Get("Retry-After"); (p.Status == 503) != (retry != "") {
			t.Errorf("%d with Retry-After %q", p.Status, retry)
		}
	}
	w.store.Inject(memstore.Fault{})
	w.noTrail.Store(true)
	r := newRequest(t, "PATCH", "/api/v1/heads/a", `{"weight":7}`)
	want(503, api.CodeAuditUnavailable, r, w.ask(r))
	w.noTrail.Store(false)

	r = newRequest(t, "POST", "/api/v1/decisions", decide)
	r.Body, r.ContentLength = brokenBody{func() error { panic("a bug") }}, int64(len(decide))
	want(500, api.CodeInternal, r, w.ask(r))
	r = newRequest(t, "POST", "/api/v1/decisions", decide)
	r.Body, r.ContentLength = brokenBody{func() error { return os.ErrDeadlineExceeded }}, int64(len(decide))
	want(408, api.CodeRequestTimeout, r, w.ask(r))

	late, faults := policy.Parse([]byte(slo), "yaml")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if _, err := w.router.Apply(t.Context(), routing.Change{Make: routing.To(late), Expect: routing.AnyRevision, Source: policy.SourceFile}); err != nil {
		t.Fatal(err)
	}
	w.paced("llama-3.1-8b")
	r = newRequest(t, "POST", "/api/v1/decisions", `{"model_type":"llama-3.1-8b","input_tokens":1000}`)
	want(429, api.CodeObjective, r, w.ask(r))
	if _, err := w.router.Apply(t.Context(), routing.Change{Make: routing.To(policy.Default()), Expect: routing.AnyRevision, Source: policy.SourceFile}); err != nil {
		t.Fatal(err)
	}

	w.must(200, "PATCH", "/api/v1/heads/a", `{"admin_state":"maintenance"}`)
	for _, body := range []string{`{"model_type":"llama-3.1-8b"}`, `{"model_type":"llama-3.1-8b","explain":true,"region":"eu-west","region_mode":"require"}`} {
		r = newRequest(t, "POST", "/api/v1/decisions", body)
		a := w.ask(r)
		p := want(503, api.CodeNoEligibleHead, r, a)
		if a.header.Get("Retry-After") == "" || p.Reason != "unroutable" || p.Removed["admin_state"] != 1 || (p.Explanation != nil) != strings.Contains(body, "explain") {
			t.Errorf("Retry-After %q, %s", a.header.Get("Retry-After"), a.body)
		}
	}
	strict, faults := policy.Compile(policy.Document{DefaultStrategy: "least_loaded"})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if _, err := w.router.Apply(t.Context(), routing.Change{Make: routing.To(strict), Expect: routing.AnyRevision, Source: policy.SourceFile}); err != nil {
		t.Fatal(err)
	}
	r = newRequest(t, "POST", "/api/v1/decisions", `{"model_type":"llama-3.1-8b","strategy":"round_robin"}`)
	p := want(403, api.CodeOverrideNotAllowed, r, w.ask(r))
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/strategy" || !strings.Contains(p.Detail, " strategy;") {
		t.Errorf("%+v", p)
	}

	addr := w.listen()
	sent[w.noRequest(c, func() net.Conn { return dial(t, addr) })] = true
	w.accessProblems(want)
	for _, n := range c.document.Components.Schemas["Problem"].Properties["code"].Enum {
		if !sent[fmt.Sprint(n)] {
			t.Errorf("%s was not brought about", n)
		}
	}
}

// A client that left gets no answer; the metrics separate it from failures.
func TestClientThatLeft(t *testing.T) {
	w := newWorld(t)
	w.store.Inject(memstore.Fault{Err: context.Canceled})
	a := w.do("POST", "/api/v1/heads", headBody("a"))
	if len(a.body) != 0 {
		t.Errorf("it got %s", a.body)
	}
	if want := `http_requests_total{endpoint="/api/v1/heads",method="POST",status="499"} 1`; !strings.Contains(w.scrape(), want) {
		t.Errorf("no %s", want)
	}
}

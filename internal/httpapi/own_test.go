package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"headway/api"
	"headway/internal/access"
	"headway/internal/mockhead"
)

// A caller that may only decide reads its own decisions, by the same key: those of
// the data plane without heads, those of the API with the heads that it was given.
func TestACallerReadsItsOwnDecisions(t *testing.T) {
	p := newPlane(t)
	if _, err := p.start("bad-head").Inject(mockhead.Fault{Kind: mockhead.Status, Status: 500}); err != nil {
		t.Fatal(err)
	}
	p.start("good-head")
	admin := p.admin()
	key := func(name string, role access.Role, scopes ...string) string {
		return p.key(admin, access.Request{Name: name, Role: string(role), Scopes: scopes})
	}
	root := key("root", access.RoleAdmin)
	mine, others, viewer, narrow := key("mine", access.RoleClient), key("others", access.RoleClient), key("viewer", access.RoleViewer), key("narrow", access.RoleOperator, "decide")
	read := func(id, key string) *answer {
		return p.do(http.MethodGet, "/api/v1/decisions/"+id, "", "Authorization", "Bearer "+key)
	}
	for range 4 { // some of them after an attempt at the bad one
		a := p.answer(chatPath, chatBody, "X-Api-Key", mine)
		if a.err != nil || a.StatusCode != http.StatusOK {
			t.Fatal(a.StatusCode, a.err)
		}
		p.settled()
		id := a.Header.Get("X-Headway-Decision-Id")
		own := read(id, mine)
		if own.status != http.StatusOK {
			t.Fatalf("its own decision: %d %s", own.status, own.body)
		}
		d := into[api.RecentDecision](t, own)
		if d.DecisionID != id || d.Outcome == nil || d.Outcome.Result != "ok" || d.Outcome.OutputTokens == nil || d.FirstTokenAt == nil {
			t.Errorf("its own decision is %s", own.body)
		}
		for _, hidden := range []string{"good-head", "bad-head", "http://", `"head"`} {
			if strings.Contains(string(own.body), hidden) {
				t.Errorf("it names %s: %s", hidden, own.body)
			}
		}
		for _, key := range []string{others, narrow} {
			p.problem(http.StatusForbidden, api.CodeForbidden, read(id, key))
		}
		for _, key := range []string{viewer, root} {
			if a := read(id, key); a.status != http.StatusOK || !strings.Contains(string(a.body), `"good-head"`) {
				t.Errorf("a caller that may read: %d %s", a.status, a.body)
			}
		}
	}
	made := into[api.Decision](t, p.must(http.StatusOK, http.MethodPost, "/api/v1/decisions", `{"model_type":"m"}`, "Authorization", "Bearer "+mine))
	if d := into[api.RecentDecision](t, read(made.DecisionID, mine)); d.Head.ID != made.Head.ID || d.Head.Endpoint != made.Head.Endpoint {
		t.Errorf("its own decision of the API is %+v, and it was given %+v", d, made)
	}
	p.problem(http.StatusForbidden, api.CodeForbidden, read(made.DecisionID, others))
	p.problem(http.StatusForbidden, api.CodeForbidden, p.do(http.MethodGet, "/api/v1/decisions", "", "Authorization", "Bearer "+mine))
	p.problem(http.StatusNotFound, api.CodeDecisionNotFound, read("dec_00000000000000010000000000000001", mine))
	none := p.do(http.MethodPost, "/api/v1/decisions", `{"model_type":"nothing"}`, "Authorization", "Bearer "+mine)
	if none.status < 400 {
		t.Fatal(none.status)
	}
	for _, d := range into[api.List[api.RecentDecision]](t, p.must(http.StatusOK, http.MethodGet, "/api/v1/decisions?model_type=nothing", "", "Authorization", "Bearer "+root)).Data {
		if a := read(d.DecisionID, mine); a.status != http.StatusOK {
			t.Errorf("its own decision that found no head: %d %s", a.status, a.body)
		}
		p.problem(http.StatusForbidden, api.CodeForbidden, read(d.DecisionID, others))
	}
}

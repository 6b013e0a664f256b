package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"headway/api"
	"headway/client"
	"headway/internal/access"
	"headway/internal/fleet"
	"headway/internal/routing"
)

// prompted is what the decision of a request knew of its prompt.
type prompted struct {
	head   string
	tokens int32
	cached int32 // as is known of the head
}

func knew(d *routing.Decision) prompted {
	w := d.Work()
	return prompted{d.Head.ID, w.Tokens, w.Tokens - w.New}
}

// proxied sends a request by the data plane.
func (p *plane) proxied(path, body string, header ...string) prompted {
	p.Helper()
	a := p.answer(path, body, header...)
	if a.StatusCode != http.StatusOK {
		p.Fatalf("%s: %s %s", path, a.Status, a.body)
	}
	return knew(p.decisionOf(a.Header))
}

// chosen asks for a decision, and ends it.
func (p *plane) chosen(r api.DecisionRequest, header ...string) prompted {
	p.Helper()
	r.ModelType = "m"
	body, err := json.Marshal(r)
	if err != nil {
		p.Fatal(err)
	}
	var d api.Decision
	if err := json.Unmarshal(p.must(200, "POST", "/api/v1/decisions", string(body), header...).body, &d); err != nil {
		p.Fatal(err)
	}
	p.must(204, "POST", "/api/v1/decisions/"+d.DecisionID+"/outcome", `{"result":"ok"}`, header...)
	found, err := p.router.Decision(d.DecisionID)
	if err != nil {
		p.Fatal(err)
	}
	return knew(found)
}

// A prompt that one carrier brought is known when another brings it, in any form of the
// API; and what shares no cache with it is not.
func TestAPromptIsKnownHoweverItComes(t *testing.T) {
	p := newPlane(t)
	p.policy("default_strategy: adaptive")
	for i := range 8 {
		p.start(fmt.Sprintf("h%d", i))
	}
	text := strings.Repeat(`How far is \"it\"?\n`, 1000)
	chat := `{"model":"m","max_tokens":2,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"` + text + `"}]`
	first := p.proxied(chatPath, chat+`}`)
	if first.tokens < 3000 || first.cached != 0 {
		t.Fatalf("the first request is %+v", first)
	}
	hashed := func(body string) (r api.DecisionRequest) {
		if err := client.HashBody(&r, []byte(body)); err != nil {
			t.Fatal(err)
		}
		return r
	}
	responses := `{"model":"m","max_output_tokens":2,"instructions":"Be brief.","input":[{"role":"user","content":[{"type":"input_text","text":"` + text + `"}]}]}`
	messages := `{"model":"m","max_tokens":2,"system":"Be brief.","messages":[{"role":"user","content":[{"type":"text","text":"` + text + `","cache_control":{"type":"ephemeral"}}]}]}`
	for i := range 5 { // an id of each request is no session
		for name, got := range map[string]prompted{
			"chat":          p.proxied(chatPath, chat+`}`, "X-Request-Id", fmt.Sprint("request-", i)),
			"another turn":  p.proxied(chatPath, chat[:len(chat)-1]+`,{"role":"assistant","content":"Far."},{"role":"user","content":"And now?"}],"temperature":0.5}`),
			"responses":     p.proxied("/v1/responses", responses),
			"messages":      p.proxied("/v1/messages", messages),
			"the SDK":       p.chosen(hashed(chat + `}`)),
			"the SDK again": p.chosen(hashed(messages)),
		} {
			if got.head != first.head || got.cached < got.tokens*9/10 {
				t.Errorf("%s, %d: %+v, and %s has the prompt", name, i, got, first.head)
			}
		}
	}
	for name, got := range map[string]prompted{
		"a salt":       p.proxied(chatPath, chat+`,"cache_salt":"x"}`),
		"an adapter":   p.proxied(chatPath, chat+`,"lora_path":"x"}`),
		"a plain text": p.proxied("/v1/completions", `{"model":"m","max_tokens":2,"prompt":"`+text+`"}`),
		"another text": p.proxied(chatPath, strings.Replace(chat, "brief", "kind", 1)+`}`),
	} {
		if got.cached != 0 {
			t.Errorf("%s: %+v, though nothing is shared", name, got)
		}
	}
	plain := api.DecisionRequest{}
	if err := json.Unmarshal([]byte(`"`+text+`"`), &plain.Prompt); err != nil {
		t.Fatal(err)
	}
	if got := p.chosen(plain); got.cached < got.tokens*9/10 {
		t.Errorf("the decision API does not know the prompt of completions: %+v", got)
	}
	if got := p.proxied("/v1/embeddings", `{"model":"m","input":"`+text+`"}`); got.cached != 0 {
		t.Errorf("embeddings: %+v", got)
	}
}

// Answers that are no streams show no first token. A caller that asks again and again
// between two reports stays where its prompt is all the same.
func TestWholeAnswersLeaveNothingAhead(t *testing.T) {
	p := newPlane(t)
	p.policy("default_strategy: adaptive")
	idle := fleet.UnknownLoad()
	idle.InFlight, idle.Queued, idle.PendingPromptTokens = 0, 0, 0
	for i := range 4 {
		id := fmt.Sprintf("h%d", i)
		spec := fleet.Spec{ID: id, Endpoint: p.start(id).URL(), ModelTypes: []string{"m"}, Region: "us"}
		if _, err := p.fleet.Register(p.Context(), spec, &fleet.StatusReport{Status: fleet.StatusActive, Load: idle}); err != nil {
			t.Fatal(err)
		}
	}
	body := `{"model":"m","max_tokens":2,"messages":[{"role":"user","content":"` + strings.Repeat("How far is it? ", 1000) + `"}]}`
	first := p.proxied(chatPath, body)
	for range 5 {
		if got := p.proxied(chatPath, body); got.head != first.head || got.cached == 0 {
			t.Errorf("%+v, and %s has the prompt", got, first.head)
		}
	}
}

// What one caller sent is known to no other.
func TestTenantsShareNoPrompt(t *testing.T) {
	p := newPlane(t)
	p.policy("default_strategy: adaptive")
	p.start("h")
	admin := p.admin()
	p.key(admin, access.Request{Name: "admin", Role: string(access.RoleAdmin)})
	var keys []string
	for _, name := range []string{"one", "other"} {
		keys = append(keys, "Bearer "+p.key(admin, access.Request{Name: name, Role: string(access.RoleClient)}))
	}
	body := `{"model":"m","max_tokens":2,"prompt":"` + strings.Repeat("How far is it? ", 1000) + `"}`
	var r api.DecisionRequest
	if err := client.HashBody(&r, []byte(body)); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if got := p.proxied("/v1/completions", body, "Authorization", key); got.cached != 0 {
			t.Errorf("what another sent is known: %+v", got)
		}
		if got := p.chosen(r, "Authorization", key); got.cached == 0 {
			t.Errorf("what the caller sent by the data plane is not known to the decision API: %+v", got)
		}
	}
}

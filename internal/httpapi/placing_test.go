package httpapi_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/mockhead"
	"headway/internal/policy"
	"headway/internal/routing"
)

// policy puts a document in YAML into force.
func (p *plane) policy(document string) {
	p.Helper()
	next, faults := policy.Parse([]byte(document), "yaml")
	if len(faults) > 0 {
		p.Fatal(faults)
	}
	if _, err := p.router.Apply(p.Context(), routing.Change{Make: routing.To(next), Expect: routing.AnyRevision, Source: policy.SourceFile}); err != nil {
		p.Fatal(err)
	}
}

func TestHintsObeyThePolicy(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	hints := map[string]string{
		"X-Headway-Region": "us", "X-Headway-Region-Mode": "require", "X-Headway-Strategy": "random", "X-Headway-Session": "s",
	}
	for name, value := range hints {
		if a := p.answer(chatPath, chatBody, name, value, "X-Headway-Region", "us"); a.StatusCode != http.StatusOK {
			t.Errorf("by the default policy %s is answered with %d %s", name, a.StatusCode, a.body)
		}
	}
	p.policy("default_strategy: least_loaded")
	for name, value := range hints {
		header := []string{name, value}
		a := p.answer(chatPath, chatBody, header...)
		if a.StatusCode != http.StatusForbidden || !bytes.Contains(a.body, []byte(`"code":"override_not_allowed"`)) ||
			!bytes.Contains(bytes.ToLower(a.body), bytes.ToLower([]byte(name))) {
			t.Errorf("%s is answered with %d %s", name, a.StatusCode, a.body)
		}
	}
	if a := p.answer(chatPath, chatBody, "X-Headway-Region", ""); a.StatusCode != http.StatusOK {
		t.Errorf("an empty hint is answered with %d %s", a.StatusCode, a.body)
	}
	// Decisions name a region and a session as ever.
	p.decide(`{"model_type":"m","region":"us","session_key":"s"}`)
}

// What a caller asks for wrongly, and a head that is full, say nothing against the
// head, however often.
func TestPitfallP12AnswersOf4xxDoNotBlameTheHead(t *testing.T) {
	for _, status := range []int{400, 404, 413, 422, 429, 501} {
		p := newPlane(t)
		var heads []*mockhead.Head
		for _, id := range []string{"a", "b"} {
			heads = append(heads, p.start(id))
			if _, err := heads[len(heads)-1].Inject(mockhead.Fault{Kind: mockhead.Status, Status: status}); err != nil {
				t.Fatal(err)
			}
		}
		for range 30 {
			a := p.answer(chatPath, chatBody)
			t.Log(status, a.StatusCode, string(a.body))
			if a.StatusCode != status {
				t.Fatalf("%d is answered with %d %s", status, a.StatusCode, a.body)
			}
		}
		p.settled()
		if n := p.fleet.Snapshot().Pools["m"].All.Routable(); n != 2 {
			t.Errorf("after 30 answers of %d, %d of 2 heads take requests", status, n)
		}
		if sent := heads[0].Count() + heads[1].Count(); status != http.StatusTooManyRequests && sent != 30 {
			t.Errorf("30 requests answered with %d were sent %d times", status, sent)
		}
	}
}

// A head that is full, or that says for how long it cannot serve, gets no new
// requests meanwhile: another one has room.
func TestPitfallP24AHeadsRetryAfterKeepsRequestsAway(t *testing.T) {
	for _, status := range []int{429, 503} {
		p := newPlane(t)
		full := p.start("full")
		if _, err := full.Inject(mockhead.Fault{Kind: mockhead.Status, Status: status, RetryAfter: "3600"}); err != nil {
			t.Fatal(err)
		}
		p.start("free")
		for range 30 {
			if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK {
				t.Fatalf("%d: answered with %d %s", status, a.StatusCode, a.body)
			}
		}
		if n := full.Count(); n != 1 {
			t.Errorf("%d: the head that named an hour got %d requests", status, n)
		}
	}
}

// A fallback is named to its head by its own name, and to the caller by the name
// that it asked for; a header says what answered.
func TestAFallbackAnswersUnderTheNameThatWasAskedFor(t *testing.T) {
	p := newPlane(t)
	small := p.start("small", func(o *mockhead.Options) { o.Models = []string{"small"} })
	p.policy("default_strategy: least_loaded\naliases: {alias: m}\nfallbacks: [{match: {model_type: m}, to: [{model_type: small}]}]")
	if _, err := p.fleet.Register(t.Context(), fleet.Spec{ID: "small", Endpoint: small.URL(), ModelTypes: []string{"small"}, Region: "us"},
		&fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()}); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{chatBody, streamBody} {
		a := p.answer(chatPath, strings.Replace(body, `"m"`, `"alias"`, 1))
		if a.StatusCode != http.StatusOK || !bytes.Contains(a.body, []byte(`"model":"alias"`)) || bytes.Contains(a.body, []byte(`"small"`)) {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		if v := a.Header.Get("X-Headway-Fallback"); v != "small;region=us;reason=no_heads" {
			t.Errorf("the fallback is said as %q", v)
		}
		d := into[api.RecentDecision](p.world, p.must(http.StatusOK, http.MethodGet, "/api/v1/decisions/"+a.Header.Get("X-Headway-Decision-Id"), ""))
		if d.ModelType != "small" || d.Fallback == nil || *d.Fallback != (api.Fallback{ModelType: "m", Reason: "no_heads"}) {
			t.Errorf("the decision is %+v", d)
		}
	}
	// The decision API falls back as well.
	if d := p.decide(`{"model_type":"m"}`); d.Head.ID != "small" || d.ModelType != "small" || d.Fallback == nil {
		t.Errorf("decided on %+v", d)
	}
}

package httpapi_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"headway/internal/access"
	"headway/internal/fleet"
	"headway/internal/registry"
)

// A hint that is not known does nothing, so it is refused; what answers have may come
// back.
func TestAHintWithATypingErrorIsRefused(t *testing.T) {
	p := newPlane(t)
	head := p.start("a")
	for name, want := range map[string]string{
		"x-headway-sesion":        "x-headway-sesion: no hint has this name; did you mean x-headway-session?",
		"X-HEADWAY-REGION_MODE":   "x-headway-region_mode: no hint has this name; did you mean x-headway-region-mode?",
		"x-headway-regions":       "x-headway-regions: no hint has this name; did you mean x-headway-region?",
		"x-headway-priorty":       "x-headway-priorty: no hint has this name; did you mean x-headway-priority?",
		"x-headway-model":         "x-headway-model: no hint has this name; the hints are x-headway-region, x-headway-region-mode, x-headway-strategy, x-headway-session, x-headway-priority.",
		"x-headway-":              "x-headway-: no hint has this name; the hints are x-headway-region, x-headway-region-mode, x-headway-strategy, x-headway-session, x-headway-priority.",
		"x-headway-decision-id":   "",
		"x-headway-head":          "",
		"x-headway-attempts":      "",
		"x-headway-overhead-ms":   "",
		"x-headway-queue-ms":      "",
		"x-headway-fallback":      "",
		"x-headwayregion":         "",
		"x-custom-headway-sesion": "",
	} {
		for _, path := range []string{chatPath, "/v1/messages", "/heads/m/v1/chat/completions"} {
			before := len(head.Received())
			a := p.answer(path, chatBody, name, "1")
			if want == "" {
				if a.StatusCode != http.StatusOK {
					t.Errorf("%s at %s: %d %s", name, path, a.StatusCode, a.body)
				}
				continue
			}
			_, code, message := errorOf(t, a)
			if a.StatusCode != http.StatusBadRequest || message != want || path == chatPath && code != "unknown_parameter" || len(head.Received()) != before {
				t.Errorf("%s at %s: %d %s %q\n want %q", name, path, a.StatusCode, code, message, want)
			}
		}
	}
	for header, want := range map[string]string{
		"x-headway-strategy: nope":     `x-headway-strategy: unknown strategy "nope"; `,
		"x-headway-region-mode: often": "x-headway-region-mode: must be prefer or require.",
		"x-headway-priority: 1":        "x-headway-priority: must be high, normal or low.",
	} {
		name, value, _ := strings.Cut(header, ": ")
		a := p.answer(chatPath, chatBody, name, value)
		if _, code, message := errorOf(t, a); a.StatusCode != http.StatusBadRequest || code != "invalid_value" || !strings.HasPrefix(message, want) {
			t.Errorf("%s: %d %s %q", header, a.StatusCode, code, message)
		}
	}
}

// Where a request names its user and no session, the user's requests stay together, if
// callers may name a session.
func TestTheUserIsASessionWhereNoneIsNamed(t *testing.T) {
	p := newPlane(t)
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		p.start(id)
	}
	heads := func(header []string, members ...string) int {
		t.Helper()
		seen := map[string]bool{}
		for i := range 24 {
			a := p.answer(chatPath, strings.Replace(chatBody, "{", "{"+members[i%len(members)]+",", 1), header...)
			if a.StatusCode != http.StatusOK {
				t.Fatalf("%d %s", a.StatusCode, a.body)
			}
			p.settled()
			seen[a.Header.Get("X-Headway-Head")] = true
		}
		return len(seen)
	}
	p.apply(`{"default_strategy":"session_affinity","caller_may":["session"]}`)
	for _, c := range []struct {
		header  []string
		members []string
		one     bool
	}{
		{nil, []string{`"user":"u1"`}, true},
		{nil, []string{`"safety_identifier":"u1"`}, true},
		{nil, []string{`"metadata":{"user_id":"user_1__session_2"}`}, true},
		{nil, []string{`"user":"u1","prompt_cache_key":"k1"`, `"user":"u2","prompt_cache_key":"k1"`, `"user":"u3","session_id":"k1"`}, true},
		{[]string{"x-headway-session", "s"}, []string{`"user":"u1"`, `"user":"u2"`, `"user":"u3"`}, true},
		{nil, []string{`"user":" "`}, false},
		{nil, []string{`"user":7`}, false},
		{nil, []string{`"user":"u1","x":1`, `"user":"u2"`, `"user":"u3"`, `"user":"u4"`, `"user":"u5"`, `"user":"u6"`}, false},
	} {
		if n := heads(c.header, c.members...); (n == 1) != c.one {
			t.Errorf("%v %v: %d heads", c.header, c.members, n)
		}
	}
	p.apply(`{"default_strategy":"session_affinity","caller_may":[]}`)
	if n := heads(nil, `"user":"u1"`); n == 1 {
		t.Error("a user is a session though callers may name none")
	}
	if n := heads(nil, `"prompt_cache_key":"u1"`); n != 1 {
		t.Errorf("a session key is at %d heads", n)
	}
}

// The sentences are those of the decision API, and what the caller has to change is no
// outage.
func TestWithoutAHeadTheReasonIsASentence(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	p.serves(fleet.Spec{ID: "other", Endpoint: "http://127.0.0.1:1", ModelTypes: []string{"m2"}, Region: "eu-north"})
	p.apply(`{"default_strategy":"round_robin","aliases":{"best":"m"},"caller_may":["region","region_mode"],"rules":[{"match":{"model_type":"named"},"strategy":"random"},{"match":{"model_type":"m2"},"strategy":"random","region_mode":"require"}]}`)
	no := func(model string, header ...string) planeAnswer {
		return p.answer(chatPath, `{"model":"`+model+`","messages":[]}`, append([]string{"x-headway-region-mode", "require"}, header...)...)
	}
	region := func(name string) []string { return []string{"x-headway-region", name} }
	for _, c := range []struct {
		model   string
		header  []string
		status  int
		code    string
		message string
	}{
		{"m", region("eu-nroth"), 400, "unknown_region", "No head at all is in the region eu-nroth, and the request is for no other region. Did you mean eu-north? There are heads in eu-north, us."},
		{"best", region("mars"), 400, "unknown_region", "No head at all is in the region mars, and the request is for no other region. There are heads in eu-north, us."},
		{"best", region("eu-north"), 503, "region", "No head of best is in the region eu-north, and the request is for no other region."},
		{"named", region("us"), 503, "no_heads", "No registered head serves named."},
		{"m", nil, 400, "invalid_value", "x-headway-region: is required beside x-headway-region-mode require."},
		{"none", nil, 400, "invalid_value", "x-headway-region: is required beside x-headway-region-mode require."},
		{"none", region("us"), 404, "model_not_found", "The model `none` does not exist or you do not have access to it."},
	} {
		a := no(c.model, c.header...)
		kind, code, message := errorOf(t, a)
		if a.StatusCode != c.status || code != c.code || message != c.message || kind != map[bool]string{true: "server_error", false: "invalid_request_error"}[c.status >= 500] {
			t.Errorf("%s %v: %d %s %s %q\n want %q", c.model, c.header, a.StatusCode, kind, code, message, c.message)
		}
		if (a.Header.Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("%s %v: %d has Retry-After %q", c.model, c.header, a.StatusCode, a.Header.Get("Retry-After"))
		}
	}
	if a := p.answer(chatPath, `{"model":"m2","messages":[]}`); a.StatusCode != http.StatusBadRequest || !strings.Contains(string(a.body), "x-headway-region: is required: the policy serves") {
		t.Errorf("a region is required by the policy: %d %s", a.StatusCode, a.body)
	}
	decision := p.must(http.StatusServiceUnavailable, http.MethodPost, "/api/v1/decisions", `{"model_type":"m","region":"eu-nroth","region_mode":"require"}`)
	if body := string(decision.body); !strings.Contains(body, `"No head at all is in the region eu-nroth, and the request is for no other region. Did you mean eu-north? There are heads in eu-north, us."`) || !strings.Contains(body, `"reason":"unknown_region"`) {
		t.Errorf("the decision API says %s", body)
	}
	drained := fleet.AdminDraining
	if _, err := p.fleet.Patch(t.Context(), "a", registry.Patch{State: &drained}); err != nil {
		t.Fatal(err)
	}
	a := p.answer(chatPath, `{"model":"best","messages":[]}`)
	if _, code, message := errorOf(t, a); a.StatusCode != http.StatusServiceUnavailable || code != "unroutable" || message != "Each head of best that the request may go to is drained, offline or silent, or has not reported yet." {
		t.Errorf("all are drained: %d %s %q", a.StatusCode, code, message)
	}
	keys := p.keysOf()
	a = no("m", append(region("eu-nroth"), "Authorization", "Bearer "+keys[access.RoleClient])...)
	if _, code, message := errorOf(t, a); code != "unknown_region" || message != "No head at all is in the region eu-nroth, and the request is for no other region." {
		t.Errorf("a client is told %s %q", code, message)
	}
}

// A request for a region that neither a head nor the policy knows does not wait for one.
func TestARegionThatIsNotKnownIsNotWaitedFor(t *testing.T) {
	p, g := newGatedPlane(t)
	ctx, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer leave()
	p.begin(ctx, &all)
	<-g.arrived
	p.begin(ctx, &all)
	p.waiting(1)
	if a := p.answer(chatPath, chatBody, "x-headway-region", "mars", "x-headway-region-mode", "require"); a.StatusCode != http.StatusBadRequest {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

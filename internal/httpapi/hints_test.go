package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
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

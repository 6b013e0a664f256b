package httpapi_test

import (
	"net/http"
	"testing"

	"headway/api"
	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/httpapi"
)

// A page of another site, a rebound name and all else that is refused for where
// it comes from or goes to costs its address nothing: any site can have a browser
// send it.
func TestWhatIsRefusedForWhereItComesFromCostsNothing(t *testing.T) {
	fakeTime(t, func(t *testing.T) { // the allowance grows with time, and none passes here
		w, secrets := closed(t)
		const guess = "Bearer hw_000000000000_guess"
		for name, c := range map[string]struct {
			method, target string
			status         int
			headers        []string
		}{
			"another Host":            {"GET", "/api/v1/heads", 421, []string{"Host", "evil.example", "Authorization", guess}},
			"a page's Origin":         {"POST", "/api/v1/decisions", 403, []string{"Origin", "https://evil.example", "Authorization", guess}},
			"a page's image":          {"GET", "/api/v1/heads", 403, []string{"Sec-Fetch-Site", "cross-site", "Authorization", guess}},
			"another port's page":     {"GET", "/api/v1/heads", 403, []string{"Sec-Fetch-Site", "same-site", "Authorization", guess}},
			"an image, its key":       {"GET", "/api/v1/heads?token=x", 400, []string{"Sec-Fetch-Site", "cross-site"}},
			"an old browser's image":  {"GET", "/livez?token=x", 400, nil},
			"a rebound name, its key": {"GET", "/livez?token=x", 400, []string{"Host", "evil.example"}},
			"a key in the path":       {"GET", "/x/hwlocal_x", 400, nil},
			"another path":            {"GET", "/nowhere", 404, []string{"Authorization", guess}},
			"another method":          {"PUT", "/api/v1/heads", 405, []string{"Authorization", guess}},
			"an open route":           {"GET", "/livez", 200, []string{"Authorization", guess}},
			"a WebSocket of a page":   {"GET", "/api/v1/ws", 403, []string{"Origin", "https://evil.example", "Authorization", guess}},
			"no credential":           {"GET", "/api/v1/heads", 401, nil},
			"a form's password":       {"GET", "/api/v1/heads", 401, []string{"Authorization", "Basic eDp5"}},
		} {
			for range 600 { // five seconds' worth are 500
				if a := w.do(c.method, c.target, "", c.headers...); a.status != c.status {
					t.Fatalf("%s: %d %s; want %d", name, a.status, a.body, c.status)
				}
			}
		}
		for n := range 400 {
			if a := w.do("GET", "/api/v1/heads", "", "Authorization", guess); a.status != http.StatusUnauthorized {
				t.Fatalf("guess %d: %d; want the whole allowance there", n, a.status)
			}
		}
		for range 600 {
			w.do("GET", "/api/v1/heads", "", "Authorization", guess)
		}
		w.problem(http.StatusTooManyRequests, api.CodeRateLimited, w.do("GET", "/api/v1/heads", "", "Authorization", guess))
		w.must(http.StatusOK, "GET", "/api/v1/heads", "", "Authorization", "Bearer "+secrets[access.RoleViewer])
		w.must(http.StatusUnauthorized, "GET", "/api/v1/heads", "")
	})
}

// Tokens that cannot be checked are no failure of who sends them, however many
// come, and are recorded as no attempt.
func TestAnIssuerThatIsAwayLocksNoCallerOut(t *testing.T) {
	w := newWorld(t, issuerAway)
	key := w.key(w.admin(), access.Request{Name: "first", Role: "admin"})
	w.recorded.take()
	for range 100 {
		a := w.do("GET", "/api/v1/heads", "", "Authorization", "Bearer "+someToken)
		w.problem(http.StatusServiceUnavailable, api.CodeIssuerUnavailable, a)
		if a.header.Get("Retry-After") != "5" {
			t.Fatalf("Retry-After %q", a.header.Get("Retry-After"))
		}
	}
	w.must(http.StatusOK, "GET", "/api/v1/heads", "", "Authorization", "Bearer "+key)
	if entries := w.recorded.take(); len(entries) != 0 {
		t.Errorf("recorded: %+v", entries)
	}
}

// A subject that others choose is not taken for a key or the local user.
func TestAuthorsOfPoliciesDiffer(t *testing.T) {
	for want, actor := range map[string]audit.Actor{
		"0ae067832ab2":        {Type: "key", ID: "0ae067832ab2"},
		"local":               {Type: "local", ID: "local"},
		"anonymous":           {Type: "anonymous"},
		"jwt:local":           {Type: "jwt", ID: "local"},
		"jwt:0ae067832ab2":    {Type: "jwt", ID: "0ae067832ab2"},
		"certificate:ops.lan": {Type: "certificate", ID: "ops.lan"},
	} {
		r := newRequest(t, "PUT", "/api/v1/policy", "")
		if got := httpapi.Author(r.WithContext(audit.WithIdentity(r.Context(), &audit.Identity{Actor: actor}))); got != want {
			t.Errorf("%+v is %q; want %q", actor, got, want)
		}
	}
}

package httpapi_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/api"
	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/httpapi"
)

// accessProblems brings about the problems of callers that are refused. It
// comes last: the service is closed afterwards.
func (w *world) accessProblems(want func(int, string, *http.Request, *answer) api.Problem) {
	w.Helper()
	admin := w.key(w.admin(), access.Request{Name: "admin", Role: "admin"})
	viewer := w.key(w.admin(), access.Request{Name: "viewer", Role: "viewer"})
	ask := func(status int, code, method, target string, headers ...string) *answer {
		w.Helper()
		r := newRequest(w, method, target, "", headers...)
		a := w.ask(r)
		want(status, code, r, a)
		return a
	}
	if a := ask(401, api.CodeUnauthenticated, "GET", "/api/v1/heads"); a.header.Get("WWW-Authenticate") != `Bearer realm="headway"` {
		w.Errorf("WWW-Authenticate %q", a.header.Get("WWW-Authenticate"))
	}
	away := newWorld(w.TB, issuerAway)
	r := newRequest(w, "GET", "/api/v1/heads", "", "Authorization", "Bearer "+someToken)
	want(503, api.CodeIssuerUnavailable, r, away.ask(r))
	ask(403, api.CodeForbidden, "DELETE", "/api/v1/heads/a", "Authorization", "Bearer "+viewer)
	ask(404, api.CodeKeyNotFound, "DELETE", "/api/v1/keys/absent", "Authorization", "Bearer "+admin)
	ask(409, api.CodeLastAdmin, "DELETE", "/api/v1/keys/"+strings.Split(admin, "_")[1], "Authorization", "Bearer "+admin)
	w.still.Store(new(time.Now())) // what is allowed grows with time
	for range 1000 {               // guesses of one address
		a := w.do("GET", "/api/v1/heads", "", "Authorization", "Bearer hw_000000000000_guess")
		if a.status == 429 {
			break
		}
	}
	if a := ask(429, api.CodeRateLimited, "GET", "/api/v1/heads", "Authorization", "Bearer hw_000000000000_guess"); a.header.Get("Retry-After") == "" {
		w.Error("429 without Retry-After")
	}
}

// someToken is a signed token whose issuer has to be asked for its key.
const someToken = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.e30.AAAA"

// issuerAway has the service trust an issuer that does not answer.
func issuerAway(o *httpapi.Options) {
	issuer, err := access.NewOIDC(access.OIDCOptions{
		Issuer: "https://issuer.invalid", Audience: "headway", RolesClaim: "roles", Now: time.Now,
		Client: &http.Client{Transport: unreachable{}},
	})
	if err != nil {
		panic(err)
	}
	if o.Guard, err = access.New(access.Options{Keys: o.Keys, Metrics: prometheus.NewRegistry(), Now: time.Now, OIDC: issuer, Failures: 1}); err != nil {
		panic(err)
	}
}

type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no route to host")
}

// admin may do all.
func (w *world) admin() *access.Principal {
	return &access.Principal{Type: "local", ID: "local", Role: access.RoleAdmin}
}

// key makes a key and returns its secret.
func (w *world) key(by *access.Principal, r access.Request) string {
	w.Helper()
	_, secret, err := w.keys.Create(context.WithoutCancel(w.Context()), by, r)
	if err != nil {
		w.Fatalf("%+v: %v", r, err)
	}
	return secret
}

// whole has the service serve what other rooms have, too.
func whole(o *httpapi.Options) {
	served := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	o.Monitor, o.Console = served, served
}

// closed is a service that asks for keys, with one of each role.
func closed(t testing.TB) (w *world, secrets map[access.Role]string) {
	w = newWorld(t, whole)
	w.register("gpu-1")
	secrets = map[access.Role]string{}
	for _, role := range []access.Role{access.RoleAdmin, access.RoleOperator, access.RoleViewer, access.RoleClient, access.RoleHead} {
		r := access.Request{Name: string(role), Role: string(role)}
		if role == access.RoleHead {
			r.Heads, r.Regions = []string{"gpu-*"}, []string{"eu-*"}
		}
		secrets[role] = w.key(w.admin(), r)
	}
	return w, secrets
}

// needs is what each route must want. A route that is not here must not be
// there.
var needs = map[string]access.Permission{
	"POST /api/v1/heads":                      access.BeHead,
	"GET /api/v1/heads":                       access.Read,
	"GET /api/v1/heads/{id}":                  access.Read,
	"PATCH /api/v1/heads/{id}":                access.Operate,
	"POST /api/v1/heads/{id}/drain-rehearsal": access.Operate,
	"DELETE /api/v1/heads/{id}":               access.BeHead,
	"PUT /api/v1/heads/{id}/status":           access.BeHead,
	"DELETE /api/v1/heads/{id}/ejection":      access.Operate,

	"POST /api/v1/decisions":               access.Decide,
	"GET /api/v1/decisions":                access.Read,
	"GET /api/v1/decisions/{id}":           access.Read,
	"POST /api/v1/decisions/{id}/progress": access.Decide,
	"POST /api/v1/decisions/{id}/outcome":  access.Decide,
	"GET /api/v1/decision-log":             access.Read,
	"GET /api/v1/strategies":               access.Read,

	"GET /api/v1/policy":                        access.Read,
	"PUT /api/v1/policy":                        access.Admin,
	"PATCH /api/v1/policy":                      access.Admin,
	"POST /api/v1/policy/validate":              access.Read,
	"GET /api/v1/policy/revisions":              access.Read,
	"GET /api/v1/policy/revisions/{n}":          access.Read,
	"POST /api/v1/policy/revisions/{n}/restore": access.Admin,

	"GET /api/v1/keys":         access.Admin,
	"GET /api/v1/state/export": access.Admin,
	"GET /api/v1/state/check":  access.Admin,
	"POST /api/v1/keys":        access.Admin,
	"PATCH /api/v1/keys/{id}":  access.Admin,
	"DELETE /api/v1/keys/{id}": access.Admin,
	"GET /api/v1/audit":        access.Read,

	"GET /api/v1/queue/dead-letters":            access.Read,
	"GET /api/v1/queue/dead-letters/{n}":        access.Read,
	"POST /api/v1/queue/dead-letters/{n}/retry": access.Operate,
	"DELETE /api/v1/queue/dead-letters/{n}":     access.Operate,
	"GET /api/v1/events":                        access.Read,
	"GET /api/v1/ws":                            access.Open, // each message is for those who may; live_test.go
	"GET /livez":                                access.Open,
	"GET /readyz":                               access.Open,
	"GET /metrics":                              access.Open,
	"GET /openapi.json":                         access.Open,
	"GET /":                                     access.Open,
	"GET /prometheus/":                          access.Read,
	"POST /prometheus/":                         access.Read,
	"GET /console":                              access.Open, // what it shows is asked for elsewhere
	"GET /console/":                             access.Open,
}

// may is the table of docs/access.md: who has each permission; "" is a caller
// without a key.
var may = map[access.Permission][]access.Role{
	access.Read:    {access.RoleViewer, access.RoleOperator, access.RoleAdmin},
	access.Operate: {access.RoleOperator, access.RoleAdmin},
	access.Decide:  {access.RoleOperator, access.RoleAdmin, access.RoleClient},
	access.BeHead:  {access.RoleOperator, access.RoleAdmin, access.RoleHead},
	access.Admin:   {access.RoleAdmin},
	access.Open:    {access.RoleViewer, access.RoleOperator, access.RoleAdmin, access.RoleHead, access.RoleClient, ""},
}

// concrete is a path of a pattern.
func concrete(pattern string) string {
	return strings.NewReplacer("/heads/{id}", "/heads/gpu-1", "{id}", "x", "{n}", "1").Replace(pattern)
}

// Every route is asked with a key of every role, with none, with one that has
// expired, with one that was revoked, and with one of the admin's whose scopes
// lack what the route needs.
func TestRoutesByRoles(t *testing.T) {
	w, secrets := closed(t)
	secrets[""] = ""
	past := w.admin()
	expired := w.key(past, access.Request{Name: "expired", Role: "admin", ExpiresIn: time.Minute})
	w.later(2 * time.Minute)
	revoked := w.key(w.admin(), access.Request{Name: "revoked", Role: "admin"})
	if err := w.keys.Revoke(t.Context(), strings.Split(revoked, "_")[1]); err != nil {
		t.Fatal(err)
	}
	narrow := map[access.Permission]string{}
	for _, scope := range access.Permissions() {
		narrow[scope] = w.key(w.admin(), access.Request{Name: "narrow", Role: "admin", Scopes: []string{string(scope)}})
	}
	ask := func(o httpapi.Operation, secret string) int {
		headers := []string{}
		if secret != "" {
			headers = []string{"Authorization", "Bearer " + secret}
		}
		return w.do(o.Method, concrete(o.Pattern), "", headers...).status
	}
	seen := 0
	for _, o := range w.server.Operations() {
		name := o.Method + " " + o.Pattern
		want, known := needs[name]
		if !known {
			t.Errorf("%s is in no line of the table", name)
			continue
		}
		seen++
		own := access.Permission("") // is enough for what is one's own; of others' there is nothing to see
		if name == "GET /api/v1/decisions/{id}" {
			own = access.Decide
		}
		const deletes = "DELETE /api/v1/heads/{id}" // would take the head away from the others
		for role, secret := range secrets {
			in := slices.Contains(may[want], role) || slices.Contains(may[own], role)
			if in && name == deletes {
				continue
			}
			status, answer := ask(o, secret), "403"
			switch {
			case in:
				answer = "admitted"
			case role == "":
				answer = "401"
			}
			if got := entered(status); got != answer {
				t.Errorf("%s as %q: %d; want to be %s", name, role, status, answer)
			}
		}
		for is, secret := range map[string]string{"expired": expired, "revoked": revoked, "unknown": "hw_000000000000_x"} {
			status, answer := ask(o, secret), "401"
			if want == access.Open && name != "GET /api/v1/ws" {
				answer = "admitted"
			}
			if entered(status) != answer {
				t.Errorf("%s with an %s key: %d; want %s", name, is, status, answer)
			}
		}
		if want == access.Open {
			continue
		}
		for _, scope := range access.Permissions() {
			status, answer := ask(o, narrow[scope]), "403"
			if scope == want || scope == own {
				answer = "admitted"
			}
			if got := entered(status); got != answer && name != deletes {
				t.Errorf("%s with an admin's key narrowed to %s: %d; want to be %s", name, scope, status, answer)
			}
		}
	}
	if seen != len(needs) {
		t.Errorf("%d routes, and %d in the table", seen, len(needs))
	}
}

// A route that says nothing about who may use it, or something that no caller
// knows, keeps the service from starting.
func TestARouteWithoutAPermissionDoesNotStart(t *testing.T) {
	w := newWorld(t, whole)
	for _, needs := range []access.Permission{"", "reed", "Admin"} {
		if err := w.server.Mount(needs); err == nil || !strings.Contains(err.Error(), "GET /beside declares no permission") {
			t.Errorf("a route that needs %q: %v; want a refusal", needs, err)
		}
	}
	for _, needs := range append(access.Permissions(), access.Open) {
		if err := w.server.Mount(needs); err != nil {
			t.Errorf("a route that needs %q: %v", needs, err)
		}
	}
}

// A route may bound its body and write its errors otherwise than the rest.
func TestARouteHasItsOwnFormAndLimit(t *testing.T) {
	w := newWorld(t)
	if err := w.server.MountReader(4); err != nil {
		t.Fatal(err)
	}
	if a := w.do("POST", "/beside", "1234"); a.status != http.StatusOK {
		t.Errorf("a body within the limit: %d %s", a.status, a.body)
	}
	if a := w.do("POST", "/beside", "12345"); a.status != http.StatusRequestEntityTooLarge || string(a.body) != api.CodeTooLarge {
		t.Errorf("a body beyond the limit: %d %s", a.status, a.body)
	}
}

// entered says whether the caller was admitted; what came of it is another
// matter.
func entered(status int) string {
	switch status {
	case 401, 403:
		return fmt.Sprint(status)
	}
	return "admitted"
}

// A head speaks for itself, where its key says, and for no other.
func TestAHeadsKeyNamesItsIdsAndRegions(t *testing.T) {
	w, secrets := closed(t)
	as := []string{"Authorization", "Bearer " + secrets[access.RoleHead]}
	in := func(id, region string) string {
		return strings.Replace(headBody(id), "eu-west", region, 1)
	}
	w.must(201, "POST", "/api/v1/heads", in("gpu-2", "eu-north"), as...)
	w.must(403, "POST", "/api/v1/heads", in("cpu-1", "eu-north"), as...)
	w.must(403, "POST", "/api/v1/heads", in("gpu-3", "us-east"), as...)
	admin := []string{"Authorization", "Bearer " + secrets[access.RoleAdmin]}
	w.must(201, "POST", "/api/v1/heads", in("gpu-far", "us-east"), admin...)
	w.must(201, "POST", "/api/v1/heads", in("cpu-1", "eu-north"), admin...)
	for _, id := range []string{"cpu-1", "gpu-far", "absent"} {
		w.must(403, "PUT", "/api/v1/heads/"+id+"/status", `{"epoch":1,"status":"offline"}`, as...)
		w.must(403, "DELETE", "/api/v1/heads/"+id, "", as...)
	}
	// A head that is known elsewhere cannot be moved to a region of the key.
	w.must(403, "POST", "/api/v1/heads", in("gpu-far", "eu-north"), as...)
	w.must(200, "POST", "/api/v1/heads", in("gpu-2", "eu-west"), as...)
	w.must(204, "DELETE", "/api/v1/heads/gpu-2", "", as...)
}

// Each fault of a credential has one clear answer that does not
// repeat it, and nothing is counted as anything else.
func TestCredentialsThatAreNotGood(t *testing.T) {
	w, secrets := closed(t)
	good := secrets[access.RoleAdmin]
	for name, c := range map[string]struct {
		target  string
		headers []string
		detail  string
	}{
		"none":               {"/api/v1/heads", nil, "needs a key"},
		"another scheme":     {"/api/v1/heads", []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("a:b"))}, "not of the form"},
		"no token":           {"/api/v1/heads", []string{"Authorization", "Bearer "}, "not of the form"},
		"a space in it":      {"/api/v1/heads", []string{"Authorization", "Bearer a b"}, "not of the form"},
		"a new line":         {"/api/v1/heads", []string{"Authorization", "Bearer a\nb"}, "not of the form"},
		"too long":           {"/api/v1/heads", []string{"Authorization", "Bearer " + strings.Repeat("a", 13<<10)}, "not of the form"},
		"twice the same":     {"/api/v1/heads", []string{"Authorization", "Bearer " + good, "Authorization", "Bearer " + good}, "more than one"},
		"two headers":        {"/api/v1/heads", []string{"Authorization", "Bearer " + good, "X-Api-Key", good}, "more than one"},
		"another header":     {"/api/v1/heads", []string{"X-Api-Key", good}, "another header"},
		"unknown id":         {"/api/v1/heads", []string{"Authorization", "Bearer hw_000000000000_" + strings.SplitN(good, "_", 3)[2]}, "not known"},
		"one character less": {"/api/v1/heads", []string{"Authorization", "Bearer " + good[:len(good)-1]}, "not known"},
		"one character more": {"/api/v1/heads", []string{"Authorization", "Bearer " + good + "A"}, "not known"},
		"in capitals":        {"/api/v1/heads", []string{"Authorization", "Bearer " + strings.ToUpper(good)}, "not known"},
		"a token unsigned":   {"/api/v1/heads", []string{"Authorization", "Bearer eyJhbGciOiJub25lIn0.e30."}, "not known"},
	} {
		a := w.do("GET", c.target, "", c.headers...)
		p := w.problem(401, api.CodeUnauthenticated, a)
		if !strings.Contains(p.Detail, c.detail) {
			t.Errorf("%s: got %q; want %q", name, p.Detail, c.detail)
		}
		if strings.Contains(string(a.body), strings.SplitN(good, "_", 3)[2]) {
			t.Errorf("%s: the answer repeats the secret: %s", name, a.body)
		}
	}
	if log := w.log.String(); strings.Contains(log, strings.SplitN(good, "_", 3)[2]) || strings.Contains(log, "ERROR") {
		t.Errorf("logged: %s", log)
	}
	w.must(200, "GET", "/api/v1/heads", "", "Authorization", "bearer "+good) // schemes have no case
}

// A key anywhere in a URL is refused on every route, also if it is right, and is
// repeated nowhere.
func TestAKeyInTheURLIsRefusedAndNotRepeated(t *testing.T) {
	w, secrets := closed(t)
	const local = "hwlocal_ABCDEFGHIJKLMNOPQRSTUVWXY" // one character less
	good := secrets[access.RoleAdmin]
	encoded := ""
	for i := range len(good) {
		encoded += fmt.Sprintf("%%%02X", good[i])
	}
	var targets []string
	for i, key := range []string{good, local, encoded, strings.Replace(good, "_", "%5f", 1)} {
		for _, o := range w.server.Operations() {
			path := concrete(o.Pattern)
			if i > 1 && o.Method != http.MethodPost {
				continue
			}
			targets = append(targets, path+"?x="+key, path+"?"+key, path+"?a=1&"+key+"=1", path+"?%zz&x="+key, path+"?x=%&y="+key)
		}
		targets = append(targets,
			"/api/v1/heads/"+key, "/api/v1/heads/x"+key, "/api/v1/heads/"+key+"/status", "/"+key, "/no/such/x"+key+"/path", "/api/v1/heads?cursor=a"+key,
			"/console/"+key, "/api/v1/decisions/"+key+"/outcome", "/livez/../"+key)
	}
	for _, name := range []string{"api_key", "apikey", "access_token", "token", "key", "Authorization", "%74oken", "x-api-key", "API-KEY", "X_Api_Key", "x-access-token", "id_token"} {
		targets = append(targets, "/livez?"+name+"=of-another", "/api/v1/heads?a=1&"+name+"=of-another")
	}
	secret := strings.SplitN(good, "_", 3)[2]
	w.recorded.take()
	for _, target := range targets {
		for _, headers := range [][]string{nil, {"Authorization", "Bearer " + good}, {"Host", "evil.example"}} {
			for _, method := range []string{"GET", "POST"} {
				a := w.do(method, target, "", headers...)
				p := w.problem(http.StatusBadRequest, api.CodeKeyInURL, a)
				if text := fmt.Sprint(a.header) + string(a.body); strings.Contains(text, secret) || strings.Contains(text, local) || strings.Contains(text, encoded) || p.Instance != "" {
					t.Fatalf("%s %s: the answer repeats it: %s", method, target, text)
				}
			}
		}
	}
	for _, e := range w.recorded.take() {
		if text := fmt.Sprintf("%+v", e); e.Outcome != audit.Denied || strings.Contains(text, secret) || strings.Contains(text, local) {
			t.Fatalf("recorded: %s", text)
		}
	}
	if log := w.log.String(); strings.Contains(log, secret) || strings.Contains(log, local) {
		t.Errorf("logged: %s", log)
	}
	if !strings.Contains(w.scrape(), `headway_auth_failures_total{reason="in_url"}`) {
		t.Error("it is not counted")
	}
	// What only looks a little like one is no key: a head may be called so.
	admin := []string{"Authorization", "Bearer " + good}
	for _, id := range []string{"hw_1", "gpu-hw_a100", "hw_" + strings.Repeat("a", 12), "hw_abcdefabcdeg_x", "hw"} {
		w.must(http.StatusCreated, "POST", "/api/v1/heads", headBody(id), admin...)
		w.must(http.StatusOK, "GET", "/api/v1/heads/"+id, "", admin...)
	}
}

// A path that means another after cleaning is not the route that it looks like.
func TestNoPathWalksAroundARoute(t *testing.T) {
	w, secrets := closed(t)
	viewer := []string{"Authorization", "Bearer " + secrets[access.RoleViewer]}
	for _, target := range []string{
		"/livez/../api/v1/keys", "/api/v1/heads/../keys", "/api/v1/./keys", "//api/v1/keys", "/api/v1/keys/",
		"/api/v1/heads/%2e%2e/keys", "/api/v1/heads/..%2fkeys", "/console/../api/v1/keys", "/API/v1/keys", "/api/v1/keys;x",
		"/livez%2f..%2fapi%2fv1%2fkeys",
	} {
		for _, headers := range [][]string{nil, viewer} {
			if a := w.do("GET", target, "", headers...); a.status == 200 || strings.Contains(string(a.body), `"role"`) {
				t.Errorf("GET %s: %d %s", target, a.status, a.body)
			}
		}
	}
	for _, h := range []string{"X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Forwarded-Prefix"} {
		if a := w.do("GET", "/livez", "", h, "/api/v1/keys"); strings.Contains(string(a.body), "role") {
			t.Errorf("%s is trusted: %s", h, a.body)
		}
	}
	if a := w.do("POST", "/api/v1/heads", headBody("x"), append(viewer, "X-Http-Method-Override", "GET")...); a.status != 403 {
		t.Errorf("X-HTTP-Method-Override is trusted: %d", a.status)
	}
}

// sensitive are requests for every operation that the audit trail must record
// of, each of which succeeds in the order that it stands here.
var sensitive = []struct{ id, action, method, target, body string }{
	{"registerHead", "head.register", "POST", "/api/v1/heads", headBody("gpu-9")},
	{"endEjection", "head.reinstate", "DELETE", "/api/v1/heads/gpu-9/ejection", ""},
	{"patchHead", "head.patch", "PATCH", "/api/v1/heads/gpu-9", `{"admin_state":"draining"}`},
	{"deleteHead", "head.deregister", "DELETE", "/api/v1/heads/gpu-9", ""},
	{"putPolicy", "policy.put", "PUT", "/api/v1/policy", `{"default_strategy":"random"}`},
	{"patchPolicy", "policy.patch", "PATCH", "/api/v1/policy", `{"default_strategy":"round_robin"}`},
	{"restorePolicy", "policy.restore", "POST", "/api/v1/policy/revisions/1/restore", ""},
	{"retryDeadLetter", "queue.retry", "POST", "/api/v1/queue/dead-letters/1/retry", ""},
	{"purgeDeadLetter", "queue.purge", "DELETE", "/api/v1/queue/dead-letters/2", ""},
	{"exportState", "state.export", "GET", "/api/v1/state/export", ""},
	{"checkState", "state.check", "GET", "/api/v1/state/check", ""},
	{"createKey", "key.create", "POST", "/api/v1/keys", `{"name":"x","role":"viewer"}`},
	{"patchKey", "key.patch", "PATCH", "/api/v1/keys/{last}", `{"weight":2}`},
	{"revokeKey", "key.revoke", "DELETE", "/api/v1/keys/{last}", ""},
}

// notSensitive are the operations that are no reads and are not recorded: they are the
// traffic itself, or try what would be and change nothing.
var notSensitive = []string{"reportStatus", "decide", "reportProgress", "reportOutcome", "validatePolicy", "rehearseDrain"}

// Each sensitive operation leaves an entry with who did it, from where and to
// what; each that is refused leaves one, too.
func TestEverySensitiveOperationIsRecorded(t *testing.T) {
	w, secrets := closed(t)
	for _, o := range w.server.Operations() {
		listed := slices.ContainsFunc(sensitive, func(s struct{ id, action, method, target, body string }) bool { return s.id == o.ID })
		reads := o.Method == http.MethodGet || o.Pattern == "/prometheus/" // queries may be long
		if !reads && listed == slices.Contains(notSensitive, o.ID) {
			t.Errorf("%s %s: want it either sensitive or not", o.Method, o.Pattern)
		}
	}
	headers := func(secret string) []string {
		h := []string{"If-Match", "*", "User-Agent", "walk/1", "X-Request-Id", "walk-7"}
		if secret != "" {
			h = append(h, "Authorization", "Bearer "+secret)
		}
		return h
	}
	admin := strings.Split(secrets[access.RoleAdmin], "_")[1]
	for _, s := range sensitive {
		target := strings.Replace(s.target, "{last}", w.keys.List()[0].ID, 1)
		if s.id == "endEjection" {
			w.eject("gpu-9")
		}
		w.recorded.take()
		for role, secret := range map[string]string{"": "", "viewer": secrets[access.RoleViewer], "guess": "hw_000000000000_guess"} {
			if a := w.do(s.method, target, s.body, headers(secret)...); a.status != 401 && a.status != 403 {
				t.Fatalf("%s as %q: %d", s.id, role, a.status)
			}
			entries := w.recorded.take()
			if len(entries) != 1 {
				t.Fatalf("%s refused to %q: %d entries; want 1", s.id, role, len(entries))
			}
			e := entries[0]
			if e.Action != s.action || e.Outcome != audit.Denied || e.Category != audit.Auth || e.Reason == "" || e.Source.IP != "127.0.0.1" ||
				e.Source.UserAgent != "walk/1" || e.RequestID != "walk-7" || !strings.HasPrefix(e.Target.ID, s.method+" /api/v1/") ||
				(e.Actor.ID == "") != (role != "viewer") {
				t.Errorf("%s refused to %q is recorded as %+v", s.id, role, e)
			}
		}
		if a := w.do(s.method, target, s.body, headers(secrets[access.RoleAdmin])...); a.status >= 300 {
			t.Fatalf("%s: %d %s", s.id, a.status, a.body)
		}
		entries := w.recorded.take()
		if len(entries) == 0 {
			t.Fatalf("%s left no entry", s.id)
		}
		last := entries[len(entries)-1]
		if last.Action != s.action || last.Outcome != audit.Success || last.Actor.Type != "key" || last.Actor.ID != admin || last.Actor.Via != "http" ||
			last.Source.IP != "127.0.0.1" || last.RequestID != "walk-7" || last.Target.Type == "" {
			t.Errorf("%s is recorded as %+v", s.id, last)
		}
		for _, e := range entries {
			for _, raw := range []json.RawMessage{e.Before, e.After} {
				if strings.Contains(string(raw), "hw_") || strings.Contains(string(raw), "hash") {
					t.Errorf("%s: the trail has a secret: %s", s.id, raw)
				}
			}
		}
	}
}

// What is refused for where it comes from, and what would make a key wider than
// its maker, is recorded as well. It is the journal that bounds how much.
func TestAttemptsFromElsewhereAndAtWiderKeysAreRecorded(t *testing.T) {
	w, secrets := closed(t)
	narrow := w.key(w.admin(), access.Request{Name: "narrow", Role: "admin", Scopes: []string{"admin"}, ExpiresIn: time.Hour})
	as := func(secret string) []string { return []string{"Authorization", "Bearer " + secret} }
	for _, c := range []struct {
		name, method, target, body string
		headers                    []string
		status                     int
		action, reason, actor      string
	}{
		{"a foreign name", "GET", "/openapi.json", "", []string{"Host", "evil.example"}, 421, "access", "Host header", ""},
		{"a foreign name, with a key", "GET", "/api/v1/heads", "", append(as(secrets[access.RoleAdmin]), "Host", "evil.example"), 421, "access", "Host header", ""},
		{"another site's page", "PUT", "/api/v1/policy", "{}", []string{"Origin", "https://evil.example"}, 403, "policy.put", "another site", ""},
		{"a page that reads", "GET", "/metrics", "", []string{"Sec-Fetch-Site", "cross-site"}, 403, "access", "another site", ""},
		{"a WebSocket of a page", "GET", "/api/v1/ws", "", []string{"Origin", "https://evil.example"}, 403, "access", "another site", ""},
		{"a wider key", "POST", "/api/v1/keys", `{"name":"x","role":"operator"}`, as(narrow), 422, "key.create", "can only be made by who may operate", narrow},
		{"a longer key", "POST", "/api/v1/keys", `{"name":"x","role":"admin","scopes":["admin"]}`, as(narrow), 422, "key.create", "cannot outlive", narrow},
		{"a key in the URL", "GET", "/livez?token=x", "", nil, 400, "access", "in the URL", ""},
	} {
		w.recorded.take()
		if a := w.do(c.method, c.target, c.body, c.headers...); a.status != c.status {
			t.Fatalf("%s: %d %s; want %d", c.name, a.status, a.body, c.status)
		}
		entries := w.recorded.take()
		if len(entries) != 1 {
			t.Errorf("%s: %d entries; want 1", c.name, len(entries))
			continue
		}
		e := entries[0]
		actor := ""
		if c.actor != "" {
			actor = strings.Split(c.actor, "_")[1]
		}
		if e.Outcome != audit.Denied || e.Category != audit.Auth || e.Action != c.action || !strings.Contains(e.Reason, c.reason) || e.Actor.ID != actor ||
			e.Source.IP != "127.0.0.1" || e.RequestID == "" || !strings.HasPrefix(e.Target.ID, c.method+" /") || strings.Contains(fmt.Sprint(e), "evil") {
			t.Errorf("%s is recorded as %+v", c.name, e)
		}
	}
	// What is only badly written is no attempt.
	w.recorded.take()
	w.must(400, "POST", "/api/v1/keys", `{`, as(narrow)...)
	for _, bad := range []string{`"role":"admin","what":1`, `"role":"boss"`, `"role":"admin","scopes":["all"]`, `"role":"admin","expires_in_seconds":5`} {
		w.must(422, "POST", "/api/v1/keys", `{"name":"x",`+bad+`}`, as(secrets[access.RoleAdmin])...)
	}
	if entries := w.recorded.take(); len(entries) != 0 {
		t.Errorf("recorded: %+v", entries)
	}
}

// What callers name themselves reaches the trail as text, however it looks
// like.
func TestNoCallerWritesLinesOfItsOwn(t *testing.T) {
	w, _ := closed(t)
	w.recorded.take()
	w.do("PUT", "/api/v1/policy", "{}", "User-Agent", "x\",\"outcome\":\"success\"}\n{\"v\":1", "X-Request-Id", "a\nb", "Traceparent", "00-\n-\n-00")
	entries := w.recorded.take()
	if len(entries) != 1 || entries[0].RequestID == "a\nb" || entries[0].TraceID != "" || len(entries[0].Source.UserAgent) > 256 {
		t.Errorf("recorded: %+v", entries)
	}
}

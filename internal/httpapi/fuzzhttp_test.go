package httpapi_test

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"headway/api"
)

// answersJSON reports whether a call that goes well has an answer, which is JSON.
func answersJSON(method, path string) bool {
	switch path {
	case "/livez", "/readyz", "/openapi.json":
		return method != http.MethodHead
	case "/api/v1/events", "/api/v1/ws":
		return false
	}
	return method != http.MethodHead && strings.HasPrefix(path, "/api/v1/")
}

// FuzzHTTP sends anything anywhere: the answer is one of the table's, a
// problem is whole, a success says something, and no request meets a bug. In a
// target DECISION stands for the id of a decision that there is.
func FuzzHTTP(f *testing.F) {
	shared := newWorld(f)
	shared.register("a")
	decision := shared.decide(`{"model_type":"llama-3.1-8b"}`).DecisionID
	f.Fuzz(func(t *testing.T, method, target, header, body string) {
		w := &world{TB: t, store: shared.store, fleet: shared.fleet, router: shared.router, server: shared.server, metrics: shared.metrics, log: shared.log}
		target = strings.Replace(target, "DECISION", decision, 1)
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") {
			return // net/http answers that itself
		}
		r := newRequest(t, http.MethodGet, "/", body)
		name, content, _ := strings.Cut(header, ": ")
		r.Method, r.URL, r.RequestURI = method, u, target
		r.Header.Add(name, content)
		a := w.ask(r)
		if a.status < 200 || a.status >= 500 && a.status != http.StatusServiceUnavailable {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if a.header.Get("X-Request-Id") == "" {
			t.Fatal("no X-Request-Id")
		}
		kind := a.header.Get("Content-Type")
		if success := a.status == http.StatusOK || a.status == http.StatusCreated; success && answersJSON(method, u.Path) && (len(a.body) == 0 || kind != "application/json") {
			t.Fatalf("%s %s: %d with %q, %q; want JSON", method, target, a.status, kind, a.body)
		}
		switch {
		case a.status >= 400 && kind == "application/problem+json":
			var p api.Problem
			if err := json.Unmarshal(a.body, &p, json.RejectUnknownMembers(true)); err != nil || p.Code == "" || p.Status != a.status || len(a.body) > 64<<10 {
				t.Fatalf("%v in %s", err, a.body)
			}
		case strings.HasPrefix(kind, "application/json"):
			var v any
			if err := json.Unmarshal(a.body, &v); err != nil {
				t.Fatalf("%v in %s", err, a.body)
			}
		case a.status >= 400:
			t.Fatalf("%d with %s: %s", a.status, kind, a.body)
		}
		switch made := a.header.Get("Location"); {
		case a.status != http.StatusCreated:
		case strings.HasPrefix(made, "/api/v1/keys/"): // so that the service stays open
			if err := shared.keys.Revoke(t.Context(), path.Base(made)); err != nil {
				t.Fatal(err)
			}
		default: // so that the fleet does not grow
			w.must(http.StatusNoContent, http.MethodDelete, made, "")
		}
	})
}

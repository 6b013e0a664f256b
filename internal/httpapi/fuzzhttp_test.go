package httpapi_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"headway/api"
)

// FuzzHTTP sends anything anywhere: the answer is one of the table's, a
// problem is whole, and no request meets a bug.
func FuzzHTTP(f *testing.F) {
	shared := newWorld(f)
	shared.register("a")
	shared.decide(`{"model_type":"llama-3.1-8b"}`)
	f.Fuzz(func(t *testing.T, method, target, header, body string) {
		w := &world{TB: t, store: shared.store, fleet: shared.fleet, router: shared.router, server: shared.server, metrics: shared.metrics, log: shared.log}
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
		switch kind := a.header.Get("Content-Type"); {
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
		if a.status == http.StatusCreated { // so that the fleet does not grow
			w.must(http.StatusNoContent, http.MethodDelete, a.header.Get("Location"), "")
		}
	})
}

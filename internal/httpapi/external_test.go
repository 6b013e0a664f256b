package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"headway/api"
	"headway/internal/httpapi"
)

// What an answer says of where it was asked holds for those who came by the
// external URL, whether their proxy leaves its prefix or not.
func TestAnswersNameTheExternalURL(t *testing.T) {
	external, err := url.Parse("https://ops.example/hw/")
	if err != nil {
		t.Fatal(err)
	}
	servers := func(w *world) string {
		t.Helper()
		var document struct{ Servers []struct{ URL string } }
		if err := json.Unmarshal(w.must(http.StatusOK, "GET", "/openapi.json", "").body, &document); err != nil || len(document.Servers) != 1 {
			t.Fatalf("%+v, %v", document, err)
		}
		return document.Servers[0].URL
	}
	w := newWorld(t, func(o *httpapi.Options) { o.External = external })
	proxied := func(path string) *answer {
		r := newRequest(t, "GET", path, "")
		rec := httptest.NewRecorder()
		w.server.Handler().ServeHTTP(rec, r)
		return &answer{status: rec.Code, header: rec.Header(), body: rec.Body.Bytes()}
	}
	for _, path := range []string{"/nope%20x", "/hw/nope%20x"} {
		if p := w.problem(http.StatusNotFound, api.CodeNotFound, proxied(path)); p.Instance != "/hw/nope%20x" {
			t.Errorf("%s is %q", path, p.Instance)
		}
	}
	if p := w.problem(http.StatusBadRequest, api.CodeKeyInURL, proxied("/hw/x?token=hw_0")); p.Instance != "" {
		t.Errorf("a path with a key is repeated: %q", p.Instance)
	}
	if got := servers(w); got != "https://ops.example/hw" {
		t.Errorf("the description names the server %q", got)
	}
	plain := newWorld(t)
	if p := plain.problem(http.StatusNotFound, api.CodeNotFound, plain.do("GET", "/nope", "")); p.Instance != "/nope" {
		t.Errorf("without an external URL: %q", p.Instance)
	}
	if got := servers(plain); got != "http://127.0.0.1:8080" {
		t.Errorf("without an external URL the description names the server %q", got)
	}
}

package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A caller that has left does not keep a place at a head: it gets no answer, and
// its request comes to no head.
func TestACallerThatLeftKeepsNoPlace(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	for name, answer := range map[string]http.ResponseWriter{
		"before it is read": httptest.NewRecorder(),
		"as it is answered": broken{},
	} {
		ctx, leave := context.WithCancel(t.Context())
		if _, fails := answer.(broken); !fails {
			leave()
		}
		r := newRequest(w, http.MethodPost, "/api/v1/decisions", `{"model_type":"llama-3.1-8b"}`).WithContext(ctx)
		func() {
			defer func() { _ = recover() }() // a caller that left gets no answer
			w.server.ServeHTTP(answer, r)
		}()
		leave()
		if n := w.router.Open(); n != 0 {
			t.Errorf("%s: %d places are held", name, n)
		}
	}
	if w.router.Newest() == 0 {
		t.Error("no decision was made")
	}
}

// broken is the answer to a caller whose connection is gone.
type broken struct{}

func (broken) Header() http.Header       { return http.Header{} }
func (broken) WriteHeader(int)           {}
func (broken) Write([]byte) (int, error) { return 0, http.ErrHandlerTimeout }

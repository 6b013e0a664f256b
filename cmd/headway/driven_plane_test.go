package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"headway/internal/mockhead"
)

// plane is what happens in the data plane: heads that answer, break off, fail or are
// full, and a collector that fails now and then.
type plane struct {
	heads     []*mockhead.Head // of planeModels
	collector *httptest.Server
}

// planeModels are the models of the heads. Those of wrong always fail; half of them
// stay in use, so that their requests use the retries up.
var planeModels = []string{"chat", "chat", "busy", "wrong", "wrong", "wrong", "wrong", "wrong", "wrong"}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{}
	var posts atomic.Int64
	p.collector = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if posts.Add(1)%3 == 0 {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(p.collector.Close)
	faults := []mockhead.Fault{
		{Kind: mockhead.Reset, After: 3, Share: 0.2},
		{Kind: mockhead.Status, Status: 500, Share: 0.2},
		{Kind: mockhead.StallHeaders, Seconds: 0.3},
		{Kind: mockhead.Status, Status: 500},
	}
	for i := range planeModels {
		f := faults[min(i, len(faults)-1)]
		h, err := mockhead.Start(t.Context(), mockhead.Options{Models: planeModels[i : i+1], Speed: 100})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Close)
		for _, f := range []mockhead.Fault{{Kind: mockhead.Status, Status: 400, Path: "/v1/embeddings"}, f} {
			if _, err := h.Inject(f); err != nil {
				t.Fatal(err)
			}
		}
		p.heads = append(p.heads, h)
	}
	return p
}

// proxied registers the heads of the data plane and sends it requests.
func (h *happenings) proxied(i int) {
	for n, head := range h.plane.heads {
		places := 100
		if planeModels[n] == "busy" {
			places = 1
		}
		h.renew(fmt.Sprintf("mock-%d", n), head.URL(), planeModels[n], fmt.Sprintf(`,"capacity":{"max_in_flight":%d}`, places))
	}
	h.renew("dead-1", "http://127.0.0.1:9", "dead", "")
	h.renew("dead-2", "http://127.0.0.1:9", "dead", "")
	if i%20 == 0 {
		h.patchPolicy(`{"shadow":["round_robin"],"shadow_share":0.05,"fallbacks":[{"match":{"model_type":"elsewhere"},"to":[{"model_type":"chat"}]}],"hedge":{"after_ms":1,"model_types":["chat"]}}`)
	}
	for _, r := range []struct{ model, prompt, more string }{
		{"chat", promptOf(i), `,"stream":true`},
		{"chat", promptOf(i), ""},
		{"dead", "hello", ""},
		{"wrong", "hello", ""},
		{"wrong", "hello", ""},
		{"elsewhere", "hello", `,"stream":true`},
		{"nobody-has-this", "hello", ""},
	} {
		_, _, _ = h.do("POST", "/v1/chat/completions", `{"model":"`+r.model+`","max_tokens":8,"messages":[{"role":"user","content":"`+r.prompt+`"}]`+r.more+`}`)
	}
	_, _, _ = h.do("POST", "/v1/embeddings", `{"model":"chat","input":"hello"}`)
}

// promptOf is asked twice between registrations, for a head to be expected to have it
// cached. It has one of several lengths, for the service to learn what a token takes.
func promptOf(i int) string {
	return strings.Repeat(fmt.Sprintf("prompt %d ", i), 500+1000*(i&3))
}

// crowd asks for the model whose head has one place.
func (h *happenings) crowd(int) {
	_, _, _ = h.do("POST", "/v1/completions", `{"model":"busy","max_tokens":2,"prompt":"hello"}`)
}

// renew registers a head, and has it report.
func (h *happenings) renew(id, endpoint, model, more string) {
	_, answer, _ := h.do("POST", "/api/v1/heads", fmt.Sprintf(
		`{"id":%q,"endpoint":%q,"model_types":[%q],"region":"eu","status":"active","load":{"in_flight":0}%s}`, id, endpoint, model, more))
	var known struct{ Lease struct{ Epoch uint64 } }
	if json.Unmarshal(answer, &known) == nil {
		_, _, _ = h.do("PUT", "/api/v1/heads/"+id+"/status", fmt.Sprintf(`{"epoch":%d,"status":"active","load":{"in_flight":0}}`, known.Lease.Epoch))
	}
}

// patchPolicy changes the policy at any revision.
func (h *happenings) patchPolicy(patch string) {
	req, err := http.NewRequestWithContext(h.ctx, http.MethodPatch, h.url+"/api/v1/policy", strings.NewReader(patch))
	if err != nil {
		return
	}
	req.Header.Set("If-Match", "*")
	req.Header.Set("Content-Type", "application/merge-patch+json")
	if res, err := h.client.Do(req); err == nil {
		_ = res.Body.Close()
	}
}

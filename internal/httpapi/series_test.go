package httpapi_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// sender sends many requests with little memory of its own.
type sender struct {
	w       *world
	request *http.Request
	url     url.URL
	body    strings.Reader
	answer  answer
}

func newSender(w *world) *sender {
	s := &sender{w: w, request: newRequest(w, http.MethodPost, "/", "{}"), answer: answer{header: http.Header{}}}
	s.request.URL, s.request.Body = &s.url, io.NopCloser(&s.body)
	return s
}

func (s *sender) send(method, path, body string) {
	s.url.Path = path
	s.body.Reset(body)
	s.request.Method, s.request.RequestURI, s.request.ContentLength = method, path, int64(len(body))
	clear(s.answer.header)
	s.answer.status, s.answer.body = 0, s.answer.body[:0]
	s.w.server.ServeHTTP(&s.answer, s.request)
}

func (s *sender) decide(model, region, mode string) {
	s.send(http.MethodPost, "/api/v1/decisions", `{"model_type":"`+model+`","region":"`+region+`","region_mode":"`+mode+`"}`)
}

// A hundred thousand paths, models and regions that are unknown add no series:
// clients must not be able to fill the metrics' store.
func TestRandomPathsModelsAndRegionsAddNoSeries(t *testing.T) {
	w := newWorld(t)
	lease := w.register("a").Lease
	// alive renews the lease, since the state of a head is a label.
	alive := func() {
		w.must(http.StatusOK, http.MethodPut, "/api/v1/heads/a/status", fmt.Sprintf(`{"epoch":%d,"status":"active"}`, lease.Epoch))
	}
	kinds := []func(s *sender, word, other string){
		func(s *sender, word, _ string) { s.send(http.MethodGet, "/"+word, "") },
		func(s *sender, word, _ string) { s.send("X"+word, "/api/v1/"+word+"/heads", "") },
		func(s *sender, word, _ string) { s.send(http.MethodGet, "/api/v1/heads/"+word, "") },
		func(s *sender, word, _ string) {
			s.send(http.MethodPut, "/api/v1/heads/"+word+"/status", `{"epoch":1,"status":"active"}`)
		},
		func(s *sender, model, region string) { s.decide(model, region, "prefer") },
		func(s *sender, model, region string) { s.decide(model, region, "require") },
		func(s *sender, _, region string) { s.decide(llama, region, "prefer") },
		func(s *sender, _, region string) { s.decide(llama, region, "require") },
	}
	first := newSender(w)
	for _, kind := range kinds {
		kind(first, "first", "second") // brings about each status once
	}
	kinds[6](first, "first", "second") // a decision that sees a request in flight
	alive()
	before := w.samples()
	const senders, each = 4, 80_000 / 4 // requests; a quarter of them has two names
	var wait sync.WaitGroup
	for i := range senders {
		s, random := newSender(w), rand.New(rand.NewPCG(uint64(i), 1))
		wait.Go(func() {
			for i := range each {
				kinds[i%len(kinds)](s, "w"+strconv.FormatUint(random.Uint64(), 36), "w"+strconv.FormatUint(random.Uint64(), 36))
			}
		})
	}
	wait.Wait()
	alive()
	after := w.samples()
	if !slices.Equal(after, before) {
		t.Errorf("%d series became %d; new are %.2000q", len(before), len(after), slices.DeleteFunc(slices.Clone(after), func(s string) bool { return slices.Contains(before, s) }))
	}
	if len(before) > 2000 {
		t.Errorf("%d series for one head", len(before))
	}
}

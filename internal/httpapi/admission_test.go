package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/admission"
	"headway/internal/fleet"
	"headway/internal/mockhead"
	"headway/internal/proxy"
	"headway/internal/routing"
)

// gate is a head that answers each request when the test lets it.
type gate struct {
	*httptest.Server
	arrived chan string // x-test of each request
	release chan struct{}
}

const gateAnswer = `{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":400,"completion_tokens":600,"total_tokens":1000}}`

func newGate(t testing.TB) *gate {
	t.Helper()
	g := &gate{arrived: make(chan string, 100), release: make(chan struct{}, 100)}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		g.arrived <- r.Header.Get("X-Test")
		select {
		case <-g.release:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, gateAnswer)
	}))
	t.Cleanup(func() {
		g.CloseClientConnections()
		g.Close()
	})
	return g
}

// newGatedPlane is a data plane with one head of one place, where two may wait.
func newGatedPlane(t testing.TB, change ...func(*admission.Options)) (*plane, *gate) {
	t.Helper()
	g := newGate(t)
	var a *admission.Admission
	p := newPlane(t, func(o *proxy.Options) {
		options := admission.Options{Metrics: o.Metrics, MaxWaiting: 2, MaxWait: time.Hour}
		for _, c := range change {
			c(&options)
		}
		var err error
		if a, err = admission.New(options); err != nil {
			t.Fatal(err)
		}
		o.Admission = a
	})
	p.freed = func(h *fleet.Head) { a.Freed(h.ModelTypes...) }
	p.narrow("a", g.URL, 1)
	return p, g
}

// narrow registers a head with so many places.
func (p *plane) narrow(id, endpoint string, places int64, models ...string) {
	p.Helper()
	if len(models) == 0 {
		models = []string{"m"}
	}
	spec := fleet.Spec{ID: id, Endpoint: endpoint, ModelTypes: models, Region: "us", MaxInFlight: places}
	if _, err := p.fleet.Register(p.Context(), spec, &fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()}); err != nil {
		p.Fatal(err)
	}
}

// begin sends a request in the background.
func (p *plane) begin(ctx context.Context, all *sync.WaitGroup, header ...string) <-chan planeAnswer {
	answers := make(chan planeAnswer, 1)
	all.Go(func() {
		res, err := p.ask(ctx, chatPath, chatBody, header...)
		if err != nil {
			answers <- planeAnswer{err: err}
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		answers <- planeAnswer{res, b, err}
	})
	return answers
}

func (p *plane) waiting(n int) {
	p.Helper()
	p.eventually(fmt.Sprint(n, " requests wait"), func() bool {
		sum := 0
		for line := range strings.Lines(p.scrape()) {
			if rest, ok := strings.CutPrefix(line, "headway_admission_waiting{"); ok {
				v, _ := strconv.Atoi(strings.TrimSpace(rest[strings.Index(rest, "}")+1:]))
				sum += v
			}
		}
		return sum == n
	})
}

// Requests that find no place wait, those of a higher priority before others. One
// too many is refused, and what waited is placed when a place comes free.
func TestRequestsWaitForAPlace(t *testing.T) {
	p, g := newGatedPlane(t)
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all, "X-Test", "first")
	<-g.arrived
	low := p.begin(t.Context(), &all, "X-Test", "low", "X-Headway-Priority", "low")
	p.waiting(1)
	high := p.begin(t.Context(), &all, "X-Test", "high", "X-Headway-Priority", "high")
	p.waiting(2)
	full := p.answer(chatPath, chatBody, "X-Headway-Priority", "low")
	if full.StatusCode != http.StatusServiceUnavailable || !bytes.Contains(full.body, []byte(`"code":"queue_full"`)) || full.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d %s, Retry-After %q", full.StatusCode, full.body, full.Header.Get("Retry-After"))
	}
	var order []string
	for _, answers := range []<-chan planeAnswer{first, high, low} {
		g.release <- struct{}{}
		a := <-answers
		if a.err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("%v %s", a.err, a.body)
		}
		if answers != low {
			order = append(order, <-g.arrived)
		}
		p.queuedFor(a, answers != first)
	}
	if !slices.Equal(order, []string{"high", "low"}) {
		t.Errorf("places went to %v", order)
	}
	p.settled()
	p.waiting(0)
	// The refused one can be read back; none that waited is a failure.
	if d := p.decisionOf(full.Header); d.Failure != routing.FailQueueFull || d.Head != nil || full.Header.Get("X-Headway-Attempts") != "0" {
		t.Errorf("the refused one is %+v: %v", d, full.Header)
	}
	if n, _ := p.sample("headway_decision_failures_total"); n != 1 {
		t.Errorf("%d decisions failed", n)
	}
}

// queuedFor checks that an answer and its decision say how long the request waited.
func (p *plane) queuedFor(a planeAnswer, waited bool) {
	p.Helper()
	header := a.Header.Get("X-Headway-Queue-Ms")
	ms, err := strconv.ParseFloat(header, 64)
	if waited != (err == nil && ms > 0) {
		p.Errorf("x-headway-queue-ms is %q", header)
	}
	p.eventually("the decision has ended", func() bool { _, ended := p.decisionOf(a.Header).Outcome(); return ended })
	var d api.RecentDecision
	if err := json.Unmarshal(p.must(http.StatusOK, http.MethodGet, "/api/v1/decisions/"+a.Header.Get("X-Headway-Decision-Id"), "").body, &d); err != nil {
		p.Fatal(err)
	}
	for _, queued := range []*float64{d.QueuedMs, d.Outcome.QueuedMs} {
		if waited != (queued != nil) || waited && math.Abs(*queued-ms) > 0.02 {
			p.Errorf("queued_ms is %v, the header says %s", queued, header)
		}
	}
}

func TestAWaitingCallerThatLeavesLeavesTheQueue(t *testing.T) {
	p, g := newGatedPlane(t)
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-g.arrived
	ctx, leave := context.WithCancel(t.Context())
	gone := p.begin(ctx, &all)
	p.waiting(1)
	leave()
	if a := <-gone; !errors.Is(a.err, context.Canceled) {
		t.Errorf("it ended with %v", a.err)
	}
	p.waiting(0)
	g.release <- struct{}{}
	if a := <-first; a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	p.settled()
}

func TestARequestWaitsNoLongerThanItMay(t *testing.T) {
	p, g := newGatedPlane(t, func(o *admission.Options) { o.MaxWait = 50 * time.Millisecond })
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-g.arrived
	for range 3 {
		late := p.answer(chatPath, chatBody)
		if late.StatusCode != http.StatusServiceUnavailable || !bytes.Contains(late.body, []byte(`"code":"queue_timeout"`)) || late.Header.Get("Retry-After") == "" {
			t.Errorf("%d %s", late.StatusCode, late.body)
		}
		if d := p.decisionOf(late.Header); d.Failure != routing.FailQueueTimeout {
			t.Errorf("the decision says %s", d.Failure)
		}
	}
	g.release <- struct{}{}
	<-first
}

func TestWithoutAQueueAFullPoolIsSaidAtOnce(t *testing.T) {
	p, g := newGatedPlane(t, func(o *admission.Options) { o.MaxWaiting = 0 })
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-g.arrived
	if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusServiceUnavailable || !bytes.Contains(a.body, []byte(`"code":"at_capacity"`)) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	g.release <- struct{}{}
	<-first
}

// A head that joins, and one whose other model's request ended, serve what waits.
func TestWhatWaitsIsServedByAnyHeadWithAPlace(t *testing.T) {
	p, g := newGatedPlane(t)
	other := newGate(t)
	p.narrow("b", other.URL, 1, "m", "n")
	var all sync.WaitGroup
	defer all.Wait()
	p.begin(t.Context(), &all)
	p.begin(t.Context(), &all)
	<-g.arrived
	<-other.arrived
	waits := p.begin(t.Context(), &all, "X-Test", "waits")
	p.waiting(1)
	other.release <- struct{}{}
	if got := <-other.arrived; got != "waits" {
		t.Errorf("the place went to %q", got)
	}
	for range 2 {
		g.release <- struct{}{}
		other.release <- struct{}{}
	}
	if a := <-waits; a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestAPriorityIsAHintThatThePolicyMayRefuse(t *testing.T) {
	p, g := newGatedPlane(t)
	g.release <- struct{}{}
	if a := p.answer(chatPath, chatBody, "X-Headway-Priority", "urgent"); a.StatusCode != http.StatusBadRequest || !bytes.Contains(a.body, []byte("x-headway-priority")) {
		t.Errorf("an unknown one: %d %s", a.StatusCode, a.body)
	}
	p.must(200, "PUT", "/api/v1/policy", `{"default_strategy":"random","caller_may":[]}`, "If-Match", p.must(200, "GET", "/api/v1/policy", "").header.Get("ETag"))
	if a := p.answer(chatPath, chatBody, "X-Headway-Priority", "high"); a.StatusCode != http.StatusForbidden || !bytes.Contains(a.body, []byte("override_not_allowed")) {
		t.Errorf("refused by the policy: %d %s", a.StatusCode, a.body)
	}
	if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK {
		t.Errorf("without one: %d %s", a.StatusCode, a.body)
	}
}

// Limits of a key are in OpenAI's headers. The one that is reached is refused
// with 429 and OpenAI's error, in both dialects, and no other caller is.
func TestAKeyHasLimitsOfItsOwn(t *testing.T) {
	p, g := newGatedPlane(t)
	for range 10 {
		g.release <- struct{}{}
	}
	admin := p.key(p.admin(), access.Request{Name: "admin", Role: "admin"})
	limits := access.Limits{RequestsPerMinute: 2, TokensPerMinute: 100_000, Weight: 3}
	limited := p.key(p.admin(), access.Request{Name: "limited", Role: "client", Limits: limits})
	for i := range 2 {
		a := p.answer(chatPath, chatBody, "Authorization", "Bearer "+limited)
		want := map[string]string{
			"X-Ratelimit-Limit-Requests": "2", "X-Ratelimit-Remaining-Requests": strconv.Itoa(1 - i),
			"X-Ratelimit-Limit-Tokens": "100000", "X-Ratelimit-Remaining-Tokens": strconv.Itoa(99_000 - 1000*i),
		}
		for name, value := range want {
			if got := a.Header.Get(name); a.StatusCode != http.StatusOK || got != value {
				t.Errorf("request %d: %d, %s is %q, want %q", i, a.StatusCode, name, got, value)
			}
		}
		if d, err := time.ParseDuration(a.Header.Get("X-Ratelimit-Reset-Requests")); err != nil || d <= 0 || d > time.Minute {
			t.Errorf("the reset is %q", a.Header.Get("X-Ratelimit-Reset-Requests"))
		}
	}
	a := p.answer(chatPath, chatBody, "Authorization", "Bearer "+limited)
	seconds, _ := strconv.Atoi(a.Header.Get("Retry-After"))
	if a.StatusCode != http.StatusTooManyRequests || !bytes.Contains(a.body, []byte(`"type":"requests","param":null,"code":"rate_limit_exceeded"`)) || seconds < 1 || seconds > 64 {
		t.Errorf("%d %s, Retry-After %d", a.StatusCode, a.body, seconds)
	}
	if a.Header["X-Headway-Decision-Id"] != nil {
		t.Errorf("no head was looked for, and the answer names a decision: %v", a.Header)
	}
	a = p.answer("/v1/messages", `{"model":"m","max_tokens":1,"messages":[]}`, "X-Api-Key", limited)
	if a.StatusCode != http.StatusTooManyRequests || !bytes.Contains(a.body, []byte(`"rate_limit_error"`)) {
		t.Errorf("Anthropic's: %d %s", a.StatusCode, a.body)
	}
	a = p.answer(chatPath, chatBody, "Authorization", "Bearer "+admin)
	if a.StatusCode != http.StatusOK || a.Header.Get("X-Ratelimit-Limit-Requests") != "" {
		t.Errorf("another key: %d %v", a.StatusCode, a.Header)
	}
	p.settled()
}

// A request that passes its key's limit of tokens completes, and the next is
// refused.
func TestPitfallP31ARequestThatPassesItsLimitCompletes(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	p.key(p.admin(), access.Request{Name: "admin", Role: "admin"})
	limited := p.key(p.admin(), access.Request{Name: "limited", Role: "client", Limits: access.Limits{TokensPerMinute: 100}})
	long := strings.Replace(streamBody, `"max_tokens":20`, `"max_tokens":1000`, 1)
	a := p.answer(chatPath, long, "Authorization", "Bearer "+limited)
	if a.err != nil || a.StatusCode != http.StatusOK || !bytes.HasSuffix(a.body, []byte("data: [DONE]\n\n")) {
		t.Fatalf("%d %v", a.StatusCode, a.err)
	}
	p.settled()
	a = p.answer(chatPath, chatBody, "Authorization", "Bearer "+limited)
	if a.StatusCode != http.StatusTooManyRequests || !bytes.Contains(a.body, []byte(`"type":"tokens"`)) || a.Header.Get("X-Ratelimit-Remaining-Tokens") != "0" {
		t.Errorf("%d %s %v", a.StatusCode, a.body, a.Header)
	}
}

// A head that accepts and never answers holds up no request for another model, and
// its own callers get an error.
func TestPitfallP21AHungHeadBlocksNoOtherModel(t *testing.T) {
	p, g := newGatedPlane(t, func(o *admission.Options) { o.MaxWaiting = 100 })
	h, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"other"}, Speed: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	p.narrow("other", h.URL(), 10, "other")
	var all sync.WaitGroup
	defer all.Wait()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	for range 50 {
		p.begin(ctx, &all)
	}
	<-g.arrived
	p.waiting(49)
	for range 50 {
		a := p.answer(chatPath, strings.Replace(chatBody, `"m"`, `"other"`, 1))
		if a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	leave()
	all.Wait()
	p.settled()
	p.waiting(0)
}

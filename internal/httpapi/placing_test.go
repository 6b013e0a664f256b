package httpapi_test

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/healthcheck"
	"headway/internal/mockhead"
	"headway/internal/policy"
	"headway/internal/proxy"
	"headway/internal/registry"
	"headway/internal/routing"
)

// policy puts a document in YAML into force.
func (p *plane) policy(document string) {
	p.Helper()
	next, faults := policy.Parse([]byte(document), "yaml")
	if len(faults) > 0 {
		p.Fatal(faults)
	}
	if _, err := p.router.Apply(p.Context(), routing.Change{Make: routing.To(next), Expect: routing.AnyRevision, Source: policy.SourceFile}); err != nil {
		p.Fatal(err)
	}
}

func TestHintsObeyThePolicy(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	hints := map[string]string{
		"X-Headway-Region": "us", "X-Headway-Region-Mode": "require", "X-Headway-Strategy": "random", "X-Headway-Session": "s",
	}
	for name, value := range hints {
		if a := p.answer(chatPath, chatBody, name, value, "X-Headway-Region", "us"); a.StatusCode != http.StatusOK {
			t.Errorf("by the default policy %s is answered with %d %s", name, a.StatusCode, a.body)
		}
	}
	p.policy("default_strategy: least_loaded")
	for name, value := range hints {
		header := []string{name, value}
		a := p.answer(chatPath, chatBody, header...)
		if a.StatusCode != http.StatusForbidden || !bytes.Contains(a.body, []byte(`"code":"override_not_allowed"`)) ||
			!bytes.Contains(bytes.ToLower(a.body), bytes.ToLower([]byte(name))) {
			t.Errorf("%s is answered with %d %s", name, a.StatusCode, a.body)
		}
	}
	if a := p.answer(chatPath, chatBody, "X-Headway-Region", ""); a.StatusCode != http.StatusOK {
		t.Errorf("an empty hint is answered with %d %s", a.StatusCode, a.body)
	}
	// Decisions name a region and a session as ever.
	p.decide(`{"model_type":"m","region":"us","session_key":"s"}`)
}

// What a caller asks for wrongly, and a head that is full, say nothing against the
// head, however often.
func TestPitfallP12AnswersOf4xxDoNotBlameTheHead(t *testing.T) {
	for _, status := range []int{400, 404, 413, 422, 429, 501} {
		p := newPlane(t)
		var heads []*mockhead.Head
		for _, id := range []string{"a", "b"} {
			heads = append(heads, p.start(id))
			if _, err := heads[len(heads)-1].Inject(mockhead.Fault{Kind: mockhead.Status, Status: status}); err != nil {
				t.Fatal(err)
			}
		}
		for range 30 {
			a := p.answer(chatPath, chatBody)
			t.Log(status, a.StatusCode, string(a.body))
			if a.StatusCode != status {
				t.Fatalf("%d is answered with %d %s", status, a.StatusCode, a.body)
			}
		}
		p.settled()
		if n := p.fleet.Snapshot().Pools["m"].All.Routable(); n != 2 {
			t.Errorf("after 30 answers of %d, %d of 2 heads take requests", status, n)
		}
		if sent := heads[0].Count() + heads[1].Count(); status != http.StatusTooManyRequests && sent != 30 {
			t.Errorf("30 requests answered with %d were sent %d times", status, sent)
		}
	}
}

// A head that is full, or that says for how long it cannot serve, gets no new
// requests meanwhile: another one has room.
func TestPitfallP24AHeadsRetryAfterKeepsRequestsAway(t *testing.T) {
	for _, status := range []int{429, 503} {
		p := newPlane(t)
		full := p.start("full")
		if _, err := full.Inject(mockhead.Fault{Kind: mockhead.Status, Status: status, RetryAfter: "3600"}); err != nil {
			t.Fatal(err)
		}
		p.start("free")
		for range 30 {
			if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK {
				t.Fatalf("%d: answered with %d %s", status, a.StatusCode, a.body)
			}
		}
		if n := full.Count(); n != 1 {
			t.Errorf("%d: the head that named an hour got %d requests", status, n)
		}
	}
}

// A fallback is named to its head by its own name, and to the caller by the name
// that it asked for; a header says what answered.
func TestAFallbackAnswersUnderTheNameThatWasAskedFor(t *testing.T) {
	p := newPlane(t)
	small := p.start("small", func(o *mockhead.Options) { o.Models = []string{"small"} })
	p.policy("default_strategy: least_loaded\naliases: {alias: m}\nfallbacks: [{match: {model_type: m}, to: [{model_type: small}]}]")
	if _, err := p.fleet.Register(t.Context(), fleet.Spec{ID: "small", Endpoint: small.URL(), ModelTypes: []string{"small"}, Region: "us"},
		&fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()}); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{chatBody, streamBody} {
		a := p.answer(chatPath, strings.Replace(body, `"m"`, `"alias"`, 1))
		if a.StatusCode != http.StatusOK || !bytes.Contains(a.body, []byte(`"model":"alias"`)) || bytes.Contains(a.body, []byte(`"small"`)) {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		if v := a.Header.Get("X-Headway-Fallback"); v != "small;region=us;reason=no_heads" {
			t.Errorf("the fallback is said as %q", v)
		}
		d := into[api.RecentDecision](p.world, p.must(http.StatusOK, http.MethodGet, "/api/v1/decisions/"+a.Header.Get("X-Headway-Decision-Id"), ""))
		if d.ModelType != "small" || d.Fallback == nil || *d.Fallback != (api.Fallback{ModelType: "m", Reason: "no_heads"}) {
			t.Errorf("the decision is %+v", d)
		}
	}
	// The decision API falls back as well.
	if d := p.decide(`{"model_type":"m"}`); d.Head.ID != "small" || d.ModelType != "small" || d.Fallback == nil {
		t.Errorf("decided on %+v", d)
	}
}

// checking has heads at which requests fail checked every few milliseconds.
func checking(t *testing.T) func(*proxy.Options) {
	return func(o *proxy.Options) {
		heads, _ := o.Fleet.(*registry.Registry)
		c, err := healthcheck.New(healthcheck.Options{Checked: heads.Checked, Metrics: o.Metrics, Log: o.Log, Interval: 5 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		o.Failed = c.Failed
		ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
		var running sync.WaitGroup
		running.Go(func() { _ = c.Run(ctx) })
		t.Cleanup(func() { stop(); running.Wait() })
	}
}

// A head that is down is out after one request that failed there and its checks,
// gets no request as a trial, and is back once it is well.
func TestAHeadThatIsDownIsOutUntilItsChecksPass(t *testing.T) {
	p := newPlane(t, checking(t))
	head := p.start("bad")
	p.start("good")
	for _, f := range []mockhead.Fault{{Kind: mockhead.Status, Status: 503}, {Kind: mockhead.Status, Status: 503, Path: "/health"}} {
		if _, err := head.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	routable := func() int { return p.fleet.Snapshot().Pools["m"].All.Routable() }
	completions := func() (n int) { // checks come as well
		for _, got := range head.Received() {
			n += bytes.Count(got.Head, []byte(chatPath))
		}
		return n
	}
	for completions() == 0 {
		p.answer(chatPath, chatBody)
	}
	p.eventually("the head is out", func() bool { return routable() == 1 })
	was := completions()
	for range 20 {
		if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK || a.Header.Get("X-Headway-Attempts") != "1" {
			t.Fatalf("%d in %s attempts: %s", a.StatusCode, a.Header.Get("X-Headway-Attempts"), a.body)
		}
	}
	if now := completions() - was; now != 0 {
		t.Errorf("the head that is down got %d requests", now)
	}
	h := into[api.Head](p.world, p.must(http.StatusOK, http.MethodGet, "/api/v1/heads/bad", ""))
	if h.Health.State != "ejected" || !strings.Contains(h.Health.Reason, "health check was answered with 503") {
		t.Errorf("the head is shown as %+v", h.Health)
	}
	head.Heal()
	p.eventually("the head is back", func() bool { return routable() == 2 })
	scrape := p.scrape()
	for _, line := range []string{
		`headway_ejections_total{reason="health_check"} 1`, `headway_reinstatements_total{reason="check"} 1`,
		`headway_health_checks_total{result="well"} 2`, "headway_health_checked_heads 0",
	} {
		if !strings.Contains(scrape, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// A head that leads back to the service ends after one turn, with an error that says
// so, and another head serves the request.
func TestPitfallP27ALoopEndsAfterOneTurn(t *testing.T) {
	loops := func(a planeAnswer) bool {
		return a.StatusCode == http.StatusLoopDetected && bytes.Contains(a.body, []byte(`"code":"loop_detected"`))
	}
	p, second := newPlane(t), newPlane(t)
	p.registered("itself", p.url)
	if a := p.answer(chatPath, chatBody, "Connection", "CDN-Loop"); !loops(a) {
		t.Errorf("a head that is the service itself: %d %s", a.StatusCode, a.body)
	}
	p.settled()
	if n := p.router.Newest(); n != 1 {
		t.Errorf("there were %d decisions, want 1", n)
	}
	// A chain of two services.
	if err := p.fleet.Deregister(t.Context(), "itself"); err != nil {
		t.Fatal(err)
	}
	p.registered("second", second.url)
	second.registered("first", p.url)
	if a := p.answer(chatPath, chatBody); !loops(a) {
		t.Errorf("a chain of two services: %d %s", a.StatusCode, a.body)
	}
	p.settled()
	if n, m := p.router.Newest(), second.router.Newest(); n != 2 || m != 1 {
		t.Errorf("there were %d and %d decisions, want 2 and 1", n, m)
	}
	// A chain that ends at a head is no loop.
	second.start("head")
	for range 5 {
		if a := p.answer(chatPath, streamBody); a.StatusCode != http.StatusOK || !bytes.Contains(a.body, []byte("[DONE]")) {
			t.Errorf("a chain with an end: %d %s", a.StatusCode, a.body)
		}
	}
	if a := p.answer(chatPath, chatBody, "CDN-Loop", "cdn.example; x=1, headway-other"); a.StatusCode != http.StatusOK {
		t.Errorf("the marks of others: %d %s", a.StatusCode, a.body)
	}
}

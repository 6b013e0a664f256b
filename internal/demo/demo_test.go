package demo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"headway/api"
	"headway/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRouter is Headway's interface in the small: heads hold leases, requests
// go round.
type fakeRouter struct {
	t      *testing.T
	client *http.Client // to heads

	mu       sync.Mutex
	epoch    uint64
	heads    map[string]*fakeHead
	ids      []string // of heads, by registration
	next     int
	begun    int               // requests that a head began to answer
	whole    int               // of these, passed on to the end
	sessions map[string]string // the model of each
	gone     int               // deregistered
	drained  int               // of those the ones that said before that they drain
	away     bool              // deregistrations get no answer
	attempts int               // that each answer names; 0: one
	full     bool              // no request gets a head
}

type fakeHead struct {
	id, endpoint, model, status string
	epoch                       uint64
}

func newFakeRouter(t *testing.T) (*fakeRouter, string) {
	t.Helper()
	f := &fakeRouter{
		t: t, client: newConnections(), heads: make(map[string]*fakeHead), sessions: make(map[string]string),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"status":"ok"}`) })
	mux.HandleFunc("GET /api/v1/heads", f.list)
	mux.HandleFunc("GET /api/v1/strategies", f.strategies)
	mux.HandleFunc("POST /api/v1/heads", f.register)
	mux.HandleFunc("PUT /api/v1/heads/{id}/status", f.report)
	mux.HandleFunc("DELETE /api/v1/heads/{id}", f.deregister)
	mux.HandleFunc("POST /v1/chat/completions", f.complete)
	s := httptest.NewServer(mux)
	t.Cleanup(func() { s.Close(); f.client.CloseIdleConnections() })
	return f, s.URL
}

func (f *fakeRouter) read(r *http.Request, v any) {
	text, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(text, v, json.RejectUnknownMembers(true))
	}
	if err != nil {
		f.t.Errorf("%s %s: %v in %s", r.Method, r.URL.Path, err, text)
	}
}

func (f *fakeRouter) register(w http.ResponseWriter, r *http.Request) {
	var in api.Registration
	f.read(r, &in)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
	if _, known := f.heads[in.ID]; !known {
		f.ids = append(f.ids, in.ID)
	}
	f.heads[in.ID] = &fakeHead{id: in.ID, endpoint: in.Endpoint, model: in.ModelTypes[0], epoch: f.epoch}
	w.WriteHeader(http.StatusCreated)
	f.lease(w)
}

func (f *fakeRouter) lease(w io.Writer) {
	fmt.Fprintf(w, `{"lease":{"epoch":%d,"ttl_seconds":1,"heartbeat_interval_seconds":0.1}}`, f.epoch)
}

func (f *fakeRouter) report(w http.ResponseWriter, r *http.Request) {
	var in api.StatusReport
	f.read(r, &in)
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.heads[r.PathValue("id")]
	switch {
	case h == nil:
		w.WriteHeader(http.StatusNotFound)
	case h.epoch != in.Epoch:
		w.WriteHeader(http.StatusConflict)
	default:
		h.status = in.Status
		f.lease(w)
	}
}

func (f *fakeRouter) deregister(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		panic(http.ErrAbortHandler)
	}
	if h := f.heads[r.PathValue("id")]; h != nil && h.status == "draining" {
		f.drained++
	}
	delete(f.heads, r.PathValue("id"))
	f.gone++
	w.WriteHeader(http.StatusNoContent)
}

func (f *fakeRouter) list(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprint(w, `{"data":[`)
	comma := ""
	for id := range f.heads {
		fmt.Fprintf(w, `%s{"id":%q,"health":{"state":"fresh"}}`, comma, id)
		comma = ","
	}
	fmt.Fprint(w, `]}`)
}

// strategies says what placements led to: a mean regret of 1 ms over three strategies.
func (f *fakeRouter) strategies(w http.ResponseWriter, r *http.Request) {
	if window, err := time.ParseDuration(r.FormValue("window")); err != nil || window < time.Minute || window > 3*time.Minute {
		f.t.Errorf("the window of a short run is %q", r.FormValue("window"))
	}
	fmt.Fprint(w, `{"data":[{"name":"a","effectiveness":{"decisions":30,"regret_ms":0.5,"regret_reliable":true}},
		{"name":"b","effectiveness":{"decisions":10,"regret_ms":2.5,"regret_reliable":true}},
		{"name":"c","effectiveness":{"decisions":0,"regret_ms":null,"regret_reliable":false}}]}`)
}

// choose is the head of a request, in turn; nil: there is none.
func (f *fakeRouter) choose(model string, h http.Header) *fakeHead {
	f.mu.Lock()
	defer f.mu.Unlock()
	session := h.Get("X-Headway-Session")
	if known, is := f.sessions[session]; session != "" && is && known != model {
		f.t.Errorf("session %s moved from %s to %s", session, known, model)
	}
	f.sessions[session] = model
	var live []*fakeHead
	for _, id := range f.ids {
		if h := f.heads[id]; h != nil && h.status == "active" && h.model == model {
			live = append(live, h)
		}
	}
	if len(live) == 0 || f.full {
		return nil
	}
	f.next++
	f.begun++
	return live[f.next%len(live)]
}

func (f *fakeRouter) complete(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var in struct {
		Model  string `json:"model"`
		Stream bool   `json:"stream"`
	}
	if err := cmp.Or(err, json.Unmarshal(body, &in)); err != nil || !in.Stream || r.Header.Get("X-Headway-Region") == "" {
		f.t.Errorf("%v, %+v with %v", err, in, r.Header)
	}
	head := f.choose(in.Model, r.Header)
	if head == nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, head.endpoint+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		f.t.Error(err)
		return
	}
	out.Header.Set("Content-Type", "application/json")
	res, err := f.client.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer res.Body.Close()
	h := w.Header()
	h.Set("X-Headway-Head", head.id)
	h.Set("X-Headway-Strategy", "round_robin")
	h.Set("X-Headway-Overhead-Ms", "0.25")
	h.Set("X-Headway-Attempts", fmt.Sprint(max(1, f.attempts)))
	w.WriteHeader(res.StatusCode)
	if _, err := io.Copy(w, res.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole++
}

// check compares what the router counted with the demo's summary.
func (f *fakeRouter) check(out string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.heads) > 0 {
		f.t.Errorf("%d heads never deregistered", len(f.heads))
	}
	m := regexp.MustCompile(`(?m)^  requests +([\d,]+)`).FindStringSubmatch(out)
	if m == nil || m[1] != grouped(uint64(f.begun)) {
		f.t.Errorf("the summary does not say %d requests:\n%s", f.begun, out)
	}
}

func quick(server string) Options {
	return Options{
		Server: server, Heads: 4, Rate: 40, Speed: 1000, Duration: 1500 * time.Millisecond, Plain: true, Seed: 1,
		Trace: "testdata/short.jsonl",
	}
}

func run(t *testing.T, o Options) string {
	t.Helper()
	var out bytes.Buffer
	if err := Run(t.Context(), o, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

func TestRequestsGoThroughTheService(t *testing.T) {
	f, url := newFakeRouter(t)
	o := quick(url)
	o.Faults = true
	out := run(t, o)
	f.check(out)
	if f.begun < 30 || f.whole != f.begun {
		t.Errorf("%d of %d requests were answered whole, want about 60, all", f.whole, f.begun)
	}
	for _, want := range []string{
		"mock heads: 4. They serve llama-3.1-8b and qwen2.5-32b", "curl -s " + url + "/api/v1/heads", url + "/v1/chat/completions",
		"Heads that are registered and report: 4 of 4.", "requests/s", "overhead p50 0.25 ms", "round_robin", "demo-4", " %  regret ", "  mean regret          1.00 ms ",
		`Make demo-1 go wrong: curl -d '{"kind":"stall","times":1}' http://127.0.0.1:`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output does not say %q", want)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("there are escape sequences outside a terminal")
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestFurtherAttemptsAreCounted(t *testing.T) {
	f, url := newFakeRouter(t)
	f.attempts = 2
	out := run(t, quick(url))
	f.check(out)
	m := regexp.MustCompile(`answered whole +([\d,]+) +([\d,]+) after a failed head`).FindStringSubmatch(out)
	if m == nil || m[1] != m[2] || m[1] != grouped(uint64(f.whole)) {
		t.Errorf("not all of %d came after a failed head:\n%s", f.whole, out)
	}
}

func TestWithoutAHeadRequestsFailByReason(t *testing.T) {
	f, url := newFakeRouter(t)
	f.full = true
	out := run(t, quick(url))
	f.check(out)
	if !strings.Contains(out, failNoHead) || !regexp.MustCompile(`answered whole +0 `).MatchString(out) {
		t.Errorf("the summary does not say why nothing was answered:\n%s", out)
	}
}

// A damaged head goes wrong for a time; the end of the demo does not wait for it.
func TestAHeadCanBeDamaged(t *testing.T) {
	_, url := newFakeRouter(t)
	o := quick(url)
	if err := o.Complete(); err != nil {
		t.Fatal(err)
	}
	fleet := newHeads(&o, agents(t, &o))
	if err := fleet.startAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		fleet.damage()
	}
	_, notes := fleet.view()
	if len(notes) != maxNotes || !strings.Contains(notes[0].text, " damaged for 15s: ") {
		t.Errorf("the notes are %v", notes)
	}
	began := time.Now()
	if err := fleet.stopAll(t.Context()); err != nil || time.Since(began) >= damageTime {
		t.Errorf("the end took %v: %v", time.Since(began), err)
	}
}

func TestAHeadCanBeKilledStartedAndDrained(t *testing.T) {
	f, url := newFakeRouter(t)
	o := quick(url)
	if err := o.Complete(); err != nil {
		t.Fatal(err)
	}
	fleet := newHeads(&o, agents(t, &o))
	if err := fleet.startAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := fleet.awaitReady(t.Context()); n != o.Heads {
		t.Fatalf("%d of %d heads are ready", n, o.Heads)
	}
	victim := fleet.kill()
	if got := states(fleet); got[stateUp] != 3 || got[stateDown] != 1 {
		t.Errorf("after a kill: %v", got)
	}
	if f.gone != 0 {
		t.Error("a killed head deregistered")
	}
	before := fakeEndpoint(f, victim)
	fleet.revive(t.Context(), victim)
	if n := fleet.awaitReady(t.Context()); n != o.Heads {
		t.Fatalf("%d of %d heads are ready after a start", n, o.Heads)
	}
	if now := fakeEndpoint(f, victim); now != before {
		t.Errorf("the head started at %s, and was at %s: its id would be contested", now, before)
	}
	fleet.drain(t.Context())
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for states(fleet)[stateDown] != 1 {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("the drained head is not down: %v", states(fleet))
		}
	}
	f.mu.Lock()
	if f.gone != 1 || f.drained != 1 {
		t.Errorf("%d heads deregistered, %d of them said before that they drain; want 1 and 1", f.gone, f.drained)
	}
	f.mu.Unlock()
	for range 5 {
		fleet.kill() // there are three
	}
	if err := fleet.stopAll(t.Context()); err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	if f.gone != 4 || len(f.heads) != 0 {
		t.Errorf("%d heads deregistered, %d are left; want each once, those that were killed too", f.gone, len(f.heads))
	}
	f.mu.Unlock()
	fleet.revive(t.Context(), "") // too late, and harmless
	if got := states(fleet); got[stateDown] != 4 {
		t.Errorf("after the end: %v", got)
	}
}

// A service that ended before the demo is no failure of it, and one line.
func TestTheServiceMayEndFirst(t *testing.T) {
	f, url := newFakeRouter(t)
	f.away = true
	out := run(t, quick(url))
	if n := strings.Count(out, "deregister head"); n != 1 || !strings.Contains(out, "\nThe service is away: heads that did not leave: 4 of 4; the first: deregister head demo-1: ") {
		t.Errorf("%d failures are named in\n%s", n, out)
	}
}

// agents is the client of the router for the heads' agents.
func agents(t *testing.T, o *Options) *client.Client {
	t.Helper()
	connections := newConnections()
	t.Cleanup(connections.CloseIdleConnections)
	c, _, err := o.connect(connections)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func states(f *heads) map[state]int {
	units, _ := f.view()
	n := make(map[state]int)
	for _, u := range units {
		n[u.state]++
	}
	return n
}

func fakeEndpoint(f *fakeRouter, id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heads[id].endpoint
}

func TestRunRefusesWhatCannotWork(t *testing.T) {
	for name, o := range map[string]Options{
		"no URL":           {Server: "localhost:8080"},
		"too many heads":   {Heads: 1001},
		"negative heads":   {Heads: -1},
		"negative rate":    {Rate: -1},
		"absurd speed":     {Speed: 1e6},
		"negative time":    {Duration: -1},
		"fewer heads":      {Heads: 1},
		"a nameless model": {Models: []string{"m", ""}},
		"no such trace":    {Trace: "testdata/none.jsonl"},
		"trace of no kind": {Trace: "demo.go"},
	} {
		t.Run(name, func(t *testing.T) {
			o.Server = cmp.Or(o.Server, "http://127.0.0.1:1")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := Run(ctx, o, io.Discard); err == nil || errors.Is(err, ErrNoRouter) {
				t.Errorf("error %v, want the options refused", err)
			}
		})
	}
}

func TestRunSaysThatNoRouterIsThere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var out bytes.Buffer
	err := Run(ctx, Options{Server: "http://127.0.0.1:1"}, &out)
	if !errors.Is(err, ErrNoRouter) || !strings.Contains(out.String(), "headway serve") {
		t.Errorf("error %v, output %q; want ErrNoRouter and how to start one", err, out.String())
	}
}

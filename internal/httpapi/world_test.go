package httpapi_test

import (
	"bytes"
	"context"
	stdjson "encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/config"
	"headway/internal/decisionlog"
	"headway/internal/effectiveness"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/httpapi"
	"headway/internal/live"
	"headway/internal/memstore"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// net/http lets a connection that it ends linger for half a second. toxiproxy leaves
// goroutines of connections behind that a fault has closed.
func TestMain(m *testing.M) {
	const link = "github.com/Shopify/toxiproxy/v2.(*ToxicLink)."
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"),
		goleak.IgnoreAnyFunction(link+"read"), goleak.IgnoreAnyFunction(link+"write"), goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"))
}

// world is a whole service over a store in memory, with what it logs.
type world struct {
	testing.TB
	store    *memstore.Store
	fleet    *registry.Registry
	router   *routing.Router
	server   *httpapi.Server
	metrics  *prometheus.Registry
	log      *logBuffer
	noTrail  atomic.Bool // the audit trail cannot be written
	keys     *access.Keys
	guard    *access.Guard
	trail    string // an audit file
	recorded entries
	state    *stateFile
	ahead    atomic.Int64              // nanoseconds that keys are ahead of the clock
	still    atomic.Pointer[time.Time] // when the clock of keys stopped
	skew     atomic.Int64              // nanoseconds that the router is ahead of the clock
	freed    func(*fleet.Head)         // called with each place that comes free; nil: nothing is
}

// entries keeps what is recorded.
type entries struct {
	mu   sync.Mutex
	list []audit.Entry
}

func (w *world) note(e audit.Entry) {
	w.recorded.mu.Lock()
	defer w.recorded.mu.Unlock()
	w.recorded.list = append(w.recorded.list, e)
}

// take returns what was recorded since the last call.
func (e *entries) take() []audit.Entry {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.list
	e.list = nil
	return list
}

// openAccess admits every client on loopback until there is a key.
func (w *world) openAccess(o access.Options) {
	w.Helper()
	w.trail = filepath.Join(w.TempDir(), "audit.log")
	var err error
	now := func() time.Time {
		if at := w.still.Load(); at != nil {
			return *at
		}
		return time.Now().Add(time.Duration(w.ahead.Load()))
	}
	if w.keys, err = access.OpenKeys(w.Context(), access.KeysOptions{Store: w.store, Audit: trailOf{w}, Now: now}); err != nil {
		w.Fatal(err)
	}
	o.Keys, o.Metrics, o.Now = w.keys, w.metrics, now
	if w.guard, err = access.New(o); err != nil {
		w.Fatal(err)
	}
}

// later lets time pass for keys.
func (w *world) later(d time.Duration) { w.ahead.Add(int64(d)) }

// trailOf is the trail of a world.
type trailOf struct{ *world }

func (r trailOf) Begin(ctx context.Context, e audit.Entry) (audit.EndFunc, error) {
	return r.begin(ctx, e)
}
func (r trailOf) Note(e audit.Entry)     { r.note(e) }
func (r trailOf) Happened(e audit.Entry) { r.note(e) }

// begin is the intent of an operation; how it ends is recorded as well.
func (w *world) begin(ctx context.Context, e audit.Entry) (audit.EndFunc, error) {
	if w.noTrail.Load() {
		return nil, audit.ErrUnavailable
	}
	e = e.By(ctx)
	w.note(e)
	return func(outcome audit.Outcome, reason string, after stdjson.RawMessage) {
		e.Outcome, e.Reason, e.After = outcome, reason, after
		w.note(e)
	}, nil
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lasting are leases that no test outlasts, however slow the machine is.
var lasting = registry.LeaseOptions{BaseInterval: time.Hour}

func newWorld(t testing.TB, change ...func(*httpapi.Options)) *world {
	t.Helper()
	return newWorldOf(t, lasting, change...)
}

// newWorldOf is newWorld for tests about leases, which run on fake time.
func newWorldOf(t testing.TB, lease registry.LeaseOptions, change ...func(*httpapi.Options)) *world {
	t.Helper()
	w := &world{TB: t, store: memstore.New(), metrics: prometheus.NewRegistry(), log: &logBuffer{}, state: &stateFile{}}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	events := event.New(w.metrics)
	decisions, err := decisionlog.New(decisionlog.Options{MaxMemory: 1 << 20, Rate: 1e6, Metrics: w.metrics, Log: log})
	must(err)
	w.fleet, err = registry.New(registry.Options{Store: w.store, Events: events, Metrics: w.metrics, Log: log, Lease: lease, Audit: trailOf{w}, Eject: fleet.EjectOptions{Enabled: true}})
	must(err)
	must(w.fleet.Load(t.Context()))
	known := strategy.NewKnown(strategy.KnownOptions{})
	now := func() time.Time { return time.Now().Add(time.Duration(w.skew.Load())) }
	effect, err := effectiveness.New(effectiveness.Options{Known: known, Metrics: w.metrics, Now: now})
	must(err)
	w.router, err = routing.New(routing.Options{Memory: known, Watchers: []routing.Watcher{effect, decisions}, Now: now, Fleet: w.fleet, Policies: w.store, Events: events, Metrics: w.metrics, Log: log, Audit: trailOf{w}, Freed: func(h *fleet.Head) {
		if w.freed != nil {
			w.freed(h)
		}
	}})
	must(err)
	verbs, err := apiv1.New(w.fleet, w.router)
	must(err)
	w.openAccess(access.Options{Failures: 100})
	settings, err := config.Load(nil, nil, nil)
	must(err)
	hub, err := live.New(live.Options{
		MaxStreams: 5000, MaxMessage: 64 << 10, MaxRate: 100_000, Timing: live.Timing{Heartbeat: 10 * time.Second},
		Fleet: w.fleet, Instance: "test", Router: w.router, Verbs: verbs, Events: events, Metrics: w.metrics, Log: log, Guard: w.guard, Audit: trailOf{w},
	})
	must(err)
	options := httpapi.Options{
		Limits: httpapi.Limits(settings.HTTP.Limits),
		Fleet:  w.fleet, Router: w.router, Verbs: verbs, Effect: effect, Speeds: known, Live: hub, Metrics: w.metrics, Log: log, Version: "v0.0.0-test",
		Letters: &letters{w: w, list: []uint64{1, 2}}, Queue: func() string { return "it is there" }, Guard: w.guard, Keys: w.keys, AuditFile: w.trail, Audit: trailOf{w}, State: w.state,
		DecisionLog: decisions,
	}
	for _, c := range change {
		c(&options)
	}
	w.server, err = httpapi.New(options)
	must(err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.fleet.Run(ctx) })
	running.Go(func() { _ = hub.Run(ctx) })
	running.Go(func() { _ = decisions.Run(ctx) })
	if options.Proxy != nil {
		running.Go(func() { _ = options.Proxy.WatchKeys(ctx) })
	}
	t.Cleanup(func() { stop(); running.Wait() })
	return w
}

// listen serves on a real port until the test ends and returns its address.
func (w *world) listen() string {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	w.serve(l)
	return l.Addr().String()
}

// serve serves on a listener for the rest of the test.
func (w *world) serve(l net.Listener) {
	w.Helper()
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(l) }()
	w.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // no lame duck
		_ = w.server.Drain(ctx)
		if err := <-served; err != nil {
			w.Errorf("Serve: %v", err)
		}
	})
}

// answer is what a handler wrote.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, b...)
	return len(b), nil
}

// newRequest makes the request as a server gets it; headers are name, value,
// name, value.
func newRequest(t testing.TB, method, target, body string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:8080"+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.RequestURI = target
	r.RemoteAddr = "127.0.0.1:50000"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		if headers[i] == "Content-Type" {
			r.Header.Del(headers[i])
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// do asks the handler.
func (w *world) do(method, target, body string, headers ...string) *answer {
	w.Helper()
	return w.ask(newRequest(w, method, target, body, headers...))
}

func (w *world) ask(r *http.Request) (a *answer) {
	a = &answer{header: http.Header{}}
	defer func() { // a client that left gets no answer
		if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // it is compared by identity
			panic(p)
		}
	}()
	w.server.ServeHTTP(a, r)
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a
}

// must asks and wants the status.
func (w *world) must(status int, method, target, body string, headers ...string) *answer {
	w.Helper()
	a := w.do(method, target, body, headers...)
	if a.status != status {
		w.Fatalf("%s %s %s: %d %s; want %d", method, target, body, a.status, a.body, status)
	}
	return a
}

// into decodes the answer, which must have no field that v lacks.
func into[T any](t testing.TB, a *answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(a.body, &v, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

// problem wants a problem with the status and the code.
func (w *world) problem(status int, code string, a *answer) api.Problem {
	w.Helper()
	if a.status != status || a.header.Get("Content-Type") != "application/problem+json" {
		w.Fatalf("%d, %s: %s; want %d", a.status, a.header.Get("Content-Type"), a.body, status)
	}
	p := into[api.Problem](w, a)
	if p.Code != code || p.Status != status || p.Type != "urn:headway:problem:"+code || p.Title == "" || p.Detail == "" ||
		p.RequestID == "" || p.RequestID != a.header.Get("X-Request-Id") {
		w.Fatalf("problem %s; want code %s and status %d", a.body, code, status)
	}
	return p
}

// register registers a head that is active.
func (w *world) register(id string) api.RegistrationAnswer {
	w.Helper()
	a := w.do(http.MethodPost, "/api/v1/heads", headBody(id))
	if a.status != http.StatusCreated && a.status != http.StatusOK {
		w.Fatalf("register %s: %d %s", id, a.status, a.body)
	}
	return into[api.RegistrationAnswer](w, a)
}

// eject lets requests at the head fail until it is ejected; its pool needs
// another head for that.
func (w *world) eject(id string) {
	w.Helper()
	v, err := w.fleet.Head(id)
	if err != nil {
		w.Fatal(err)
	}
	other := v.Record.Spec
	other.ID = "beside-" + id
	if _, err := w.fleet.Register(w.Context(), other, &fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()}); err != nil {
		w.Fatal(err)
	}
	for range 5 {
		v.Head.Outcomes.Observe(v.Head, fleet.EndedBadly, time.Now())
	}
}

func headBody(id string) string {
	return fmt.Sprintf(`{"id":%q,"endpoint":"http://10.0.0.1:8000","model_types":["llama-3.1-8b"],"region":"eu-west","status":"active"}`, id)
}

func (w *world) decide(body string) api.Decision {
	w.Helper()
	return into[api.Decision](w, w.must(http.StatusOK, http.MethodPost, "/api/v1/decisions", body))
}

// scrape is the text of /metrics.
func (w *world) scrape() string {
	w.Helper()
	return string(w.must(http.StatusOK, http.MethodGet, "/metrics", "").body)
}

// drain reads r to its end.
func drain(r io.Reader) []byte {
	b, _ := io.ReadAll(r)
	return b
}

// letters is a queue with a few dead letters; the seventh cannot be reached.
type letters struct {
	w    *world
	mu   sync.Mutex
	list []uint64
}

func letter(n uint64) api.DeadLetter {
	return api.DeadLetter{
		Number: n, Time: time.Unix(1, 0).UTC(), Queue: "decisions.outcome", Subject: "headway.v1.decisions.outcome",
		Code: api.CodeInvalidJSON, Reason: "no", Deliveries: 1, MessageID: "m", Body: "{", Bytes: 1,
	}
}

func (l *letters) DeadLetters(_ context.Context, after uint64, limit int) ([]api.DeadLetter, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []api.DeadLetter
	for _, n := range l.list {
		if n > after && len(list) < limit {
			list = append(list, letter(n))
		}
	}
	return list, uint64(len(l.list)), nil
}

func (l *letters) DeadLetter(_ context.Context, n uint64) (api.DeadLetter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.list, n) {
		return api.DeadLetter{}, apiv1.ErrNoLetter
	}
	return letter(n), nil
}

func (l *letters) remove(ctx context.Context, action string, n uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case n == 7:
		return &apiv1.Problem{Code: api.CodeQueueUnavailable, Detail: "It is away."}
	case !slices.Contains(l.list, n):
		return apiv1.ErrNoLetter
	}
	end, err := l.w.begin(ctx, audit.Entry{Action: action, Target: audit.Target{Type: "dead_letter"}})
	if err != nil {
		return err
	}
	l.list = slices.DeleteFunc(l.list, func(have uint64) bool { return have == n })
	end(audit.Success, "", nil)
	return nil
}

func (l *letters) RetryDeadLetter(ctx context.Context, n uint64) error {
	return l.remove(ctx, "queue.retry", n)
}

func (l *letters) PurgeDeadLetter(ctx context.Context, n uint64) error {
	return l.remove(ctx, "queue.purge", n)
}

package live_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/live"
	"headway/internal/memstore"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// world is a hub over a real fleet and router, behind a real HTTP server.
type world struct {
	testing.TB
	events  *event.Stream
	fleet   *registry.Registry
	router  *routing.Router
	hub     *live.Hub
	options live.Options
	metrics *prometheus.Registry
	server  *httptest.Server
	who     atomic.Pointer[access.Principal] // the principal of those that connect
	keys    *access.Keys
	ahead   atomic.Int64 // of the clock that credentials end by
	denied  atomic.Int64
}

// end revokes the key of root.
func (w *world) end() {
	w.Helper()
	if err := w.keys.Revoke(w.Context(), root.ID); err != nil {
		w.Fatal(err)
	}
}

// lapse lets the credentials of all expire, without a notice. It is called once
// who has a principal that can.
func (w *world) lapse() { w.ahead.Store(int64(2 * time.Hour)) }

// passing is a credential that lapse ends.
func passing() *access.Principal {
	return &access.Principal{Type: "jwt", ID: "passing", Role: access.RoleAdmin, Expires: time.Now().Add(time.Hour)}
}

var root = &access.Principal{Type: "key", ID: "root", Role: access.RoleAdmin}

// token is the key of root.
const token = "hw_root_open-sesame"

// quick looks often, and leaves a peer all the time that a loaded machine takes.
var quick = live.Timing{Beat: 20 * time.Millisecond, Heartbeat: 100 * time.Millisecond, Write: time.Minute, Auth: time.Minute, Pong: time.Minute}

// impatient is for tests about peers that are silent.
func impatient(o *live.Options) {
	o.Timing.Write, o.Timing.Auth, o.Timing.Pong = 300*time.Millisecond, 300*time.Millisecond, 200*time.Millisecond
}

// recorder counts what is denied.
type recorder struct {
	audit.Unrecorded
	w *world
}

func (r recorder) Note(e audit.Entry) {
	if e.Outcome == audit.Denied {
		r.w.denied.Add(1)
	}
}

// lasting are leases that no test outlasts, however slow the machine is.
var lasting = registry.LeaseOptions{BaseInterval: time.Hour}

func newWorld(t testing.TB, change ...func(*live.Options)) *world {
	t.Helper()
	return newWorldOf(t, lasting, change...)
}

// newWorldOf is newWorld for tests that wait for the end of a lease.
func newWorldOf(t testing.TB, lease registry.LeaseOptions, change ...func(*live.Options)) *world {
	t.Helper()
	w := &world{TB: t, metrics: prometheus.NewRegistry()}
	log := slog.New(slog.DiscardHandler)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	store := memstore.New()
	var err error
	w.events = event.New(w.metrics)
	w.fleet, err = registry.New(registry.Options{Store: store, Events: w.events, Metrics: w.metrics, Log: log, Lease: lease})
	must(err)
	must(w.fleet.Load(t.Context()))
	w.router, err = routing.New(routing.Options{Fleet: w.fleet, Policies: store, Events: w.events, Metrics: w.metrics, Log: log})
	must(err)
	must(w.router.LoadPolicy(t.Context()))
	verbs, err := apiv1.New(w.fleet, w.router)
	must(err)
	now := func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	hash := sha256.Sum256([]byte(token))
	must(store.SaveKeys(t.Context(), []feed.Change[access.Key]{
		{ID: root.ID, Value: &access.Key{ID: root.ID, Role: access.RoleAdmin, Hash: hash[:]}}, {ID: "k", Value: &access.Key{ID: "k", Role: access.RoleAdmin}},
	}))
	w.keys, err = access.OpenKeys(t.Context(), access.KeysOptions{Store: store, Audit: audit.Unrecorded{}, Now: now})
	must(err)
	guard, err := access.New(access.Options{Keys: w.keys, Metrics: w.metrics, Now: now})
	must(err)
	options := live.Options{
		Fleet: w.fleet, Instance: "test", Router: w.router, Verbs: verbs, Events: w.events, Metrics: w.metrics, Log: log, Timing: quick, MaxStreams: 5000, MaxMessage: 64 << 10, MaxRate: 100_000,
		Guard: guard, Audit: recorder{w: w},
	}
	for _, c := range change {
		c(&options)
	}
	w.options = options
	w.hub, err = live.New(options)
	must(err)
	w.who.Store(root)
	w.server = httptest.NewServer(http.HandlerFunc(w.serve))
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.fleet.Run(ctx) })
	hub := w.hub
	running.Go(func() { _ = hub.Run(ctx) })
	t.Cleanup(func() {
		enough, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := w.hub.Shutdown(enough); err != nil {
			t.Error(err)
		}
		w.server.Close()
		stop()
		running.Wait()
	})
	return w
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	var err error
	if r.URL.Path == "/events" {
		q := r.URL.Query()
		want := api.Subscription{Head: q.Get("head"), ModelType: q.Get("model_type"), Region: q.Get("region"), LastEventID: r.Header.Get("Last-Event-ID")}
		if types := q.Get("types"); types != "" {
			want.Types = strings.Split(types, ",")
		}
		err = w.hub.ServeEvents(rw, r, w.who.Load(), want)
	} else {
		err = w.hub.ServeWebSocket(rw, r, live.Peer{Principal: w.who.Load(), Address: netip.MustParseAddr("127.0.0.1")})
	}
	if problem, ok := errors.AsType[*apiv1.Problem](err); ok {
		http.Error(rw, problem.Error(), problem.Status())
	}
}

// register registers a head that is healthy at once.
func (w *world) register(id, region string) {
	w.Helper()
	_, err := w.fleet.Register(w.Context(), fleet.Spec{
		ID: id, Endpoint: "http://10.0.0.1:8000", Region: region, ModelTypes: []string{"llama"},
	}, &fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
	if err != nil {
		w.Fatal(err)
	}
}

// report renews the lease of a head.
func (w *world) report(id string) {
	w.Helper()
	view, err := w.fleet.Head(id)
	if err == nil {
		_, err = w.fleet.Report(id, fleet.StatusReport{Epoch: view.Lease.Epoch, Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
	}
	if err != nil {
		w.Fatal(err)
	}
}

// drain has the operator drain a head.
func (w *world) drain(id string, state fleet.AdminState) {
	w.Helper()
	if _, err := w.fleet.Patch(w.Context(), id, registry.Patch{State: &state}); err != nil {
		w.Fatal(err)
	}
}

// decide makes a decision that streams may show.
func (w *world) decide() *routing.Decision {
	w.Helper()
	d, err := w.router.Decide(&strategy.Request{ModelType: "llama"})
	if err != nil {
		w.Fatal(err)
	}
	return d
}

// value is the sum over the series of a metric whose labels have the values.
func (w *world) value(name string, labels ...string) (sum float64) {
	w.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for _, want := range labels {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetValue() == want
				}
				if !found {
					continue series
				}
			}
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// until waits for something that happens soon.
func (w *world) until(what string, is func() bool) {
	w.Helper()
	for limit := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(limit) {
			w.Fatalf("%s: not within 20 s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// readAll waits until the hub has read what was published. A stream that begins
// before gets a snapshot, and then events that are in it already.
func (w *world) readAll() {
	w.Helper()
	w.until("the hub reads", func() bool { return float64(w.hub.Read()) >= w.value("headway_events_published_total") })
}

// sent is one event of SSE as a client gets it.
type sent struct{ id, event, data string }

// listener reads Server-Sent Events.
type listener struct {
	w      *world
	body   io.ReadCloser
	header http.Header
	status int
	text   chan sent // comments have the event "comment"
	done   chan struct{}
	once   sync.Once
}

// listen subscribes; header are pairs of a name and a value.
func (w *world) listen(query string, header ...string) *listener {
	w.Helper()
	w.readAll()
	return w.open(query, header...)
}

// open is listen for a hub that may not have read all yet.
func (w *world) open(query string, header ...string) *listener {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodGet, w.server.URL+"/events"+query, http.NoBody)
	if err != nil {
		w.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := w.server.Client().Do(r)
	if err != nil {
		w.Fatal(err)
	}
	l := &listener{w: w, body: answer.Body, header: answer.Header, status: answer.StatusCode, text: make(chan sent, 256), done: make(chan struct{})}
	w.Cleanup(l.stop)
	go l.read()
	return l
}

func (l *listener) stop() {
	l.once.Do(func() { close(l.done) })
	_ = l.body.Close()
}

func (l *listener) read() {
	defer close(l.text)
	raw := make([]byte, 0, 1<<16)
	chunk := make([]byte, 1<<16)
	for {
		n, err := l.body.Read(chunk)
		raw = append(raw, chunk[:n]...)
		for {
			block, rest, whole := strings.Cut(string(raw), "\n\n")
			if !whole {
				break
			}
			raw = []byte(rest)
			var t sent
			for line := range strings.SplitSeq(block, "\n") {
				name, value, _ := strings.Cut(line, ":")
				value = strings.TrimPrefix(value, " ")
				switch name {
				case "":
					t = sent{event: "comment", data: value}
				case "id":
					t.id = value
				case "event":
					t.event = value
				case "data":
					t.data = value
				case "retry":
					t = sent{event: "retry", data: value}
				}
			}
			select {
			case l.text <- t:
			case <-l.done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// next returns the next thing sent that is neither a comment nor a retry.
func (l *listener) next() sent {
	l.w.Helper()
	for {
		select {
		case t, ok := <-l.text:
			if !ok {
				return sent{event: "end"}
			}
			if t.event != "comment" && t.event != "retry" {
				return t
			}
		case <-time.After(20 * time.Second):
			l.w.Fatal("nothing was sent for 20 s")
		}
	}
}

// want reads what is sent next and demands its event and a part of its data.
func (l *listener) want(event, part string) sent {
	l.w.Helper()
	t := l.next()
	if t.event != event || !strings.Contains(t.data, part) {
		l.w.Fatalf("sent %+v; want %s with %s", t, event, part)
	}
	return t
}

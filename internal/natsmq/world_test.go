package natsmq_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/boltstore"
	"headway/internal/calls"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/natsmq"
	"headway/internal/routing"
)

// world is a queue over a real fleet and router, with its own server on a port
// of its own.
type world struct {
	testing.TB
	fleet   *fleet.Registry
	router  *routing.Router
	events  *event.Stream
	queue   *natsmq.Queue
	metrics *prometheus.Registry
	options natsmq.Options

	mu      sync.Mutex
	counted map[string]uint64 // by queue and status
	keys    map[string]*access.Principal
	revoked map[string]bool
	closed  bool          // a credential is needed
	changed chan struct{} // closed by the next change of who may stay
	acted   []audit.Entry
	broken  bool           // the store cannot be written
	slow    time.Duration  // the store takes so long
	blocked chan struct{}  // the store waits until it is closed; nil: it does not
	stop    func()         // has Run return, and waits for that
	budget  map[string]int // messages that somebody may send yet, by id; who is not in it has no limit
	desk    *calls.Desk
}

// quick lets what takes minutes take milliseconds.
var quick = natsmq.Timing{
	BackOff: []time.Duration{20 * time.Millisecond, 30 * time.Millisecond, 40 * time.Millisecond, 50 * time.Millisecond},
	AckWait: time.Second,
	Watch:   20 * time.Millisecond, Sweep: 100 * time.Millisecond, Retry: 20 * time.Millisecond,
}

// lasting are leases that no test outlasts, however slow the machine is.
var lasting = fleet.LeaseOptions{BaseInterval: time.Hour}

func newWorld(t testing.TB, change ...func(*natsmq.Options)) *world {
	t.Helper()
	w := &world{TB: t, metrics: prometheus.NewRegistry(), counted: map[string]uint64{}, keys: map[string]*access.Principal{}, revoked: map[string]bool{}, changed: make(chan struct{})}
	log := slog.New(slog.DiscardHandler)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	note := func(e audit.Entry) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.acted = append(w.acted, e)
	}
	begin := func(ctx context.Context, e audit.Entry) (audit.EndFunc, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.acted = append(w.acted, e.By(ctx))
		return func(audit.Outcome, string, stdjson.RawMessage) {}, nil
	}
	dir := t.TempDir()
	store, err := boltstore.Open(filepath.Join(dir, "state.db"), boltstore.Options{MinFreeBytes: 1})
	must(err)
	w.events, err = event.New(event.Options{Metrics: w.metrics})
	must(err)
	w.fleet, err = fleet.New(fleet.Options{Store: &fragile{store, w}, Events: w.events, Metrics: w.metrics, Log: log, Lease: lasting, Begin: begin, Note: note})
	must(err)
	must(w.fleet.Load(t.Context()))
	w.router, err = routing.New(routing.Options{Fleet: w.fleet, Policies: store, Events: w.events, Metrics: w.metrics, Log: log, Begin: begin})
	must(err)
	must(w.router.LoadPolicy(t.Context()))
	w.desk, err = calls.New(w.fleet, w.router)
	must(err)
	o := natsmq.Options{
		Dir: filepath.Join(dir, "queue"), Listen: "127.0.0.1:0", Timing: quick, MaxBytes: 16 << 20,
		Desk: w.desk, Events: w.events, Begin: begin, Note: note, Count: w.count, Metrics: w.metrics, Log: log, Instance: "test", Version: "v1.2.3-4-gabc",
		Access: natsmq.Access{Authenticate: w.authenticate, Anonymous: w.anonymous, Ended: w.ended, Changed: w.change, Known: w.known, Spend: w.spend, Unnamed: w.unnamed},
	}
	for _, c := range change {
		c(&o)
	}
	w.options = o
	w.queue, err = natsmq.Open(o)
	must(err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.fleet.Run(ctx) })
	queue, quit := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = w.queue.Run(queue) })
	w.stop = func() {
		quit()
		serving.Wait()
	}
	t.Cleanup(func() {
		w.stop()
		must(w.queue.Close())
		stop()
		running.Wait()
		must(store.Close())
	})
	return w
}

// fragile is a store that can be broken.
type fragile struct {
	*boltstore.Store
	w *world
}

func (f *fragile) Save(ctx context.Context, changes []fleet.Change) error {
	f.w.mu.Lock()
	broken, slow, blocked := f.w.broken, f.w.slow, f.w.blocked
	f.w.mu.Unlock()
	if blocked != nil {
		<-blocked
	}
	if slow > 0 {
		<-time.After(slow)
	}
	if broken {
		return fleet.ErrStoreUnavailable
	}
	return f.Store.Save(ctx, changes)
}

// storing lets the store be written, or not.
func (w *world) storing(possible bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = !possible
}

// slowly lets each write take so long.
func (w *world) slowly(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slow = d
}

// block lets each write wait until release is called.
func (w *world) block() (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	blocked := make(chan struct{})
	w.blocked = blocked
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.blocked = nil
		close(blocked)
	})
}

// trail is what was recorded so far.
func (w *world) trail() []audit.Entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acted)
}

func (w *world) count(queue, status string, n uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counted[queue+" "+status] += n
}

// of is how many messages of a queue have a status.
func (w *world) of(queue, status string) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counted[queue+" "+status]
}

// agree demands that each delivery was received once and ended once.
func (w *world) agree() {
	w.Helper()
	w.until("the sums agree", func() bool {
		for _, queue := range []string{"heads.register", "heads.status", "decisions.request", "decisions.outcome"} {
			ended := uint64(0)
			for _, status := range []string{"processed", "failed", "duplicate", "invalid", "dropped", "dead_lettered"} {
				ended += w.of(queue, status)
			}
			if ended != w.of(queue, "received") {
				return false
			}
		}
		return true
	})
}

func (w *world) authenticate(_ context.Context, token string, _ *tls.ConnectionState, from netip.Addr) (*access.Principal, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if token == "" {
		if !w.closed && from.IsLoopback() {
			return nobody, nil
		}
		return nil, access.ErrNoCredential
	}
	if p := w.keys[token]; p != nil && !w.revoked[p.ID] && from.IsLoopback() {
		return p, nil
	}
	return nil, access.ErrUnknown
}

var nobody = &access.Principal{Type: "anonymous", Role: access.RoleAdmin}

func (w *world) anonymous() *access.Principal {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	return nobody
}

func (w *world) ended(p *access.Principal) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.revoked[p.ID] || p == nobody && w.closed || !p.Expires.IsZero() && !time.Now().Before(p.Expires)
}

func (w *world) change() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// revoke ends a key, and tells of it.
func (w *world) revoke(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revoked[id] = true
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) known(id string) *access.Principal {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == local.ID {
		return local
	}
	for _, p := range w.keys {
		if p.Type == "key" && p.ID == id && !w.revoked[id] {
			return p
		}
	}
	return nil
}

// local is the user of the service.
var local = &access.Principal{Type: "local", ID: "local", Role: access.RoleAdmin}

// everybody is who sends on subjects that all share.
var everybody = &access.Principal{Type: "system", ID: "unnamed", Role: access.RoleOperator}

func (w *world) unnamed() *access.Principal {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return everybody
	}
	return nil
}

func (w *world) spend(p *access.Principal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	left, limited := w.budget[p.ID]
	switch {
	case !limited:
		return nil
	case left == 0:
		return &access.LimitedError{Limit: "key", RetryAfter: time.Second}
	}
	w.budget[p.ID]--
	return nil
}

// allow lets somebody send so many messages more.
func (w *world) allow(id string, messages int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.budget == nil {
		w.budget = map[string]int{}
	}
	w.budget[id] = messages
}

// key adds a key whose secret is its id.
func (w *world) key(id string, role access.Role, heads ...string) *access.Principal {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &access.Principal{Type: "key", ID: id, Role: role, Heads: heads}
	w.keys[id], w.closed = p, true
	return p
}

// token adds a token of an issuer, and returns the id by which subjects name it.
func (w *world) token(text string, p access.Principal) (id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.Type = "jwt"
	w.keys[text], w.closed = &p, true
	sum := sha256.Sum256([]byte(text))
	return "jwt-" + hex.EncodeToString(sum[:16])
}

// bearer connects with a token.
func (w *world) bearer(text, id string, options ...nats.Option) *nats.Conn {
	w.Helper()
	return w.connect(append(options, nats.Token(text), nats.CustomInboxPrefix("_INBOX."+id))...)
}

// connect connects as a client; options say who it is. A busy machine may need
// more time for it than the server gives.
func (w *world) connect(options ...nats.Option) *nats.Conn {
	w.Helper()
	options = append(options, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.Timeout(30*time.Second))
	for limit := time.Now().Add(time.Minute); ; {
		nc, err := nats.Connect("nats://"+w.queue.Addr(), options...)
		if err == nil {
			w.Cleanup(nc.Close)
			return nc
		}
		if errors.Is(err, nats.ErrAuthorization) || time.Now().After(limit) {
			w.Fatal(err)
		}
	}
}

// as is the options of who has a key.
func as(id string) []nats.Option {
	return []nats.Option{nats.Token(id), nats.CustomInboxPrefix("_INBOX." + id)}
}

// ask makes a request and demands an answer with a part.
func (w *world) ask(nc *nats.Conn, subject, body, part string) *nats.Msg {
	w.Helper()
	m, err := nc.Request(subject, []byte(body), 10*time.Second)
	if err != nil {
		w.Fatalf("%s: %v", subject, err)
	}
	if !strings.Contains(string(m.Data), part) {
		w.Fatalf("%s: %s %v; want %s", subject, m.Data, m.Header, part)
	}
	return m
}

// until waits for something that happens soon.
func (w *world) until(what string, is func() bool) {
	w.Helper()
	for limit := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(limit) {
			w.mu.Lock()
			counted := maps.Clone(w.counted)
			w.mu.Unlock()
			w.Fatalf("%s: not within 30 s; counted %v", what, counted)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// ready waits until the streams are there.
func (w *world) ready() {
	w.Helper()
	w.until("the queue is ready", func() bool { ok, _ := w.queue.Ready(); return ok })
}

func registration(id string) string {
	return fmt.Sprintf(`{"id":%q,"endpoint":"http://10.0.0.1:8000","model_type":"llama","region":"us-east","status":"active"}`, id)
}

// jetStream is JetStream by a connection.
func jetStream(t testing.TB, nc *nats.Conn, options ...jetstream.JetStreamOpt) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc, options...)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// stuck replaces the consumer of commands by that of a service that died of the
// only delivery, and gives it a command.
func (w *world) stuck() jetstream.Consumer {
	w.Helper()
	js := jetStream(w, w.connect())
	if err := js.DeleteConsumer(w.Context(), "HEADWAY_COMMANDS", "headway"); err != nil {
		w.Fatal(err)
	}
	consumer, err := js.CreateConsumer(w.Context(), "HEADWAY_COMMANDS", jetstream.ConsumerConfig{
		Durable: "headway", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 1, AckWait: 50 * time.Millisecond,
	})
	if err != nil {
		w.Fatal(err)
	}
	if _, err := js.Publish(w.Context(), "headway.v1.decisions.outcome", []byte(`{"decision_id":"x","result":"ok"}`)); err != nil {
		w.Fatal(err)
	}
	if _, err := consumer.Next(jetstream.FetchMaxWait(30 * time.Second)); err != nil {
		w.Fatal(err)
	}
	return consumer
}

package natsmq_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/natsmq"
	"headway/internal/registry"
	"headway/internal/routing"
)

// world is a queue over a real fleet and router, with its own server on a port
// of its own.
type world struct {
	testing.TB
	fleet   *registry.Registry
	router  *routing.Router
	events  *event.Stream
	queue   *natsmq.Queue
	metrics *prometheus.Registry
	options natsmq.Options

	mu      sync.Mutex
	acted   []audit.Entry
	broken  bool          // the store cannot be written
	saved   []time.Time   // when that was tried
	slow    time.Duration // the store takes so long
	blocked chan struct{} // the store waits until it is closed; nil: it does not
	stop    func()        // has Run return, and waits for that
	verbs   *apiv1.Verbs

	store  *memstore.Store
	keys   *access.Keys
	guard  *access.Guard
	issuer *issuer                // nil: no tokens are trusted
	ahead  atomic.Int64           // of the clock that credentials end by
	asked  atomic.Pointer[func()] // called whenever the guard looks at the clock, and before a note
}

// quick lets what takes minutes take milliseconds.
var quick = natsmq.Timing{
	BackOff: []time.Duration{20 * time.Millisecond, 30 * time.Millisecond, 40 * time.Millisecond, 50 * time.Millisecond},
	AckWait: time.Second,
	Watch:   20 * time.Millisecond, Sweep: 100 * time.Millisecond, Retry: 20 * time.Millisecond,
}

// lasting are leases that no test outlasts, however slow the machine is.
var lasting = registry.LeaseOptions{BaseInterval: time.Hour}

func newWorld(t testing.TB, change ...func(*natsmq.Options)) *world {
	t.Helper()
	return newWorldOf(t, plenty, func(*world, *access.Options) {}, change...)
}

// recorder keeps what is recorded.
type recorder struct{ w *world }

func (r recorder) add(e audit.Entry) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.acted = append(r.w.acted, e)
}

func (r recorder) Note(e audit.Entry) {
	r.w.interrupt()
	r.add(e)
}

func (r recorder) Happened(e audit.Entry) { r.Note(e) }

func (r recorder) Begin(ctx context.Context, e audit.Entry) (audit.EndFunc, error) {
	r.add(e.By(ctx))
	return func(audit.Outcome, string, stdjson.RawMessage) {}, nil
}

// plenty is so often that no test asks more often.
const plenty = 1e6

// newWorldOf is a world whose keys may send so many messages a second, with
// another guard.
func newWorldOf(t testing.TB, rate float64, guard func(*world, *access.Options), change ...func(*natsmq.Options)) *world {
	t.Helper()
	w := &world{TB: t, metrics: prometheus.NewRegistry()}
	log := slog.New(slog.DiscardHandler)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	store := memstore.New()
	var err error
	w.events = event.New(w.metrics)
	w.fleet, err = registry.New(registry.Options{Store: &fragile{store, w}, Events: w.events, Metrics: w.metrics, Log: log, Lease: lasting, Audit: recorder{w}})
	must(err)
	must(w.fleet.Load(t.Context()))
	w.router, err = routing.New(routing.Options{Fleet: w.fleet, Policies: store, Events: w.events, Metrics: w.metrics, Log: log, Audit: recorder{w}})
	must(err)
	must(w.router.LoadPolicy(t.Context()))
	w.verbs, err = apiv1.New(w.fleet, w.router)
	must(err)
	w.store = store
	w.keys, err = access.OpenKeys(t.Context(), access.KeysOptions{Store: store, Audit: audit.Unrecorded{}, Rate: rate, Now: w.now})
	must(err)
	who := access.Options{Keys: w.keys, Metrics: w.metrics, Now: w.now, LocalToken: filepath.Join(dir, "local.token")}
	guard(w, &who)
	w.guard, err = access.New(who)
	must(err)
	o := natsmq.Options{
		Dir: filepath.Join(dir, "queue"), Listen: "127.0.0.1:0", Timing: quick, MaxBytes: 16 << 20,
		Verbs: w.verbs, Events: w.events, Audit: recorder{w}, Messages: natsmq.NewMessages(w.metrics), Metrics: w.metrics, Log: log, Guard: w.guard, Instance: "test", Version: "v1.2.3-4-gabc",
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
	})
	return w
}

// fragile is a store that can be broken.
type fragile struct {
	*memstore.Store
	w *world
}

func (f *fragile) Save(ctx context.Context, changes []feed.Change[fleet.Record]) error {
	f.w.mu.Lock()
	broken, slow, blocked := f.w.broken, f.w.slow, f.w.blocked
	f.w.saved = append(f.w.saved, time.Now())
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

// listen subscribes, and returns once the server knows.
func (w *world) listen(nc *nats.Conn, subject string) *nats.Subscription {
	w.Helper()
	sub, err := nc.SubscribeSync(subject)
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		w.Fatal(err)
	}
	return sub
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

// of is how many messages of a queue have a status.
func (w *world) of(queue, status string) uint64 {
	w.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			l := m.GetLabel()
			if f.GetName() == "message_queue_messages_total" && l[0].GetValue() == queue && l[1].GetValue() == status {
				return uint64(m.GetCounter().GetValue())
			}
		}
	}
	w.Fatalf("there is no counter of %s, %s", queue, status)
	return 0
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

// now is the clock that credentials end by.
func (w *world) now() time.Time {
	w.interrupt()
	return time.Now().Add(time.Duration(w.ahead.Load()))
}

// interrupt calls what a test wants to have called.
func (w *world) interrupt() {
	if asked := w.asked.Load(); asked != nil {
		(*asked)()
	}
}

// within reports whether a function of ours is being carried out.
func within(function string) bool { return bytes.Contains(debug.Stack(), []byte("."+function+"(")) }

// secret is the text of the key with the id.
func secret(id string) string { return "hw_" + id + "_secret" }

// key adds a key.
func (w *world) key(id string, role access.Role, heads ...string) {
	w.keyUntil(time.Time{}, id, role, heads...)
}

// keyUntil adds a key that expires, which the guard looks at the clock for.
func (w *world) keyUntil(expires time.Time, id string, role access.Role, heads ...string) {
	w.Helper()
	hash := sha256.Sum256([]byte(secret(id)))
	k := access.Key{ID: id, Name: id, Role: role, Heads: heads, Hash: hash[:], ExpiresAt: expires}
	if err := errors.Join(w.store.SaveKeys(context.Background(), []feed.Change[access.Key]{{ID: id, Value: &k}}), w.keys.Load(context.Background())); err != nil {
		w.Fatal(err)
	}
}

// revoke ends a key, and notifies of it.
func (w *world) revoke(id string) {
	if err := w.keys.Revoke(context.Background(), id); err != nil {
		w.Error(err)
	}
}

// issuer signs tokens.
type issuer struct {
	url    string
	key    ed25519.PrivateKey
	tokens sync.Map // by the names that tests give them
}

// issued is a guard that trusts an issuer, so that a credential is needed.
func issued(w *world, o *access.Options) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.Fatal(err)
	}
	w.issuer = &issuer{key: key}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			_, _ = fmt.Fprintf(rw, `{"issuer":%q,"jwks_uri":%q}`, w.issuer.url, w.issuer.url+"/keys")
			return
		}
		_, _ = fmt.Fprintf(rw, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	}))
	w.issuer.url = server.URL
	w.Cleanup(server.Close)
	o.OIDC, err = access.NewOIDC(access.OIDCOptions{
		Issuer: server.URL, Audience: "headway", RolesClaim: "roles", HeadsClaim: "heads", Now: w.now, Client: server.Client(),
	})
	if err != nil {
		w.Fatal(err)
	}
}

// token makes a token, and returns the id by which subjects name it. Unless it
// says otherwise it is good for an hour.
func (w *world) token(name string, p access.Principal) (id string) {
	part := func(v map[string]any) string {
		b, _ := stdjson.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	if p.Expires.IsZero() {
		p.Expires = time.Now().Add(time.Hour)
	}
	text := part(map[string]any{"alg": "EdDSA", "kid": "1"}) + "." + part(map[string]any{
		"iss": w.issuer.url, "aud": "headway", "sub": p.ID, "jti": name, "exp": p.Expires.Unix(), "roles": p.Role, "heads": p.Heads,
	})
	text += "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(w.issuer.key, []byte(text)))
	w.issuer.tokens.Store(name, text)
	sum := sha256.Sum256([]byte(text))
	return "jwt-" + hex.EncodeToString(sum[:16])
}

// shows is the option of a token.
func (w *world) shows(name string) nats.Option {
	text, _ := w.issuer.tokens.Load(name)
	return nats.Token(text.(string))
}

// bearer connects with a token.
func (w *world) bearer(name, id string, options ...nats.Option) *nats.Conn {
	w.Helper()
	return w.connect(append(options, w.shows(name), nats.CustomInboxPrefix("_INBOX."+id))...)
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
	return []nats.Option{nats.Token(secret(id)), nats.CustomInboxPrefix("_INBOX." + id)}
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
			w.Fatalf("%s: not within 30 s", what)
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

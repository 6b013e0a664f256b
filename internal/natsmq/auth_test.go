package natsmq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/natsmq"
)

// Answers go to inboxes only: a caller that names another subject would have us write
// where they may not.
func TestAnswersGoToTheCallersInboxOnly(t *testing.T) {
	w := newWorld(t)
	nc := w.connect()
	w.ask(nc, "headway.v1.heads.register", registration("gpu-1"), `"lease"`)
	sub := w.listen(nc, "headway.v1.events.head.expired")
	for _, queue := range []string{"decisions.request", "heads.register", "heads.status"} {
		if err := nc.PublishRequest("headway.v1."+queue, "headway.v1.events.head.expired", []byte(`{"model_type":"llama"}`)); err != nil {
			t.Fatal(err)
		}
	}
	w.until("they are taken", func() bool {
		return w.of("decisions.request", "received")+w.of("heads.register", "received")+w.of("heads.status", "received") == 4
	})
	w.agree()
	w.ask(nc, "headway.v1.decisions.request", `{"model_type":"llama"}`, `"decision_id"`)
	if m, err := sub.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("published %s", m.Data)
	}
}

// denied reports whether the server refuses to let a connection publish, or
// subscribe. It answers a violation before the flush, and the connection has it
// then.
func denied(t *testing.T, nc *nats.Conn, subject string, subscribe bool) bool {
	t.Helper()
	attempt := `Publish to "`
	if subscribe {
		attempt = `Subscription to "`
		sub, err := nc.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sub.Unsubscribe() }()
	} else if err := nc.Publish(subject, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
	err := nc.LastError()
	return errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), attempt+subject+`"`)
}

func TestEachRoleMayUseItsSubjectsOnly(t *testing.T) {
	w := newWorld(t)
	w.ready()
	connections := map[access.Role]*nats.Conn{}
	for _, role := range access.Roles() {
		id := "k-" + string(role)
		w.key(id, role, map[bool][]string{true: {"gpu-*"}}[role == access.RoleHead]...)
		connections[role] = w.connect(append(as(id), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
	}
	everyRole := "viewer operator admin head client"
	for subject, may := range map[string]string{
		"pub headway.v1.decisions.request":               "operator admin client",
		"pub headway.v1.decisions.outcome":               "operator admin client",
		"pub headway.v1.decisions.request.ME":            "operator admin client",
		"pub headway.v1.decisions.outcome.ME":            "operator admin client",
		"pub headway.v1.decisions.request.k-other":       "admin",
		"pub headway.v1.stored.decisions.outcome":        "",
		"pub headway.v1.audit":                           "",
		"pub headway.v1.heads.register":                  "operator admin",
		"pub headway.v1.heads.status":                    "operator admin",
		"pub headway.v1.commands.heads.register":         "operator admin",
		"pub headway.v1.heads.status.ME":                 "operator admin head",
		"pub headway.v1.heads.register.ME":               "operator admin head",
		"pub headway.v1.commands.heads.register.ME":      "operator admin head",
		"pub headway.v1.heads.status.k-other":            "admin",
		"pub headway.v1.heads.status.ME.more":            "admin",
		"pub headway.v1.events.head.expired":             "",
		"pub headway.v1.dead_letters.x":                  "admin",
		"pub $JS.API.STREAM.DELETE.HEADWAY_DEAD_LETTERS": "admin",
		"pub $SRV.PING":                                  "viewer operator admin",
		"pub $SYS.REQ.SERVER.PING":                       "",
		"pub _INBOX.k-other.x":                           "",
		"sub headway.v1.events.>":                        "viewer operator admin",
		"sub headway.v1.audit":                           "viewer operator admin",
		"sub headway.v1.decisions.request":               "admin",
		"sub headway.v1.heads.>":                         "admin",
		"sub >":                                          "",
		"sub _INBOX.>":                                   "admin",
		"sub _INBOX.k-other.>":                           "admin",
		"sub _INBOX.ME.>":                                everyRole,
		"sub $JS.API.>":                                  "",
	} {
		kind, template, _ := strings.Cut(subject, " ")
		for _, role := range access.Roles() {
			want := !strings.Contains(" "+may+" ", " "+string(role)+" ")
			if strings.Contains(template, "STREAM.DELETE") && !want {
				continue // it would do it
			}
			if got := denied(t, connections[role], strings.ReplaceAll(template, "ME", "k-"+string(role)), kind == "sub"); got != want {
				t.Errorf("%s as %s: denied %v; want %v", subject, role, got, want)
			}
		}
	}
}

func TestAHeadSpeaksForItselfOnly(t *testing.T) {
	w := newWorld(t)
	w.key("k-1", access.RoleHead, "gpu-*")
	w.key("k-2", access.RoleHead, "cpu-*")
	one, two := w.connect(as("k-1")...), w.connect(as("k-2")...)
	w.ask(one, "headway.v1.heads.register.k-1", registration("gpu-1"), `"lease"`)
	w.ask(one, "headway.v1.heads.register.k-1", registration("cpu-1"), `"forbidden"`)
	w.ask(two, "headway.v1.heads.status.k-2", `{"id":"gpu-1","epoch":1,"status":"offline"}`, `"forbidden"`)
	w.agree()
	var trail []string
	for _, e := range w.trail() {
		trail = append(trail, fmt.Sprint(e.Category, " ", e.Action, " ", e.Outcome, " ", e.Actor.Type, ":", e.Actor.ID, " ", e.Actor.Via, " ", e.Target.ID))
	}
	want := []string{
		"head head.register success key:k-1 nats gpu-1",
		"auth head.register denied key:k-1 nats NATS headway.v1.heads.register",
		"auth access denied key:k-2 nats NATS headway.v1.heads.status",
	}
	if !slices.Equal(trail, want) {
		t.Errorf("the trail has %q; want %q", trail, want)
	}
}

func TestWrongCredentialsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.key("k-1", access.RoleClient)
	for name, options := range map[string][]nats.Option{
		"none": nil, "a guess": {nats.Token("guess")}, "a password": {nats.UserInfo("x", "guess")},
	} {
		if nc, err := nats.Connect("nats://"+w.queue.Addr(), options...); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v", name, err)
			if nc != nil {
				nc.Close()
			}
		}
	}
	w.connect(nats.UserInfo("anybody", secret("k-1")))
}

// What ends a connection is the change itself: nothing polls.
func TestARevokedKeyIsDisconnected(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.Timing.Watch = time.Hour })
	w.key("k-1", access.RoleClient)
	gone := make(chan struct{}, 8)
	nc := w.connect(append(as("k-1"), nats.DisconnectErrHandler(func(*nats.Conn, error) { gone <- struct{}{} }))...)
	w.ask(nc, "headway.v1.decisions.request", `{"model_type":"x"}`, `"unknown_model_type"`)
	w.revoke("k-1")
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("it is still connected")
	}
}

// A key that is revoked while it is looked at admits no connection afterwards: the
// look that ends connections has passed then, as the connection of another key
// shows.
func TestAKeyThatIsRevokedMeanwhileIsRefused(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.Timing.Watch = time.Hour })
	w.keyUntil(time.Now().Add(time.Hour), "other", access.RoleClient)
	w.key("k-1", access.RoleClient)
	w.connect(as("other")...)
	var revoked atomic.Bool
	looked := make(chan struct{}, 1)
	asked := func() {
		switch {
		case within("check") && revoked.Load(): // it looks at the other
			select {
			case looked <- struct{}{}:
			default:
			}
		case within("AuthenticateConnection") && revoked.CompareAndSwap(false, true):
			w.revoke("k-1")
			<-looked
			w.guard.AuthoritiesChanged() // the first look may have begun before
			<-looked
		}
	}
	w.asked.Store(&asked)
	nc, err := nats.Connect("nats://"+w.queue.Addr(), append(as("k-1"), nats.Timeout(30*time.Second))...)
	if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("%v; want a refusal", err)
	}
	if nc != nil {
		nc.Close()
	}
}

func TestAnOpenServiceThatIsClosedEndsAnonymousConnections(t *testing.T) {
	w := newWorld(t)
	gone := make(chan struct{}, 8)
	nc := w.connect(nats.DisconnectErrHandler(func(*nats.Conn, error) { gone <- struct{}{} }))
	w.ask(nc, "headway.v1.decisions.request", `{"model_type":"x"}`, `"unknown_model_type"`)
	w.key("first", access.RoleAdmin)
	<-gone
}

func TestAnotherAddressThanLoopbackNeedsKeysAndTLS(t *testing.T) {
	_, err := natsmq.Open(natsmq.Options{})
	if err == nil {
		t.Error("nothing is required")
	}
	w := newWorld(t)
	o := w.options
	o.Dir, o.Listen, o.Metrics = t.TempDir(), "0.0.0.0:0", prometheus.NewRegistry()
	if _, err := natsmq.Open(o); err == nil || !strings.Contains(err.Error(), "needs a key") {
		t.Errorf("0.0.0.0: %v", err)
	}
}

// A service that answers publishes to inboxes only: the service's answers
// to those who look for it, and acknowledgements of the stream.
func TestAnswersGoToInboxesOnly(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.key("k-viewer", access.RoleViewer)
	w.key("k-client", access.RoleClient)
	w.key("k-head", access.RoleHead, "gpu-*")
	w.key("k-admin", access.RoleAdmin)
	var mu sync.Mutex
	var heard []string
	admin := w.connect(as("k-admin")...)
	hear := func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, m.Subject+" "+string(m.Data))
	}
	targets := []string{"headway.v1.events.head.expired", "headway.v1.dead_letters.x", "headway.v1.heads.status", "headway.v1.stored.decisions.outcome", "somewhere"}
	for _, target := range targets[:len(targets)-1] {
		if _, err := admin.Subscribe(target, hear); err != nil {
			t.Fatal(err)
		}
	}
	if err := admin.Flush(); err != nil {
		t.Fatal(err)
	}
	for who, subjects := range map[string][]string{
		"k-viewer": {"$SRV.PING", "$SRV.INFO.headway", "$SRV.STATS"},
		"k-client": {"headway.v1.decisions.outcome", "headway.v1.decisions.outcome.k-client"},
		"k-head":   {"headway.v1.commands.heads.register.k-head", "headway.v1.heads.status.k-head", "headway.v1.heads.register.k-head"},
	} {
		nc := w.connect(as(who)...)
		for _, subject := range subjects {
			for _, target := range targets {
				if err := nc.PublishRequest(subject, target, []byte("{")); err != nil {
					t.Fatal(err)
				}
			}
			// It is answered after those, or at the same time.
			if _, err := nc.Request(subject, []byte("{"), 10*time.Second); err != nil {
				t.Fatalf("%s: %v", subject, err)
			}
		}
	}
	outcomes := uint64(2 * (len(targets) + 1))
	w.until("the commands are buried", func() bool { return w.of("dead_letters", "published") == outcomes+uint64(len(targets)+1) })
	w.agree()
	if n := w.of("decisions.outcome", "received"); n != outcomes {
		t.Errorf("%d outcomes; want %d", n, outcomes)
	}
	if err := admin.Flush(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, m := range heard {
		if !strings.HasPrefix(m, "headway.v1.stored.decisions.outcome {") || strings.Contains(m, "HEADWAY_COMMANDS") {
			t.Errorf("published %s", m)
		}
	}
	_, total, err := w.queue.DeadLetters(t.Context(), 0, 1)
	if err != nil || total != outcomes+uint64(len(targets)+1) {
		t.Errorf("%d dead letters, %v", total, err)
	}
}

// Where the subject says who asks, no other caller is answered.
func TestOnlyTheSendersOwnInboxIsAnswered(t *testing.T) {
	w := newWorld(t)
	w.key("k-client", access.RoleClient)
	w.key("k-head", access.RoleHead, "gpu-*")
	w.key("k-victim", access.RoleViewer)
	heard, err := w.connect(as("k-victim")...).SubscribeSync("_INBOX.k-victim.>")
	if err != nil {
		t.Fatal(err)
	}
	for who, subjects := range map[string][]string{
		"k-client": {"decisions.request", "decisions.outcome"}, "k-head": {"heads.register", "heads.status", "commands.heads.register"},
	} {
		nc := w.connect(as(who)...)
		for _, subject := range subjects {
			subject = "headway.v1." + subject + "." + who
			if err := nc.PublishRequest(subject, "_INBOX.k-victim.x", []byte("{}")); err != nil {
				t.Fatal(err)
			}
			if _, err := nc.Request(subject, []byte("{}"), 10*time.Second); err != nil {
				t.Errorf("%s: %v", subject, err)
			}
		}
	}
	if m, err := heard.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("somebody else's inbox has %s", m.Data)
	}
	// An administrator reads all inboxes, and has one without an id.
	w.key("k-admin", access.RoleAdmin)
	w.ask(w.connect(nats.Token(secret("k-admin"))), "headway.v1.decisions.request.k-admin", `{"model_type":"x"}`, `"unknown_model_type"`)
}

// A subject that does not name its sender says nothing of who asks, so that it
// is answered only where the answer finds none but those who asked: never in an
// inbox that others can guess, and to the libraries' own inboxes as ever.
func TestNoAnswerReachesAnotherWhoDidNotAsk(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.key("k-a", access.RoleOperator)
	w.key("k-b", access.RoleClient)
	w.key("k-c", access.RoleClient)
	w.key("k-admin", access.RoleAdmin)
	a, b, c := w.connect(as("k-a")...), w.connect(as("k-b")...), w.connect(as("k-c")...)
	all, fixed := w.listen(b, "_INBOX.k-b.>"), w.listen(c, "_INBOX.k-c.answers")
	w.listen(w.connect(nats.Token(secret("k-admin"))), "_INBOX.>") // does not keep others from their answers
	random := strings.Repeat("z", 22)
	for _, subject := range []string{"decisions.request", "decisions.outcome", "heads.register", "heads.status", "commands.heads.register"} {
		for _, reply := range []string{"k-b.x", "k-b." + random, "k-b." + random + ".1", "k-b." + random + ".1.2", "k-b.", "k-b", "k-c.answers"} {
			if err := a.PublishRequest("headway.v1."+subject, "_INBOX."+reply, []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
		// One at a time: what was asked before has been looked at then.
		if m, err := a.Request("headway.v1."+subject, []byte("{}"), 10*time.Second); err != nil {
			t.Errorf("%s in the inbox of the library: %v", subject, err)
		} else if len(m.Data) == 0 {
			t.Errorf("%s: an empty answer", subject)
		}
	}
	w.agree()
	for name, sub := range map[string]*nats.Subscription{"all inboxes of b": all, "an inbox of c with a fixed name": fixed} {
		if m, err := sub.NextMsg(50 * time.Millisecond); err == nil {
			t.Errorf("%s: %s %s", name, m.Subject, m.Data)
		}
	}
	w.ask(c, "headway.v1.decisions.request", `{"model_type":"x"}`, `"unknown_model_type"`)
	c.Opts.UseOldRequestStyle = true // an inbox for each request
	w.ask(c, "headway.v1.decisions.request", `{"model_type":"x"}`, `"unknown_model_type"`)
	w.ask(w.connect(nats.Token(secret("k-admin"))), "headway.v1.decisions.request", `{"model_type":"x"}`, `"unknown_model_type"`)
}

// A key has the same allowance here as elsewhere; those who do not say who they
// are have one together.
func TestWhoAsksTooOftenIsRefused(t *testing.T) {
	w := newWorldOf(t, 1e-6, func(*world, *access.Options) {}) // five at once, and then none
	w.ready()
	w.key("k-client", access.RoleClient)
	w.key("k-head", access.RoleHead, "gpu-*")
	client, head := w.connect(as("k-client")...), w.connect(as("k-head")...)
	for _, c := range []struct {
		nc            *nats.Conn
		subject, body string
		limited       bool
	}{
		{client, "decisions.request.k-client", `{"model_type":"x"}`, false},
		{client, "decisions.request.k-client", `{"model_type":"x"}`, false},
		{client, "decisions.request.k-client", `{"model_type":"x"}`, false},
		{client, "decisions.request.k-client", `{"model_type":"x"}`, false},
		{client, "decisions.outcome.k-client", `{}`, false},
		{client, "decisions.request.k-client", `{"model_type":"x"}`, true},
		{client, "decisions.outcome.k-client", `{}`, true},
		{client, "decisions.request", `{"model_type":"x"}`, false},
		{client, "decisions.request", `{"model_type":"x"}`, false},
		{client, "decisions.request", `{"model_type":"x"}`, false},
		{client, "decisions.request", `{"model_type":"x"}`, false},
		{client, "decisions.outcome", `{}`, false},
		{client, "decisions.request", `{"model_type":"x"}`, true},
		{client, "decisions.outcome", `{}`, true},
		{head, "heads.register.k-head", registration("gpu-1"), false},
		{head, "heads.status.k-head", `{"id":"gpu-1","epoch":1,"status":"active"}`, false},
		{head, "heads.status.k-head", `{"id":"gpu-1","epoch":1,"status":"active"}`, false},
		{head, "heads.status.k-head", `{"id":"gpu-1","epoch":1,"status":"active"}`, false},
		{head, "commands.heads.register.k-head", registration("gpu-1"), false},
		{head, "heads.register.k-head", registration("gpu-1"), true},
		{head, "heads.status.k-head", `{"id":"gpu-1","epoch":1,"status":"active"}`, true},
		{head, "commands.heads.register.k-head", registration("gpu-1"), true},
	} {
		m, err := c.nc.Request("headway.v1."+c.subject, []byte(c.body), 10*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", c.subject, err)
		}
		if got := m.Header.Get(micro.ErrorHeader) == "rate_limited"; got != c.limited || got != (m.Header.Get(micro.ErrorCodeHeader) == "429") {
			t.Errorf("%s: limited %v; want %v; %s %v", c.subject, got, c.limited, m.Data, m.Header)
		}
	}
	w.until("the commands are carried out", func() bool {
		return w.of("heads.register", "processed") == 2 && w.of("dead_letters", "published") == 2
	})
	w.agree()
	js := jetStream(t, client)
	_, err := js.Publish(t.Context(), "headway.v1.decisions.outcome.k-client", []byte(`{}`))
	if no, ok := errors.AsType[*jetstream.APIError](err); !ok || no.Code != 429 {
		t.Errorf("a client of streams gets %v", err)
	}
	for _, e := range w.trail() {
		if e.Outcome == audit.Denied {
			t.Errorf("the trail has %+v", e)
		}
	}
}

func TestWrongCredentialsAreOnRecord(t *testing.T) {
	w := newWorld(t)
	w.key("k-1", access.RoleClient)
	if nc, err := nats.Connect("nats://"+w.queue.Addr(), nats.Token("guess")); err == nil {
		nc.Close()
		t.Fatal("a guess is enough")
	}
	trail := w.trail()
	if len(trail) == 0 || trail[0].Action != "access" || trail[0].Outcome != audit.Denied || trail[0].Source.IP != "127.0.0.1" || trail[0].Actor.Via != "nats" {
		t.Errorf("the trail has %+v", trail)
	}
}

// What others cause does not fill the log.
func TestAFloodOfViolationsIsLeftOutOfTheLog(t *testing.T) {
	var lines, leftOut atomic.Int64
	log := slog.New(counter(func(r slog.Record) {
		if r.Level >= slog.LevelError {
			t.Errorf("an error: %s", r.Message)
		}
		lines.Add(1)
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "left_out" {
				leftOut.Add(a.Value.Int64())
			}
			return true
		})
	}))
	w := newWorld(t, func(o *natsmq.Options) { o.Log = log })
	w.ready()
	w.key("k-viewer", access.RoleViewer)
	nc := w.connect(append(as("k-viewer"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
	before := lines.Load()
	const n = 2000
	for range n {
		if err := nc.Publish("headway.v1.heads.register", nil); err != nil {
			t.Fatal(err)
		}
		if err := nc.PublishRequest("$SRV.PING", "somewhere", nil); err != nil { // the service may not publish there
			t.Fatal(err)
		}
	}
	if _, err := nc.Request("$SRV.PING", nil, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if err := w.queue.Close(); err != nil {
		t.Fatal(err)
	}
	if said := lines.Load() - before; said > 100 || leftOut.Load() < n {
		t.Errorf("%d lines, %d left out", said, leftOut.Load())
	}
}

// counter is a log that counts.
type counter func(slog.Record)

func (counter) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }
func (c counter) Handle(_ context.Context, r slog.Record) error  { c(r); return nil }
func (c counter) WithAttrs([]slog.Attr) slog.Handler             { return c }
func (c counter) WithGroup(string) slog.Handler                  { return c }

// A token is known by its connections, until the last one has ended.
func TestATokenIsKnownWhileConnected(t *testing.T) {
	w := newWorldOf(t, plenty, issued)
	id := w.token("t.o.k", access.Principal{ID: "https://issuer.example#somebody", Role: access.RoleOperator})
	first, second := w.bearer("t.o.k", id), w.bearer("t.o.k", id)
	subject := "headway.v1.heads.register." + id
	w.ask(first, subject, registration("gpu-1"), `"lease"`)
	first.Close()
	for range 30 { // the connection is forgotten meanwhile, and what has no other
		<-time.After(quick.Watch)
		w.ask(second, subject, registration("gpu-1"), `"lease"`)
	}
	second.Close()
	w.key("k-admin", access.RoleAdmin)
	admin := w.connect(nats.Token(secret("k-admin")))
	w.until("it is known no more", func() bool {
		if err := admin.Publish(subject, []byte(registration("gpu-1"))); err != nil {
			t.Fatal(err)
		}
		return w.of("heads.register", "invalid") > 0
	})
}

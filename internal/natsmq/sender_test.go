package natsmq_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"headway/api"
	"headway/internal/access"
	"headway/internal/natsmq"
)

// Several tokens of one subject have each their own rights, no matter which of them
// are connected and in which order they come and go.
func TestTokensOfOneSubjectHaveTheirOwnRights(t *testing.T) {
	w := newWorldOf(t, plenty, issued)
	const sub = "robots"
	a := w.token("a.a.a", access.Principal{ID: sub, Role: access.RoleHead, Heads: []string{"a-*"}})
	b := w.token("b.b.b", access.Principal{ID: sub, Role: access.RoleHead, Heads: []string{"b-*"}})
	c := w.token("c.c.c", access.Principal{ID: sub, Role: access.RoleClient})
	denied := make(chan error, 16)
	nc := w.bearer("a.a.a", a, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	client := w.bearer("c.c.c", c)
	n := 0
	check := func(when string) {
		t.Helper()
		n++
		w.ask(nc, "headway.v1.heads.register."+a, registration(fmt.Sprint("a-", n)), `"lease"`)
		w.ask(nc, "headway.v1.heads.register."+a, registration("b-1"), `"forbidden"`)
		w.ask(client, "headway.v1.decisions.request."+c, `{"model_type":"llama"}`, `"decision_id"`)
		if err := nc.Publish("headway.v1.heads.register."+b, []byte(registration("b-1"))); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-denied:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", when, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: A may speak as B", when)
		}
	}
	check("A alone")
	other := w.bearer("b.b.b", b)
	w.ask(other, "headway.v1.heads.register."+b, registration("b-2"), `"lease"`)
	check("B is there")
	other.Close()
	for range 3 { // B is forgotten meanwhile
		<-time.After(10 * quick.Watch)
		check("B has left")
	}
	if _, err := w.fleet.Head("b-1"); err == nil {
		t.Error("A has registered a head of B")
	}
}

// brief connects with a token that expires soon: after a second or, on a machine
// that is too busy to connect by then, a little later. gone says that the
// connection has ended.
func (w *world) brief(sub string) (gone <-chan struct{}) {
	w.Helper()
	for life := time.Second; life < time.Minute; life *= 2 {
		text := "s.s." + life.String()
		id := w.token(text, access.Principal{ID: sub, Role: access.RoleClient, Expires: time.Now().Add(life)})
		ended := make(chan struct{}, 8)
		nc, err := nats.Connect("nats://"+w.queue.Addr(), w.shows(text), nats.CustomInboxPrefix("_INBOX."+id), nats.NoReconnect(),
			nats.ClosedHandler(func(*nats.Conn) { ended <- struct{}{} }))
		if err == nil {
			w.Cleanup(nc.Close)
			return ended
		}
	}
	w.Fatal("no token lasts long enough to connect with it")
	return nil
}

// A token ends its own connections when it expires, and no other's of its subject.
func TestATokenThatExpiresEndsNoOther(t *testing.T) {
	w := newWorldOf(t, plenty, issued)
	long := w.token("l.l.l", access.Principal{ID: "robots", Role: access.RoleClient, Expires: time.Now().Add(time.Hour)})
	nc := w.bearer("l.l.l", long)
	select {
	case <-w.brief("robots"):
	case <-time.After(2 * time.Minute):
		t.Fatal("it is still connected")
	}
	for range 3 {
		w.ask(nc, "headway.v1.decisions.request."+long, `{"model_type":"x"}`, `"unknown_model_type"`)
		<-time.After(quick.Watch)
	}
}

// Certificates are distinguished as tokens are.
func TestCertificatesHaveTheirOwnRights(t *testing.T) {
	dir := authority(t, "server", "one", "two")
	file := func(name string) string { return filepath.Join(dir, name) }
	pair, err := tls.LoadX509KeyPair(file("server.pem"), file("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(raw)
	named := func(_ *world, o *access.Options) {
		o.Certificates = []access.Holder{{Name: "one", Role: access.RoleHead, Heads: []string{"one-*"}}, {Name: "two", Role: access.RoleHead, Heads: []string{"two-*"}}}
	}
	w := newWorldOf(t, plenty, named, func(o *natsmq.Options) {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots}
	})
	ids, connections := map[string]string{}, map[string]*nats.Conn{}
	for _, name := range []string{"one", "two"} {
		pair, err := tls.LoadX509KeyPair(file(name+".pem"), file(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(pair.Certificate[0])
		ids[name] = "certificate-" + hex.EncodeToString(sum[:16])
		connections[name] = w.connect(nats.RootCAs(file("ca.pem")), nats.ClientCert(file(name+".pem"), file(name+".key")), nats.CustomInboxPrefix("_INBOX."+ids[name]))
	}
	for _, name := range []string{"one", "two", "one"} {
		other := map[string]string{"one": "two", "two": "one"}[name]
		w.ask(connections[name], "headway.v1.heads.register."+ids[name], registration(name+"-1"), `"lease"`)
		w.ask(connections[name], "headway.v1.heads.register."+ids[name], registration(other+"-2"), `"forbidden"`)
		w.ask(connections[name], "headway.v1.commands.heads.register."+ids[name], registration(name+"-3"), `"HEADWAY_COMMANDS"`)
	}
	w.until("the commands are carried out", func() bool { return w.of("heads.register", "processed") == 6 })
	if nc, err := nats.Connect("nats://"+w.queue.Addr(), nats.RootCAs(file("ca.pem"))); err == nil {
		nc.Close()
		t.Error("no certificate is enough")
	}
}

// A connection of a token that has no subject is refused.
func TestATokenWithoutASubjectIsRefused(t *testing.T) {
	w := newWorldOf(t, plenty, issued)
	w.token("n.n.n", access.Principal{Role: access.RoleAdmin})
	if nc, err := nats.Connect("nats://"+w.queue.Addr(), w.shows("n.n.n")); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("%v; want a refusal", err)
		if nc != nil {
			nc.Close()
		}
	}
}

// The server itself ends the connection of a token when it expires.
func TestATokensConnectionEndsWithIt(t *testing.T) {
	w := newWorldOf(t, plenty, issued, func(o *natsmq.Options) { o.Timing.Watch = time.Hour }) // no look ends it
	select {
	case <-w.brief("robots"):
	case <-time.After(2 * time.Minute):
		t.Error("it is still connected")
	}
}

// Tokens are forgotten a while after their last connection has ended, so that
// those that come and go need no more room than those that are here.
func TestTokensAreForgotten(t *testing.T) {
	w := newWorldOf(t, plenty, issued)
	for i := range 20 {
		text := fmt.Sprint("t.o.", i)
		nc := w.bearer(text, w.token(text, access.Principal{ID: "robots", Role: access.RoleClient}))
		nc.Close()
	}
	if w.queue.Credentials() == 0 {
		t.Error("none is known")
	}
	w.until("they are forgotten", func() bool { return w.queue.Credentials() == 0 })
}

// administered is a guard that knows an administrator.
func administered(w *world, _ *access.Options) { w.key("k-admin", access.RoleAdmin) }

// waiting is a world whose commands stay in the stream, in dir, until another one
// takes them.
func waiting(t *testing.T, dir string, guard func(*world, *access.Options), change ...func(*natsmq.Options)) *world {
	t.Helper()
	w := newWorldOf(t, plenty, guard, append(change, func(o *natsmq.Options) { o.Dir, o.Timing.Retry = dir, time.Hour })...)
	w.ready()
	js := jetStream(t, w.connect(nats.Token(secret("k-admin"))))
	if err := js.DeleteConsumer(t.Context(), "HEADWAY_COMMANDS", "headway"); err != nil {
		t.Fatal(err)
	}
	return w
}

// A command keeps the rights of who sent it, also when its sender is not known any
// more by the time that it is carried out: that the subject of a token is local
// gives it nothing of the local user.
func TestACommandKeepsTheRightsOfItsSender(t *testing.T) {
	dir := t.TempDir()
	w := waiting(t, dir, func(w *world, o *access.Options) {
		issued(w, o)
		administered(w, o)
	})
	id := w.token("t.o.k", access.Principal{ID: "local", Role: access.RoleHead, Heads: []string{"a-*"}, Expires: time.Now().Add(time.Hour)})
	w.key("k-kept", access.RoleHead, "k-*")
	w.key("k-lost", access.RoleHead, "k-*")
	w.key("k-client", access.RoleClient)
	nc := w.bearer("t.o.k", id)
	for _, head := range []string{"a-1", "b-1"} {
		w.ask(nc, "headway.v1.commands.heads.register."+id, registration(head), `"HEADWAY_COMMANDS"`)
	}
	for _, key := range []string{"k-kept", "k-lost"} {
		w.ask(w.connect(as(key)...), "headway.v1.commands.heads.register."+key, registration(key), `"HEADWAY_COMMANDS"`)
	}
	if err := w.queue.Close(); err != nil {
		t.Fatal(err)
	}

	next := newWorldOf(t, plenty, func(w *world, _ *access.Options) {
		w.key("k-kept", access.RoleHead, "k-*")
		w.key("k-lost", access.RoleHead, "k-*")
		w.revoke("k-lost")
	}, func(o *natsmq.Options) { o.Dir = dir })
	next.until("they are carried out", func() bool {
		return next.of("heads.register", "processed") == 2 && next.of("dead_letters", "published") == 2
	})
	next.agree()
	var acted []string
	for _, e := range next.trail() {
		acted = append(acted, fmt.Sprint(e.Action, " ", e.Outcome, " ", e.Actor.Type, ":", e.Actor.ID, " ", e.Target.ID))
	}
	slices.Sort(acted)
	want := []string{
		"head.register denied jwt:local NATS headway.v1.heads.register",
		"head.register denied key:k-lost NATS headway.v1.heads.register",
		"head.register success jwt:local a-1",
		"head.register success key:k-kept k-kept",
	}
	if !slices.Equal(acted, want) {
		t.Errorf("the trail has %q; want %q", acted, want)
	}
	letters, _, err := next.queue.DeadLetters(t.Context(), 0, 10)
	if err != nil || len(letters) != 2 {
		t.Fatalf("%+v, %v", letters, err)
	}
	codes := []string{letters[0].Code, letters[1].Code}
	if slices.Sort(codes); !slices.Equal(codes, []string{api.CodeForbidden, api.CodeUnauthenticated}) {
		t.Errorf("the letters say %q", codes)
	}
	// Put back by an administrator, it is still its sender's command.
	for _, l := range letters {
		if err := next.queue.RetryDeadLetter(t.Context(), l.Number); err != nil {
			t.Fatal(err)
		}
	}
	next.until("they are refused again", func() bool { return next.of("dead_letters", "published") == 4 })
	for _, head := range []string{"b-1", "k-lost"} {
		if _, err := next.fleet.Head(head); err == nil {
			t.Errorf("%s was registered", head)
		}
	}
}

// What was in the stream before commands kept their sender is carried out for the
// holder of a key only: no other id names one principal.
func TestACommandOfAnEarlierVersionIsThatOfAKey(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.key("k-1", access.RoleHead, "gpu-*")
	own := w.queue.Own()
	for _, id := range []string{"k-1", "local", "anonymous", "jwt-0123"} {
		if err := own.Publish("headway.v1.stored.heads.register."+id, []byte(registration("gpu-"+id))); err != nil {
			t.Fatal(err)
		}
	}
	w.until("they are carried out", func() bool {
		return w.of("heads.register", "processed") == 1 && w.of("dead_letters", "published") == 3
	})
	if _, err := w.fleet.Head("gpu-k-1"); err != nil {
		t.Error(err)
	}
}

// What a sender writes in the header of a command says nothing of who that is.
func TestNoClientWritesTheSenderOfACommand(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.key("k-1", access.RoleHead, "gpu-*")
	nc := w.connect(as("k-1")...)
	m := nats.NewMsg("headway.v1.commands.heads.register.k-1")
	m.Data = []byte(registration("cpu-1"))
	m.Header.Set("Headway-Sender", `{"type":"local","id":"local","role":"admin"}`)
	m.Header.Set("Nats-Expected-Last-Sequence", "77") // else the stream would refuse it
	if _, err := nc.RequestMsg(m, time.Minute); err != nil {
		t.Fatal(err)
	}
	w.until("it is refused", func() bool { return w.of("dead_letters", "published") == 1 })
	if letters, _, err := w.queue.DeadLetters(t.Context(), 0, 1); err != nil || letters[0].Code != api.CodeForbidden {
		t.Errorf("%+v, %v", letters, err)
	}
}

// A Nats-Msg-Id belongs to its sender: the same one of another is another
// command. Where the subject does not say who sends, the body must be the same.
func TestAMessageIDBelongsToItsSender(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.key("k-a", access.RoleClient)
	w.key("k-b", access.RoleClient)
	streams := map[string]jetstream.JetStream{}
	for _, key := range []string{"k-a", "k-b"} {
		js := jetStream(t, w.connect(as(key)...))
		streams[key] = js
	}
	for _, c := range []struct {
		key, subject, body string
		duplicate          bool
	}{
		{"k-a", "decisions.outcome.k-a", `{"decision_id":"1","result":"ok"}`, false},
		{"k-b", "decisions.outcome.k-b", `{"decision_id":"1","result":"ok"}`, false},
		{"k-b", "decisions.outcome.k-b", `{"decision_id":"1","result":"ok"}`, true},
		{"k-b", "decisions.outcome.k-b", `{"decision_id":"2","result":"ok"}`, true}, // the id says so
		{"k-a", "decisions.outcome", `{"decision_id":"1","result":"error"}`, false},
		{"k-b", "decisions.outcome", `{"decision_id":"1","result":"ok"}`, false},
		{"k-b", "decisions.outcome", `{"decision_id":"1","result":"ok"}`, true},
	} {
		ack, err := streams[c.key].Publish(t.Context(), "headway.v1."+c.subject, []byte(c.body), jetstream.WithMsgID("one"))
		if err != nil || ack.Duplicate != c.duplicate {
			t.Errorf("%s on %s: %+v, %v; duplicate: want %v", c.key, c.subject, ack, err, c.duplicate)
		}
	}
	w.until("each is looked at", func() bool { return w.of("dead_letters", "published") == 4 })
	w.agree()
	letters, _, err := w.queue.DeadLetters(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range letters {
		if l.MessageID != "one" {
			t.Errorf("the letter names %q", l.MessageID)
		}
	}
}

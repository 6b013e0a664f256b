package natsmq_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"headway/api"
	"headway/internal/access"
	"headway/internal/natsmq"
)

// abroad is a world whose queue is on an external server, and streams there.
func abroad(t *testing.T, change ...func(*natsmq.Options)) (*world, *nats.Conn, jetstream.JetStream) {
	t.Helper()
	s := newServer(t)
	nc := s.connect(t)
	js := jetStream(t, nc)
	w := newWorld(t, append(change, external(s))...)
	w.ready()
	return w, nc, js
}

// left is how many commands are in the stream.
func left(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	stream, err := js.Stream(t.Context(), "HEADWAY_COMMANDS")
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

// A delivery that comes while the first is being carried out is not acknowledged:
// the first may fail, and then the command must come again.
func TestADeliveryWhileTheFirstIsCarriedOutIsNotItsEnd(t *testing.T) {
	w, _, js := abroad(t)
	consumer, err := js.Consumer(t.Context(), "HEADWAY_COMMANDS", "headway")
	if err != nil {
		t.Fatal(err)
	}
	config := consumer.CachedInfo().Config
	config.AckWait = 100 * time.Millisecond // before the service asks for more time
	if _, err := js.UpdateConsumer(t.Context(), "HEADWAY_COMMANDS", config); err != nil {
		t.Fatal(err)
	}
	w.storing(false)
	release := w.block()
	defer release()
	if _, err := js.Publish(t.Context(), "headway.v1.commands.heads.register", []byte(registration("gpu-1"))); err != nil {
		t.Fatal(err)
	}
	w.until("it came again meanwhile", func() bool { return w.of("heads.register", "duplicate") > 0 })
	release()
	w.until("the first failed", func() bool { return w.of("heads.register", "failed")+w.of("heads.register", "dead_lettered") > 0 })
	w.storing(true)
	w.until("it is carried out, or a letter after its last delivery", func() bool {
		_, err := w.fleet.Head("gpu-1")
		return err == nil || w.of("dead_letters", "published") > 0
	})
	w.agree()
}

// A command whose dead letter cannot be written stays in the stream, and becomes
// one later.
func TestACommandStaysUntilItsDeadLetterIsWritten(t *testing.T) {
	s := newServer(t)
	nc := s.connect(t)
	js := jetStream(t, nc)
	// As an operator has made it.
	config := jetstream.StreamConfig{Name: "HEADWAY_DEAD_LETTERS", Subjects: []string{"headway.v1.dead_letters.>"}, Discard: jetstream.DiscardNew, MaxMsgs: 1}
	letters, err := js.CreateStream(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "headway.v1.dead_letters.x", nil); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, external(s))
	w.ready()
	if _, err := js.Publish(t.Context(), "headway.v1.decisions.outcome", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	w.until("its letter is refused", func() bool { return w.of("dead_letters", "publish_failed") > 0 })
	if n := left(t, js); n != 1 {
		t.Errorf("%d commands are left", n)
	}
	if n := w.of("decisions.outcome", "failed"); n == 0 {
		t.Error("it is not counted as failed")
	}
	if err := letters.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until("it has a letter", func() bool { return w.of("dead_letters", "published") == 1 && left(t, js) == 0 })
}

// What a sender may do is checked when a command is carried out, since the stream
// of an external server takes it without a look.
func TestACommandNeedsItsPermission(t *testing.T) {
	w, _, js := abroad(t)
	w.key("k-head", access.RoleHead, "gpu-*")
	w.key("k-client", access.RoleClient)
	for _, subject := range []string{"decisions.outcome.k-head", "commands.heads.register.k-client", "decisions.outcome.k-nobody"} {
		m := nats.NewMsg("headway.v1." + subject)
		m.Data = []byte(registration("gpu-1"))
		m.Header.Set("Headway-Sender", `{"type":"local","id":"local","role":"admin"}`) // says nothing there
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	w.until("they are refused", func() bool { return w.of("dead_letters", "published") == 3 })
	letters, _, err := w.queue.DeadLetters(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, l := range letters {
		got[l.Subject] = l.Code
	}
	for subject, want := range map[string]string{
		"headway.v1.decisions.outcome.k-head": api.CodeForbidden, "headway.v1.commands.heads.register.k-client": api.CodeForbidden,
		"headway.v1.decisions.outcome.k-nobody": api.CodeUnauthenticated,
	} {
		if got[subject] != want {
			t.Errorf("%s: %q; want %s", subject, got[subject], want)
		}
	}
}

// A connection that is there still, although its key was revoked, is not served.
func TestARevokedKeyIsNotServed(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.Timing.Watch = time.Hour })
	w.keyUntil(time.Now().Add(time.Hour), "k-1", access.RoleOperator)
	nc := w.connect(as("k-1")...)
	w.ask(nc, "headway.v1.decisions.request.k-1", `{"model_type":"x"}`, `"unknown_model_type"`)
	release := make(chan struct{})
	defer close(release)
	asked := func() {
		if within("check") { // the look that would end the connection
			<-release
		}
	}
	w.asked.Store(&asked)
	w.revoke("k-1")
	for _, subject := range []string{"decisions.request", "decisions.outcome", "heads.register", "heads.status", "commands.heads.register"} {
		w.ask(nc, "headway.v1."+subject+".k-1", registration("gpu-1"), "key was revoked")
	}
}

// A token that has expired is refused as that, and not as revoked.
func TestAnExpiredTokenIsNamedInTheAnswer(t *testing.T) {
	w := newWorldOf(t, plenty, issued, func(o *natsmq.Options) { o.Timing.Watch = time.Hour })
	id := w.token("t.o.k", access.Principal{ID: "robots", Role: access.RoleClient})
	nc := w.bearer("t.o.k", id)
	w.ask(nc, "headway.v1.decisions.request."+id, `{"model_type":"x"}`, `"unknown_model_type"`)
	w.ahead.Store(int64(2 * time.Hour))
	w.ask(nc, "headway.v1.decisions.request."+id, `{"model_type":"x"}`, "has expired")
}

// Run returns once what was begun has ended.
func TestRunWaitsForWhatWasBegun(t *testing.T) {
	w := newWorld(t)
	w.ready()
	release := w.block()
	defer release()
	w.ask(w.connect(), "headway.v1.commands.heads.register", registration("gpu-1"), `"HEADWAY_COMMANDS"`)
	w.until("it is begun", func() bool { return w.of("heads.register", "received") == 1 })
	stopped := make(chan struct{})
	go func() {
		w.stop()
		close(stopped)
	}()
	select {
	case <-stopped:
		t.Error("it does not wait")
	case <-time.After(100 * time.Millisecond):
	}
	release()
	<-stopped
	if n := w.of("heads.register", "processed"); n != 1 {
		t.Errorf("%d are carried out", n)
	}
}

// A full stream refuses new commands and keeps those that it has.
func TestAFullStreamKeepsWhatItHas(t *testing.T) {
	w, _, js := abroad(t, func(o *natsmq.Options) { o.MaxBytes, o.Timing.Retry = 64<<10, time.Hour })
	if err := js.DeleteConsumer(t.Context(), "HEADWAY_COMMANDS", "headway"); err != nil {
		t.Fatal(err)
	}
	stored := uint64(0)
	for {
		_, err := js.Publish(t.Context(), "headway.v1.decisions.outcome", make([]byte, 10_000))
		if no, ok := errors.AsType[*jetstream.APIError](err); ok && no.Code == 503 {
			break
		}
		if stored++; err != nil || stored > 10 {
			t.Fatalf("after %d: %v", stored, err)
		}
	}
	stream, err := js.Stream(t.Context(), "HEADWAY_COMMANDS")
	if err != nil {
		t.Fatal(err)
	}
	if state := stream.CachedInfo().State; state.FirstSeq != 1 || state.Msgs != stored {
		t.Errorf("%d of %d are there, from %d on", state.Msgs, stored, state.FirstSeq)
	}
	w.until("it is said", func() bool { return w.value("headway_queue_fill_ratio", "commands") > 0.8 })
}

// The waits between deliveries are those of the configuration, in its order.
func TestDeliveriesWaitAsConfigured(t *testing.T) {
	waits := []time.Duration{400 * time.Millisecond, 300 * time.Millisecond, 200 * time.Millisecond, 100 * time.Millisecond} // none is the next
	w := newWorld(t, func(o *natsmq.Options) { o.Timing.BackOff = waits })
	w.storing(false)
	w.ready()
	w.ask(w.connect(), "headway.v1.commands.heads.register", registration("gpu-1"), `"HEADWAY_COMMANDS"`)
	w.until("it is a letter", func() bool { return w.of("dead_letters", "published") == 1 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.saved) != 5 {
		t.Fatalf("%d times", len(w.saved))
	}
	for i, want := range waits {
		if got := w.saved[i+1].Sub(w.saved[i]); got < want-5*time.Millisecond {
			t.Errorf("delivery %d comes after %s; want %s", i+2, got, want)
		}
	}
}

// What looks stuck at one look may have ended just then.
func TestTheSweepLooksTwice(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.Timing.Sweep, o.Timing.Retry = time.Hour, time.Minute })
	w.ready()
	stuck := w.stuck()
	w.until("no delivery is under way", func() bool {
		info, err := stuck.Info(t.Context())
		return err == nil && info.NumAckPending == 0
	})
	w.queue.Sweep(t.Context())
	if n := w.of("dead_letters", "published"); n != 0 {
		t.Errorf("%d letters after one look", n)
	}
	w.until("it is found", func() bool {
		w.queue.Sweep(t.Context())
		return w.of("dead_letters", "published") == 1
	})
}

// What is acknowledged is on the disk, also after the streams were opened again.
func TestTheStreamsAreSynced(t *testing.T) {
	w := newWorld(t)
	w.ready()
	if !w.queue.Server().JetStreamConfig().SyncAlways {
		t.Error("what is acknowledged is not synced")
	}
	w.queue.Fail()
	w.until("they are opened again", func() bool { ok, _ := w.queue.Ready(); return ok && w.value("headway_queue_heals_total", "") == 1 })
	if !w.queue.Server().JetStreamConfig().SyncAlways {
		t.Error("what is acknowledged is not synced any more")
	}
	w.ask(w.connect(), "headway.v1.commands.heads.register", registration("gpu-1"), `"HEADWAY_COMMANDS"`)
	w.until("it is carried out", func() bool { return slices.Contains(w.ids(), "gpu-1") })
}

// ids are the heads that are registered.
func (w *world) ids() (ids []string) {
	for _, id := range []string{"gpu-1", "gpu-2"} {
		if _, err := w.fleet.Head(id); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// Streams that an earlier version has made let old letters give way now; those that
// an operator has made stay as they are.
func TestStreamsOfAnEarlierVersionAreBroughtUpToDate(t *testing.T) {
	s := newServer(t)
	nc := s.connect(t)
	js := jetStream(t, nc)
	config := jetstream.StreamConfig{
		Name: "HEADWAY_DEAD_LETTERS", Subjects: []string{"headway.v1.dead_letters.>"}, Discard: jetstream.DiscardNew, MaxBytes: 1 << 20,
		Metadata: map[string]string{"headway_replicas": "automatic"},
	}
	if _, err := js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	newWorld(t, external(s)).ready()
	stream, err := js.Stream(t.Context(), config.Name)
	if err != nil {
		t.Fatal(err)
	}
	if c := stream.CachedInfo().Config; c.Discard != jetstream.DiscardOld || c.MaxMsgsPerSubject != 1024 || c.MaxBytes != config.MaxBytes {
		t.Errorf("%+v", c)
	}

	dir := t.TempDir()
	first := newWorld(t, func(o *natsmq.Options) { o.Dir = dir })
	first.ready()
	own, err := jetstream.New(first.queue.Own())
	if err != nil {
		t.Fatal(err)
	}
	config.Metadata = nil
	if _, err := own.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if err := first.queue.Close(); err != nil {
		t.Fatal(err)
	}
	second := newWorld(t, func(o *natsmq.Options) { o.Dir = dir })
	second.ready()
	if own, err = jetstream.New(second.queue.Own()); err != nil {
		t.Fatal(err)
	}
	if stream, err = own.Stream(t.Context(), config.Name); err != nil || stream.CachedInfo().Config.Discard != jetstream.DiscardOld {
		t.Errorf("our own: %v", err)
	}
}

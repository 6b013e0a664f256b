package natsmq_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/natsmq"
)

// A command whose acknowledgement did not say that it was there already is
// carried out, even if its Nats-Msg-Id came before.
func TestACommandWithAnIDOfThePastIsCarriedOut(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.Timing.Window = 100 * time.Millisecond })
	w.ready()
	js := jetStream(t, w.connect())
	fresh := 0
	publish := func(subject, body string) bool {
		t.Helper()
		ack, err := js.Publish(t.Context(), subject, []byte(body), jetstream.WithMsgID("one"))
		if err != nil {
			t.Fatal(err)
		}
		if !ack.Duplicate {
			fresh++
		}
		return !ack.Duplicate
	}
	const subject = "headway.v1.commands.heads.register"
	publish(subject, registration("gpu-1"))
	w.until("it is applied", func() bool { return w.of("heads.register", "processed") == 1 })
	if err := w.fleet.Deregister(t.Context(), "gpu-1"); err != nil {
		t.Fatal(err)
	}
	w.until("the window is over", func() bool { return publish(subject, registration("gpu-1")) })
	w.until("it is applied again", func() bool { _, err := w.fleet.Head("gpu-1"); return err == nil })
	// Another queue has ids of its own.
	w.until("the window is over once more", func() bool { return publish("headway.v1.decisions.outcome", `{}`) })
	w.until("the outcome is looked at", func() bool { return w.of("decisions.outcome", "invalid") == 1 })
	w.agree()
	if n := w.of("heads.register", "processed"); n != 2 || fresh != 3 || w.of("heads.register", "duplicate")+w.of("decisions.outcome", "duplicate") != 0 {
		t.Errorf("%d processed of %d", n, fresh)
	}
}

// What one instance is doing, however long it takes, the other does not get.
func TestSlowWorkIsNotDoneTwice(t *testing.T) {
	s := newServer(t)
	a, b := newWorld(t, external(s)), newWorld(t, external(s))
	for _, w := range []*world{a, b} {
		w.slowly(5 * quick.AckWait / 2) // longer than the first pause, and than the time to acknowledge in
		w.ready()
	}
	nc := s.connect(t)
	js := jetStream(t, nc)
	if _, err := js.Publish(t.Context(), "headway.v1.commands.heads.register", []byte(registration("gpu-1"))); err != nil {
		t.Fatal(err)
	}
	sum := func(status string) uint64 { return a.of("heads.register", status) + b.of("heads.register", status) }
	a.until("it is applied", func() bool { return sum("processed") > 0 })
	stream, err := js.Stream(t.Context(), "HEADWAY_COMMANDS")
	if err != nil {
		t.Fatal(err)
	}
	a.until("it is gone", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs == 0
	})
	if sum("received") != 1 || sum("processed") != 1 {
		t.Errorf("%d deliveries, %d processed", sum("received"), sum("processed"))
	}
	a.agree()
	b.agree()
}

// A look at what is stuck leaves what is being acknowledged.
func TestTheSweepLeavesWhatIsApplied(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.Timing.Sweep = time.Millisecond })
	w.ready()
	js := jetStream(t, w.connect())
	const n = 300
	for i := range uint64(n) {
		if _, err := js.Publish(t.Context(), "headway.v1.commands.heads.register", []byte(registration(fmt.Sprint("gpu-", i)))); err != nil {
			t.Fatal(err)
		}
		w.until("it is applied", func() bool { return w.of("heads.register", "processed") == i+1 })
	}
	if letters, total, err := w.queue.DeadLetters(t.Context(), 0, 3); err != nil || total != 0 {
		t.Errorf("%d dead letters: %+v, %v", total, letters, err)
	}
	w.agree()
}

// Only a command goes back into the queue: a letter may have any author.
func TestALetterOfNoCommandIsNotPutBack(t *testing.T) {
	w := newWorld(t)
	w.ready()
	nc := w.connect()
	js := jetStream(t, nc)
	heard := w.listen(nc, "headway.v1.events.>")
	subjects := []string{"", "headway.v1.events.head.expired", "headway.v1.heads.register", "headway.v1.decisions.request", "$JS.API.STREAM.PURGE.HEADWAY_DEAD_LETTERS", "headway.v1.commands.heads.register.a.b", "headway.v1.decisions.outcome.>", "headway.v1.stored.decisions.outcome"}
	for _, subject := range subjects {
		m := nats.NewMsg("headway.v1.dead_letters.x")
		m.Header.Set("Headway-Subject", subject)
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	letters, _, err := w.queue.DeadLetters(t.Context(), 0, 100)
	if err != nil || len(letters) != len(subjects) {
		t.Fatalf("%+v, %v", letters, err)
	}
	for _, l := range letters {
		if problem, ok := errors.AsType[*apiv1.Problem](w.queue.RetryDeadLetter(t.Context(), l.Number)); !ok || problem.Code != api.CodeInvalid {
			t.Errorf("%q: %v", l.Subject, problem)
		}
	}
	if _, total, err := w.queue.DeadLetters(t.Context(), 0, 1); err != nil || total != uint64(len(subjects)) {
		t.Errorf("%d letters are left, %v", total, err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := heard.Pending(); err != nil || n != 0 {
		t.Errorf("%d events, %v", n, err)
	}
}

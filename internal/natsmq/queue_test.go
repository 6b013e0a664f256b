package natsmq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/event"
	"headway/internal/natsmq"
)

func TestDecisionsAndHeadsOverTheQueue(t *testing.T) {
	w := newWorld(t)
	nc := w.connect()
	var done api.RegistrationAnswer
	if err := json.Unmarshal(w.ask(nc, "headway.v1.heads.register", registration("gpu-1"), `"lease"`).Data, &done); err != nil {
		t.Fatal(err)
	}
	w.ask(nc, "headway.v1.heads.status", fmt.Sprintf(`{"id":"gpu-1","epoch":%d,"status":"active","load":{"in_flight":3}}`, done.Lease.Epoch), `"lease"`)
	var made api.Decision
	if err := json.Unmarshal(w.ask(nc, "headway.v1.decisions.request", `{"model_type":"llama"}`, `"decision_id"`).Data, &made); err != nil || made.Head.ID != "gpu-1" {
		t.Fatalf("%+v, %v", made, err)
	}
	w.ready()
	ack := w.ask(nc, "headway.v1.decisions.outcome", `{"decision_id":"`+made.DecisionID+`","result":"ok","duration_ms":7}`, `"stream":"HEADWAY_COMMANDS"`)
	if strings.Contains(string(ack.Data), "error") {
		t.Fatal(string(ack.Data))
	}
	w.until("the outcome is applied", func() bool {
		d, err := w.router.Decision(made.DecisionID)
		if err != nil {
			t.Fatal(err)
		}
		o, ended := d.Outcome()
		return ended && o.Duration == 7
	})
	w.agree()
	for _, queue := range []string{"heads.register", "heads.status", "decisions.request", "decisions.outcome"} {
		if n := w.of(queue, "processed"); n != 1 {
			t.Errorf("%s: %d processed", queue, n)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.acted) == 0 || w.acted[0].Action != "head.register" || w.acted[0].Actor.Via != "nats" {
		t.Errorf("the trail has %+v", w.acted)
	}
}

// Every fault is answered as over HTTP.
func TestEveryFaultIsAnswered(t *testing.T) {
	w := newWorld(t)
	nc := w.connect()
	for _, c := range []struct{ queue, body, code, part string }{
		{"decisions.request", `{`, "400", `"invalid_json"`},
		{"decisions.request", ``, "400", `"invalid_json"`},
		{"decisions.request", `{"colour":1}`, "422", `/colour`},
		{"decisions.request", `{"model_type":"nobody"}`, "404", `"unknown_model_type"`},
		{"decisions.request", `{"model_type":"` + strings.Repeat("x", 65<<10) + `"}`, "413", `"body_too_large"`},
		{"heads.register", `{"id":"a b"}`, "422", `/endpoint`},
		{"heads.register", `[]`, "400", `"invalid_json"`},
		{"heads.status", `{"id":"nobody","epoch":1,"status":"active"}`, "404", `"head_not_found"`},
		{"heads.status", `{"epoch":1,"status":"active"}`, "422", `/id`},
		{"heads.status", "\xff", "400", `"invalid_json"`},
	} {
		m := w.ask(nc, "headway.v1."+c.queue, c.body, c.part)
		if got := m.Header.Get(micro.ErrorCodeHeader); got != c.code {
			t.Errorf("%s %.30s: code %q; want %s", c.queue, c.body, got, c.code)
		}
		var p api.Problem
		if err := json.Unmarshal(m.Data, &p); err != nil || fmt.Sprint(p.Status) != c.code {
			t.Errorf("%s %.30s: %s, %v", c.queue, c.body, m.Data, err)
		}
	}
	if err := nc.Publish("headway.v1.decisions.request", make([]byte, 100<<10)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("100 KiB: %v", err)
	}
	w.agree()
	if n := w.of("decisions.request", "invalid"); n != 5 {
		t.Errorf("%d invalid requests", n)
	}
}

func TestTheServiceCanBeFound(t *testing.T) {
	w := newWorld(t)
	nc := w.connect()
	var info micro.Info
	if err := json.Unmarshal(w.ask(nc, "$SRV.INFO.headway", "", `"headway"`).Data, &info); err != nil {
		t.Fatal(err)
	}
	subjects := map[string]bool{}
	for _, e := range info.Endpoints {
		subjects[e.Subject] = true
	}
	if info.Version != "1.2.3" || !subjects["headway.v1.decisions.request"] || !subjects["headway.v1.heads.register"] || info.Metadata["instance"] != "test" {
		t.Errorf("%+v", info)
	}
}

func TestEventsAreCloudEvents(t *testing.T) {
	w := newWorld(t)
	nc := w.connect()
	sub := w.listen(nc, "headway.v1.events.>")
	w.ask(nc, "headway.v1.heads.register", registration("gpu-1"), `"lease"`)
	m, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		SpecVersion     string    `json:"specversion"`
		ID              string    `json:"id"`
		Source          string    `json:"source"`
		Type            string    `json:"type"`
		Subject         string    `json:"subject"`
		Time            time.Time `json:"time"`
		DataContentType string    `json:"datacontenttype"`
		Data            api.Event `json:"data"`
	}
	if err := json.Unmarshal(m.Data, &e, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%s: %v", m.Data, err)
	}
	if m.Subject != "headway.v1.events.head.registered" || m.Header.Get("Content-Type") != "application/cloudevents+json" ||
		e.SpecVersion != "1.0" || e.ID != e.Data.ID || !strings.HasPrefix(e.ID, "test-") || e.Source != "/headway/test" || e.Type != "headway.head.registered" ||
		e.Subject != "gpu-1" || e.Data.Head != "gpu-1" || e.Data.Type != "head.registered" || time.Since(e.Time) > time.Minute || e.DataContentType != "application/json" {
		t.Errorf("%s %v: %s", m.Subject, m.Header, m.Data)
	}
	w.until("it is counted", func() bool { return w.of("events", "published") >= 1 })
}

// The server takes requests from Open on: what they cause is published however
// late Run begins.
func TestNoEventIsLostBeforeRun(t *testing.T) {
	w := newWorld(t)
	nc := w.connect()
	sub := w.listen(nc, "headway.v1.events.>")
	w.stop()
	w.events.Publish(event.Event{Type: event.PolicyChanged})
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	defer serving.Wait()
	defer stop()
	serving.Go(func() { _ = w.queue.Run(ctx) })
	if m, err := sub.NextMsg(time.Minute); err != nil || m.Subject != "headway.v1.events.policy.changed" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestADurableRegistrationWaitsForTheService(t *testing.T) {
	w := newWorld(t)
	w.ready()
	nc := w.connect()
	w.ask(nc, "headway.v1.commands.heads.register", registration("gpu-1"), `"stream":"HEADWAY_COMMANDS"`)
	w.until("it is applied", func() bool { _, err := w.fleet.Head("gpu-1"); return err == nil })
	w.agree()
}

func TestTheSameCommandIsAppliedOnce(t *testing.T) {
	w := newWorld(t)
	w.ready()
	nc := w.connect()
	js := jetStream(t, nc)
	for i := range 3 {
		ack, err := js.Publish(t.Context(), "headway.v1.commands.heads.register", []byte(registration("gpu-1")), jetstream.WithMsgID("one"))
		if err != nil || ack.Duplicate != (i > 0) {
			t.Fatalf("%+v, %v", ack, err)
		}
	}
	w.until("it is applied", func() bool { return w.of("heads.register", "processed") == 1 })
	w.agree()
	// A busy machine may acknowledge later than the next delivery is due here.
	if received, known := w.of("heads.register", "received"), w.of("heads.register", "duplicate"); received != known+1 {
		t.Errorf("%d deliveries, %d recognised", received, known)
	}
}

// What can never be applied is a dead letter at once; what might be is tried as
// often as allowed.
func TestPoisonEndsAsADeadLetterWithTheReason(t *testing.T) {
	w := newWorld(t)
	w.ready()
	nc := w.connect()
	w.ask(nc, "headway.v1.decisions.outcome", `{"result":"ok","decision_id":`, `"HEADWAY_COMMANDS"`)
	w.ask(nc, "headway.v1.decisions.outcome", `{"result":"ok","decision_id":"zzz"}`, `"HEADWAY_COMMANDS"`)
	w.ask(nc, "headway.v1.commands.heads.register", `{"id":"x"}`, `"HEADWAY_COMMANDS"`)
	w.until("they are buried", func() bool { return w.of("dead_letters", "published") == 3 })
	w.agree()
	letters, total, err := w.queue.DeadLetters(t.Context(), 0, 10)
	if err != nil || total != 3 || len(letters) != 3 {
		t.Fatalf("%+v, %d, %v", letters, total, err)
	}
	codes := map[string]string{}
	for _, l := range letters {
		if l.Queue == "heads.register" && (!strings.Contains(l.Reason, "/endpoint: ") || !strings.Contains(l.Reason, "; /region: ")) {
			t.Errorf("the reason names not each fault: %q", l.Reason)
		}
		codes[l.Code] = l.Queue
		if l.Reason == "" || l.Deliveries != 1 || l.Body == "" || l.Bytes == 0 || l.Time.IsZero() {
			t.Errorf("%+v", l)
		}
	}
	if codes["invalid_json"] != "decisions.outcome" || codes["decision_not_found"] != "decisions.outcome" || codes["invalid_request"] != "heads.register" {
		t.Errorf("%v", codes)
	}
	page, _, err := w.queue.DeadLetters(t.Context(), letters[0].Number, 1)
	if err != nil || len(page) != 1 || page[0].Number != letters[1].Number {
		t.Errorf("the next page: %+v, %v", page, err)
	}
}

func TestACommandThatMaySucceedLaterIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.storing(false)
	w.ready()
	nc := w.connect()
	w.ask(nc, "headway.v1.commands.heads.register", registration("gpu-1"), `"HEADWAY_COMMANDS"`)
	w.until("it is buried", func() bool { return w.of("heads.register", "dead_lettered") == 1 })
	if w.of("heads.register", "received") != 5 || w.of("heads.register", "retried") != 4 || w.of("heads.register", "failed") != 4 {
		t.Error("they are not counted so")
	}
	w.agree()
	letters, _, err := w.queue.DeadLetters(t.Context(), 0, 10)
	if err != nil || len(letters) != 1 || letters[0].Deliveries != 5 || letters[0].Code != "state_unavailable" {
		t.Fatalf("%+v, %v", letters, err)
	}
	w.storing(true)
	if err := w.queue.RetryDeadLetter(t.Context(), letters[0].Number); err != nil {
		t.Fatal(err)
	}
	w.until("it is applied after all", func() bool { _, err := w.fleet.Head("gpu-1"); return err == nil })
	if _, total, err := w.queue.DeadLetters(t.Context(), 0, 10); err != nil || total != 0 {
		t.Errorf("%d letters are left, %v", total, err)
	}
	for name, err := range map[string]error{
		"retry": w.queue.RetryDeadLetter(t.Context(), 99), "purge": w.queue.PurgeDeadLetter(t.Context(), 99),
	} {
		if !errors.Is(err, apiv1.ErrNoLetter) {
			t.Errorf("%s of one that is not there: %v", name, err)
		}
	}
}

func TestADeadLetterCanBePurged(t *testing.T) {
	w := newWorld(t)
	w.ready()
	nc := w.connect()
	w.ask(nc, "headway.v1.decisions.outcome", `{}`, `"HEADWAY_COMMANDS"`)
	w.until("it is buried", func() bool { return w.of("dead_letters", "published") == 1 })
	letters, _, err := w.queue.DeadLetters(t.Context(), 0, 1)
	if err != nil || len(letters) != 1 {
		t.Fatalf("%+v, %v", letters, err)
	}
	if one, err := w.queue.DeadLetter(t.Context(), letters[0].Number); err != nil || one.Body != "{}" {
		t.Errorf("%+v, %v", one, err)
	}
	if err := w.queue.PurgeDeadLetter(t.Context(), letters[0].Number); err != nil {
		t.Fatal(err)
	}
	if _, err := w.queue.DeadLetter(t.Context(), letters[0].Number); !errors.Is(err, apiv1.ErrNoLetter) {
		t.Errorf("then %v", err)
	}
}

// A command that was delivered as often as it may be and never ended is found,
// even if the server's advice was missed.
func TestTheSweepFindsWhatIsStuck(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.Timing.Retry = time.Minute }) // ours takes no commands once its consumer is gone
	w.ready()
	w.stuck()
	w.until("it is swept", func() bool { return w.of("dead_letters", "published") == 1 })
	letters, _, err := w.queue.DeadLetters(t.Context(), 0, 1)
	if err != nil || len(letters) != 1 || letters[0].Code != "timeout" {
		t.Fatalf("%+v, %v", letters, err)
	}
}

func TestAFloodIsDroppedAndCounted(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.Pending = 100 })
	w.ask(w.connect(), "headway.v1.heads.register", registration("gpu-1"), `"lease"`)
	nc := w.connect()
	const n = 20_000
	body := []byte(`{"id":"gpu-1","epoch":1,"status":"active"}`)
	for range n {
		if err := nc.Publish("headway.v1.heads.status", body); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.FlushTimeout(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	w.until("all are accounted for", func() bool { return w.of("heads.status", "received") == n })
	w.agree()
	if w.of("heads.status", "dropped") == 0 {
		t.Error("nothing was dropped")
	}
	w.ask(w.connect(), "headway.v1.heads.register", registration("gpu-2"), `"lease"`) // the rest is undisturbed
}

func TestAllStatusReportsOfABusyFleetArrive(t *testing.T) {
	w := newWorld(t)
	nc := w.connect()
	const heads, reports = 50, 200
	for i := range heads {
		w.ask(nc, "headway.v1.heads.register", registration(fmt.Sprint("gpu-", i)), `"lease"`)
	}
	var wait sync.WaitGroup
	for i := range heads {
		view, err := w.fleet.Head(fmt.Sprint("gpu-", i))
		if err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			for n := range reports {
				body := fmt.Appendf(nil, `{"id":"gpu-%d","epoch":%d,"sequence":%d,"status":"active","load":{"in_flight":%d}}`, i, view.Lease.Epoch, n+1, n)
				if err := nc.Publish("headway.v1.heads.status", body); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	w.until("all arrived", func() bool { return w.of("heads.status", "processed") == heads*reports })
	view, err := w.fleet.Head("gpu-7")
	if err != nil || view.Report == nil || view.Report.Load.InFlight != reports-1 {
		t.Errorf("%+v, %v", view.Report, err)
	}
	w.agree()
}

// The streams outlive the service.
func TestCommandsOutliveTheService(t *testing.T) {
	dir := t.TempDir()
	first := newWorld(t, func(o *natsmq.Options) { o.Dir = dir })
	first.ready()
	nc := first.connect()
	first.ask(nc, "headway.v1.decisions.outcome", `{}`, `"HEADWAY_COMMANDS"`)
	first.until("it is buried", func() bool { return first.of("dead_letters", "published") == 1 })
	nc.Close()
	if err := first.queue.Close(); err != nil {
		t.Fatal(err)
	}
	second := newWorld(t, func(o *natsmq.Options) { o.Dir = dir })
	second.ready()
	if letters, total, err := second.queue.DeadLetters(t.Context(), 0, 10); err != nil || total != 1 || len(letters) != 1 {
		t.Errorf("%+v, %d, %v", letters, total, err)
	}
}

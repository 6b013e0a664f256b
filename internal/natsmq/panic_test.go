package natsmq_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"headway/internal/access"
)

// A message or a credential that meets a bug of ours is refused, and nothing
// else: here what is asked about the sender panics.
func TestABugEndsOneMessage(t *testing.T) {
	var admitting, carryingOut atomic.Bool // what panics
	stumble := func(at *atomic.Bool) {
		if at.Load() {
			panic("a fault of ours")
		}
	}
	w := newWorld(t)
	w.ready()
	w.key("boss", access.RoleAdmin)
	nc := w.connect(as("boss")...)
	asked := func() {
		switch {
		case within("AuthenticateConnection"), within("Spend"):
			stumble(&admitting)
		case within("carryOut"):
			stumble(&carryingOut)
		}
	}
	w.asked.Store(&asked)
	admitting.Store(true)
	for subject, body := range map[string]string{
		"decisions.request.boss":       `{"model_type":"llama"}`,
		"heads.register.boss":          registration("gpu-1"),
		"heads.status.boss":            `{"id":"gpu-1","epoch":1,"status":"active"}`,
		"commands.heads.register.boss": registration("gpu-1"),
		"decisions.outcome.boss":       `{"decision_id":"x","result":"ok"}`,
	} {
		answer, err := nc.Request("headway.v1."+subject, []byte(body), 30*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		if text := string(answer.Data); !strings.Contains(text, "internal") && !strings.Contains(text, `"code":500`) || strings.Contains(text, "fault of ours") {
			t.Errorf("%s was answered %s", subject, text)
		}
	}
	if other, err := nats.Connect(nc.ConnectedUrl(), as("boss")...); err == nil {
		other.Close()
		t.Error("a credential that met a bug was let in")
	}
	// A command that is stored and then meets the bug is carried out later.
	admitting.Store(false)
	carryingOut.Store(true)
	if answer, err := nc.Request("headway.v1.commands.heads.register.boss", []byte(registration("gpu-2")), 30*time.Second); err != nil || !strings.Contains(string(answer.Data), `"seq"`) {
		t.Fatalf("%s, %v", answer.Data, err)
	}
	w.until("the command to fail", func() bool { return w.of("heads.register", "retried") > 0 })
	carryingOut.Store(false)
	w.until("the command to be carried out", func() bool { return w.of("heads.register", "processed") == 1 })
	w.ask(nc, "headway.v1.decisions.request.boss", `{"model_type":"llama"}`, `"decision_id"`)
}

// A bug that is met where the service looks whose credential has ended, on its
// own and not for a message, ends the connection that it concerns: it may be one
// that has no right to be there.
func TestABugEndsOneConnection(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.keyUntil(time.Now().Add(time.Hour), "odd", access.RoleClient)
	w.key("other", access.RoleClient)
	gone := make(chan struct{}, 8)
	w.connect(append(as("odd"), nats.DisconnectErrHandler(func(*nats.Conn, error) { gone <- struct{}{} }))...)
	other := w.connect(as("other")...)
	asked := func() {
		if within("check") { // only the odd key has a time to look at
			panic("a fault of ours")
		}
	}
	w.asked.Store(&asked)
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Error("it is still connected")
	}
	w.ask(other, "headway.v1.decisions.request", `{"model_type":"x"}`, `"unknown_model_type"`)
}

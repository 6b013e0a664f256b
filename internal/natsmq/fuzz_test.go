package natsmq_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"headway/internal/access"
)

// FuzzMessages publishes anything on the subjects of requests and commands,
// with any header: each request has an answer, and the queue works on.
func FuzzMessages(f *testing.F) {
	w := newWorld(f)
	w.ready()
	w.key("boss", access.RoleAdmin)
	nc := w.connect(as("boss")...)
	w.ask(nc, "headway.v1.heads.register", registration("gpu-1"), `"lease"`)
	f.Add("heads.register", "Nats-Msg-Id", "1", registration("gpu-2"))
	f.Add("heads.status", "Nats-Expected-Stream", "x", `{"id":"gpu-1","epoch":1,"status":"active"}`)
	f.Add("commands.heads.register", "Nats-Msg-Id", strings.Repeat("i", 5000), `{"id":"gpu-1","lease":`)
	f.Add("decisions.outcome", "Nats-Rollup", "all", `{"decision_id":"x","result":"ok"}`)
	f.Add("decisions.outcome.boss", "Headway-Sender", `{"role":"admin"}`, `{"decision_id":"x","result":"ok"}`)
	f.Add("decisions.request", "Nats-TTL", "-1", `{"model_type":"llama","exclude":["`+strings.Repeat("a", 300)+`"]}`)
	f.Fuzz(func(t *testing.T, queue, key, value, body string) {
		switch queue {
		case "heads.register", "heads.status", "commands.heads.register", "decisions.outcome", "decisions.outcome.boss", "decisions.request":
		default:
			queue = "decisions.request"
		}
		m := nats.NewMsg("headway.v1." + queue)
		m.Data = []byte(body)
		if key != "" {
			m.Header[key] = []string{value}
		}
		answer, err := nc.RequestMsg(m, 30*time.Second)
		if errors.Is(err, nats.ErrBadHeaderMsg) {
			return // the client does not send it
		}
		if err != nil {
			t.Fatalf("%s with %q: %q and %q: %v", queue, key, value, body, err)
		}
		if text := string(answer.Data); strings.Contains(text, "goroutine") || strings.Contains(text, "runtime error") || strings.Contains(text, `"internal"`) {
			t.Fatalf("%s with %q: %q and %q: %s", queue, key, value, body, text)
		}
	})
}

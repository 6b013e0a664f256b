package natsmq_test

import (
	"context"
	"crypto/tls"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"headway/internal/access"
	"headway/internal/natsmq"
)

// A message or a credential that meets a bug of ours is refused, and nothing
// else: here what is asked about the sender panics.
func TestABugEndsOneMessage(t *testing.T) {
	const never = 1 << 40
	var calm atomic.Int64 // calls before one panics
	calm.Store(never)
	stumble := func() {
		if calm.Add(-1) < 0 {
			panic("a fault of ours")
		}
	}
	w := newWorld(t, func(o *natsmq.Options) {
		authenticate, ended := o.Access.Authenticate, o.Access.Ended
		o.Access.Authenticate = func(ctx context.Context, token string, state *tls.ConnectionState, from netip.Addr) (*access.Principal, error) {
			stumble()
			return authenticate(ctx, token, state, from)
		}
		o.Access.Ended = func(p *access.Principal) bool {
			stumble()
			return ended(p)
		}
	})
	w.ready()
	w.key("boss", access.RoleAdmin)
	nc := w.connect(as("boss")...)
	calm.Store(0)
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
	calm.Store(1)
	if answer, err := nc.Request("headway.v1.commands.heads.register.boss", []byte(registration("gpu-2")), 30*time.Second); err != nil || !strings.Contains(string(answer.Data), `"seq"`) {
		t.Fatalf("%s, %v", answer.Data, err)
	}
	w.until("the command to fail", func() bool { return w.of("heads.register", "retried") > 0 })
	calm.Store(never)
	w.until("the command to be carried out", func() bool { _, err := w.fleet.Head("gpu-2"); return err == nil })
	w.ask(nc, "headway.v1.decisions.request.boss", `{"model_type":"llama"}`, `"decision_id"`)
}

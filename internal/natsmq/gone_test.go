package natsmq_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"headway/internal/access"
)

// A decision whose caller is gone holds no place: one that was asked for
// without an inbox, or with one that is not the sender's, and one whose answer
// cannot be sent.
func TestADecisionThatCannotBeSentHoldsNoPlace(t *testing.T) {
	w := newWorld(t)
	w.key("k-client", access.RoleClient)
	w.key("k-head", access.RoleHead, "gpu-*")
	w.ask(w.connect(as("k-head")...), "headway.v1.heads.register.k-head", registration("gpu-1"), `"lease"`)
	client := w.connect(as("k-client")...)
	const subject, body = "headway.v1.decisions.request.k-client", `{"model_type":"llama"}`
	for _, inbox := range []string{"", "_INBOX.k-victim.x", "headway.v1.events.head.expired"} {
		if err := client.PublishMsg(&nats.Msg{Subject: subject, Reply: inbox, Data: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	w.ask(client, subject, body, `"decision_id"`) // which is answered after those
	if made, held := w.router.Newest(), w.router.Open(); made != 4 || held != 1 {
		t.Errorf("%d decisions, %d hold places; want 4, and the one that was answered", made, held)
	}
	answer, err := w.verbs.Decide(nil, []byte(body), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.queue.Reply(unsendable{}, w.guard.Known("k-client"), answer)
	if held := w.router.Open(); held != 1 {
		t.Errorf("%d hold places after an answer that was not sent", held)
	}
}

// unsendable is a request whose answer cannot be sent.
type unsendable struct{ micro.Request }

func (unsendable) Subject() string { return "headway.v1.decisions.request.k-client" }
func (unsendable) Reply() string   { return "_INBOX.k-client.x" }

func (unsendable) Respond([]byte, ...micro.RespondOpt) error { return nats.ErrConnectionClosed }

package live_test

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// breaking makes connections that break in the middle of an answer.
type breaking struct {
	net.Listener
	broken atomic.Bool
}

func (l *breaking) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &breakable{c, l}, err
}

type breakable struct {
	net.Conn
	by *breaking
}

var errBroken = errors.New("the connection is broken")

// Write loses the last byte.
func (c *breakable) Write(b []byte) (int, error) {
	if c.by.broken.Load() {
		n, _ := c.Conn.Write(b[:len(b)-1])
		return n, errBroken
	}
	return c.Conn.Write(b)
}

// A decision whose answer is not sent whole holds no place, and those that were
// answered before by the same connection keep theirs.
func TestADecisionThatCannotBeSentHoldsNoPlace(t *testing.T) {
	w := newWorld(t)
	w.register("a", "us-east")
	l := &breaking{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	l.Listener = server.Listener
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	conn, _, _, err := ws.Dial(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http")+"/ws")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ask := func(requests ...string) {
		t.Helper()
		var all bytes.Buffer // they come together, and so do their answers
		for _, r := range requests {
			if err := wsutil.WriteClientText(&all, []byte(r)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := conn.Write(all.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	decide, explain := `{"id":1,"type":"decide","data":{"model_type":"llama"}}`, `{"type":"decide","id":2,"data":{"model_type":"llama","explain":true}}`
	ask(decide)
	if raw, err := wsutil.ReadServerText(conn); err != nil || !bytes.Contains(raw, []byte(`"decision_id"`)) {
		t.Fatalf("%s, %v", raw, err)
	}
	l.broken.Store(true)
	ask(explain, decide, decide)
	w.until("the connection ends", func() bool { return w.hub.Streams() == 0 })
	if made, held := w.router.Newest(), w.router.Open(); made != 4 || held != 3 {
		t.Errorf("%d decisions, %d hold places; want 4, and all but the last", made, held)
	}
}

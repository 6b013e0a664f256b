package upstream

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// lastUsedAt says of all unused connections when they were used last.
func (h *Heads) lastUsedAt(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.pools {
		for _, c := range p.idle {
			c.since = at
		}
	}
}

// A call of Once that a head may have read is not sent again, however the connection
// ends, and one that cannot have been read is.
func TestWhatIsToBeDoneOnceIsNotRepeated(t *testing.T) {
	for name, end := range map[string]func(net.Conn){"closed": func(net.Conn) {}, "reset": reset} {
		var served atomic.Int64
		head := rawHead(t, func(n int, c net.Conn, r *bufio.Reader) {
			for i := 0; ; i++ {
				if _, ok := request(r); !ok {
					return
				}
				if served.Add(1); n == 0 && i == 1 {
					end(c)
					return
				}
				_, _ = io.WriteString(c, ok)
			}
		})
		h := newHeads(t, nil)
		call := post(head)
		call.Once = true
		if status, _, err := do(t.Context(), h, call); err != nil || status != 200 {
			t.Fatalf("%s: %d %v", name, status, err)
		}
		h.lastUsedAt(time.Now().Add(time.Minute)) // however slow this machine is
		_, _, err := do(t.Context(), h, call)
		if e, is := errors.AsType[*Error](err); !is || !e.Sent || e.Received || !e.Reused {
			t.Errorf("%s: the second request ended with %v", name, err)
		}
		if n := served.Load(); n != 2 || testutil.ToFloat64(h.repeated) != 0 {
			t.Errorf("%s: two requests were carried out %d times, and %v repeated", name, n, testutil.ToFloat64(h.repeated))
		}
	}
}

// A call of Once takes no connection that the head may be about to close as idle.
func TestWhatIsToBeDoneOnceTakesAConnectionThatWasUsedJustNow(t *testing.T) {
	head := rawHead(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			if _, more := request(r); !more {
				return
			}
			_, _ = io.WriteString(c, ok)
		}
	})
	h := newHeads(t, nil)
	call := post(head)
	for i, c := range []struct {
		once   bool
		unused time.Duration
		dialed float64
	}{{true, 0, 1}, {true, 0, 1}, {true, time.Hour, 2}, {false, time.Hour, 2}} {
		h.lastUsedAt(time.Now().Add(time.Minute - c.unused))
		call.Once = c.once
		if _, _, err := do(t.Context(), h, call); err != nil || testutil.ToFloat64(h.dialed) != c.dialed {
			t.Errorf("request %d: %v, %v connections were made", i, err, testutil.ToFloat64(h.dialed))
		}
	}
}

// A head that does not read the body of a request takes it for the next one. What it
// answers to that is no other call's answer.
func TestABodyThatIsTakenForARequestAnswersNoOtherCall(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "QUERY"} {
		head := rawHead(t, func(_ int, c net.Conn, r *bufio.Reader) {
			q, _ := request(r)
			if q == nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			if q.Method == http.MethodPost {
				return
			}
			if _, more := request(r); more { // no exchange may see it
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled")
			}
		})
		h := newHeads(t, nil)
		call := post(head)
		call.Method, call.Body = method, [][]byte{[]byte("GET /admin HTTP/1.1\r\nHost: x\r\n\r\n")}
		if status, _, err := do(t.Context(), h, call); err != nil || status != 204 {
			t.Fatalf("%s: %d %v", method, status, err)
		}
		if _, idle, _ := h.counts(); idle != 0 {
			t.Errorf("%s with a body: its connection is kept", method)
		}
		if status, body, err := do(t.Context(), h, post(head)); err != nil || status != 204 {
			t.Errorf("%s: the next call got %d %q %v", method, status, body, err)
		}
	}
}

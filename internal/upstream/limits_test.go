package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const endpoint = "http://head.test:1"

// pipe puts a connection into the pool whose other end a function serves.
func (h *Heads) pipe(t testing.TB, serve func(net.Conn, *bufio.Reader)) {
	ours, theirs := net.Pipe()
	p, failed := h.reserve(endpoint)
	if failed != nil {
		t.Fatal(failed)
	}
	go func() {
		defer func() { _ = theirs.Close() }()
		serve(theirs, bufio.NewReader(theirs))
	}()
	h.put(h.newConn(p, ours))
}

// Each phase ends at its limit, and the error names it.
func TestLimitsOfPhases(t *testing.T) {
	limits := Limits{Connect: time.Second, Write: 2 * time.Second, FirstByte: 10 * time.Second, Idle: 5 * time.Second, Total: time.Minute}
	drip := func(text string, every time.Duration) func(net.Conn, *bufio.Reader) {
		return func(c net.Conn, r *bufio.Reader) {
			request(r)
			for _, b := range []byte(text) {
				time.Sleep(every)
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
			_, _ = r.ReadByte() // until it is closed
		}
	}
	const header = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
	for name, c := range map[string]struct {
		serve func(net.Conn, *bufio.Reader)
		kind  Kind
		after time.Duration
		sent  bool
		body  int
	}{
		"takes nothing":    {func(_ net.Conn, r *bufio.Reader) { time.Sleep(time.Hour) }, WriteTimeout, 3 * time.Second, false, 10},
		"answers nothing":  {drip("", 0), FirstByteTimeout, 10 * time.Second, true, 10},
		"drips the header": {drip(header, time.Second), FirstByteTimeout, 10 * time.Second, true, 10},
		"falls silent":     {drip(header+"abc", 0), IdleTimeout, 5 * time.Second, true, 10},
		"drips the body": {func(c net.Conn, r *bufio.Reader) {
			request(r)
			_, _ = io.WriteString(c, header)
			drip2(c, 3*time.Second)
		}, TotalTimeout, time.Minute, true, 10},
		"stops in the middle": {func(_ net.Conn, r *bufio.Reader) { _, _ = io.CopyN(io.Discard, r, 20000); time.Sleep(time.Hour) }, WriteTimeout, 4 * time.Second, true, 100000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHeads(t, func(o *Options) { o.Limits, o.IdleTimeout = limits, time.Hour })
				ended := make(chan struct{})
				h.pipe(t, func(conn net.Conn, r *bufio.Reader) { defer close(ended); c.serve(conn, r) })
				start := time.Now()
				call := post(endpoint)
				call.Body = [][]byte{[]byte(strings.Repeat("x", c.body))}
				_, _, err := do(t.Context(), h, call)
				took := time.Since(start)
				if kindOf(err) != c.kind || took < c.after || took > c.after+min(c.after/slackShare, maxSlack) {
					t.Errorf("%v after %s, want %s after %s", err, took, c.kind, c.after)
				}
				if e, is := errors.AsType[*Error](err); is && e.Sent != c.sent {
					t.Errorf("%+v", e)
				}
				if open, _, _ := h.counts(); open != 0 {
					t.Errorf("%d open", open)
				}
				<-ended
			})
		})
	}
}

func drip2(c net.Conn, every time.Duration) {
	for {
		time.Sleep(every)
		if _, err := c.Write([]byte{'x'}); err != nil {
			return
		}
	}
}

// A caller that goes ends the exchange at once, in each phase.
func TestTheCallerLeaves(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(net.Conn, *bufio.Reader)
		kind  Kind
		limit time.Duration
	}{
		"while it writes":   {func(c net.Conn, r *bufio.Reader) { <-time.After(time.Hour) }, Canceled, 0},
		"before the header": {func(_ net.Conn, r *bufio.Reader) { request(r); _, _ = r.ReadByte() }, Canceled, 0},
		"within the body": {func(c net.Conn, r *bufio.Reader) {
			request(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nx")
			_, _ = r.ReadByte()
		}, Canceled, 0},
		"by its deadline": {func(_ net.Conn, r *bufio.Reader) { request(r); _, _ = r.ReadByte() }, TotalTimeout, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHeads(t, func(o *Options) { o.IdleTimeout = time.Hour })
				gone := make(chan time.Time, 1)
				h.pipe(t, func(conn net.Conn, r *bufio.Reader) { c.serve(conn, r); gone <- time.Now() })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.limit > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.limit)
					defer cancel()
				} else {
					time.AfterFunc(time.Second, cancel)
				}
				start := time.Now()
				if _, _, err := do(ctx, h, post(endpoint)); kindOf(err) != c.kind || time.Since(start) != time.Second {
					t.Errorf("%v after %s", err, time.Since(start))
				}
				if at := <-gone; name != "while it writes" && at.Sub(start) != time.Second {
					t.Errorf("the head noticed after %s", at.Sub(start))
				}
			})
		})
	}
}

// A caller that goes at once is noticed soon after.
func TestTheCallerLeavesAtOnce(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, unwatched, 2 * unwatched} {
		synctest.Test(t, func(t *testing.T) {
			h := newHeads(t, func(o *Options) { o.IdleTimeout = time.Hour })
			gone := make(chan time.Time, 1)
			h.pipe(t, func(conn net.Conn, r *bufio.Reader) { request(r); _, _ = r.ReadByte(); gone <- time.Now() })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			start := time.Now()
			if after == 0 {
				cancel()
			} else {
				time.AfterFunc(after, cancel)
			}
			if _, _, err := do(ctx, h, post(endpoint)); kindOf(err) != Canceled || time.Since(start) > max(after, 2*unwatched) {
				t.Errorf("%v after %s, gone after %s", err, time.Since(start), after)
			}
			if at := <-gone; at.Sub(start) > max(after, 2*unwatched) {
				t.Errorf("the head noticed after %s", at.Sub(start))
			}
		})
	}
}

// A caller that goes is noticed while its answer comes in small parts, too.
func TestTheCallerLeavesABodyThatDrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeads(t, func(o *Options) { o.IdleTimeout = time.Hour })
		ended := make(chan struct{})
		h.pipe(t, func(conn net.Conn, r *bufio.Reader) {
			defer close(ended)
			request(r)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			drip2(conn, unwatched/4)
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		if _, _, err := do(ctx, h, post(endpoint)); kindOf(err) != Canceled || time.Since(start) > time.Second+unwatched {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		<-ended
	})
}

// Unused connections are closed after the time-out, and the pool goes with the
// last of them.
func TestUnusedConnectionsAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeads(t, func(o *Options) { o.IdleTimeout = 4 * time.Second })
		gone := make(chan struct{})
		h.pipe(t, func(_ net.Conn, r *bufio.Reader) { _, _ = r.ReadByte(); close(gone) })
		time.Sleep(4 * time.Second)
		if open, idle, pools := h.counts(); open != 1 || idle != 1 || pools != 1 {
			t.Errorf("%d open, %d idle, %d pools", open, idle, pools)
		}
		<-gone
		synctest.Wait()
		if open, idle, pools := h.counts(); open != 0 || idle != 0 || pools != 0 {
			t.Errorf("%d open, %d idle, %d pools", open, idle, pools)
		}
	})
}

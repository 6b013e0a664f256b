package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/httpapi"
	"headway/internal/outbound"
	"headway/internal/proxy"
	"headway/internal/upstream"
)

// quickHead is a connection to a head that has answered when its request was
// written. Nothing waits, and no system is called.
type quickHead struct {
	net.Conn
	answer []byte
	left   []byte
}

func (q *quickHead) Write(b []byte) (int, error) {
	q.left = q.answer
	return len(b), nil
}

func (q *quickHead) Read(b []byte) (int, error) {
	n := copy(b, q.left)
	q.left = q.left[n:]
	return n, nil
}

func (q *quickHead) Close() error                     { return nil }
func (q *quickHead) SetReadDeadline(time.Time) error  { return nil }
func (q *quickHead) SetWriteDeadline(time.Time) error { return nil }

// taker is a caller's connection that takes all.
type taker struct {
	header http.Header
	status int
}

func (t *taker) Header() http.Header              { return t.header }
func (t *taker) WriteHeader(status int)           { t.status = status }
func (t *taker) Write(b []byte) (int, error)      { return len(b), nil }
func (t *taker) SetReadDeadline(time.Time) error  { return nil }
func (t *taker) SetWriteDeadline(time.Time) error { return nil }

// quickPlane is a service with one head that answers so, and a key for it.
func quickPlane(tb testing.TB, answer []byte) (w *world, secret string) {
	tb.Helper()
	w = newWorld(tb, func(o *httpapi.Options) {
		heads, err := upstream.New(upstream.Options{
			Metrics: o.Metrics, IdleTimeout: time.Hour, MaxOpen: 10, MaxOpenPerHead: 10, MaxIdlePerHead: 10,
			Limits: upstream.Limits{Connect: time.Minute, Write: time.Minute, FirstByte: time.Minute, Idle: time.Minute, Total: time.Hour},
			Dial:   func(context.Context, string, string) (net.Conn, error) { return &quickHead{answer: answer}, nil },
		})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = heads.Close(context.WithoutCancel(tb.Context())) })
		if o.Proxy, err = proxy.New(proxy.Options{Router: o.Router, Fleet: o.Fleet, Heads: heads, Metrics: o.Metrics, Calls: outbound.NewCalls(o.Metrics).Head, Log: o.Log, Guard: o.Guard}); err != nil {
			tb.Fatal(err)
		}
	})
	(&plane{world: w}).registered("h", "http://127.0.0.1:9")
	return w, w.key(w.admin(), access.Request{Name: "bench", Role: "admin"})
}

// The last events of a stream whose end has come with them are not flushed by
// themselves: they are sent in one write with the end of the answer.
func TestTheEndOfAStreamIsSentWithItsLastEvents(t *testing.T) {
	const event = `data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"
	w, secret := quickPlane(t, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(event), event))
	to := flushed{taker: taker{header: http.Header{}}}
	w.server.ServeHTTP(&to, newRequest(w, http.MethodPost, chatPath, `{"model":"m","stream":true,"messages":[]}`, "Authorization", "Bearer "+secret))
	if to.status != http.StatusOK || to.text != event || to.flushes != 1 {
		t.Errorf("%d, %q, %d flushes, want one, of the header", to.status, to.text, to.flushes)
	}
}

// flushed is a taker that counts.
type flushed struct {
	taker
	text    string
	flushes int
}

func (f *flushed) Write(b []byte) (int, error) {
	f.text += string(b)
	return len(b), nil
}

func (f *flushed) FlushError() error {
	f.flushes++
	return nil
}

// BenchmarkACompletion is what the service itself does for a small completion with
// an API key, without net/http's server and without the system.
func BenchmarkACompletion(b *testing.B) {
	const text = `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello there, this is a small answer"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":8,"total_tokens":18}}`
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	w, secret := quickPlane(b, answer)
	body := bytes.Repeat([]byte("word "), 60)
	body = fmt.Appendf(nil, `{"model":"m","messages":[{"role":"user","content":"%s"}],"user":"."}`, body)
	r := newRequest(w, http.MethodPost, chatPath, string(body), "Authorization", "Bearer "+secret, "User-Agent", "bench", "Accept", "application/json")
	from := bytes.NewReader(body)
	r.Body = io.NopCloser(from)
	ctx, cancel := context.WithCancel(b.Context()) // as each request of net/http has
	defer cancel()
	r = r.WithContext(ctx)
	b.ReportAllocs()
	for b.Loop() {
		from.Reset(body)
		to := taker{header: http.Header{}}
		if w.server.ServeHTTP(&to, r); to.status != http.StatusOK {
			b.Fatal(to.status)
		}
	}
}

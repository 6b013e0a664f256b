package httpapi_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/internal/config"
	"headway/internal/httpapi"
	"headway/internal/mockhead"
	"headway/internal/proxy"
	"headway/internal/upstream"
)

// memoryNetwork is a network in memory: listeners by their address.
type memoryNetwork struct {
	mu sync.Mutex
	at map[string]*pipes
}

func (n *memoryNetwork) listen(address string) *pipes {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := newPipes()
	n.at[address] = l
	return l
}

// dial connects. An address without a listener never answers.
func (n *memoryNetwork) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.at[address]
	n.mu.Unlock()
	if l == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return pipeEnd{near}, nil
	case <-l.closed:
		return nil, errors.New("refused")
	}
}

// pipeEnd takes a deadline when its other end is closed, as TCP does.
type pipeEnd struct{ net.Conn }

func (p pipeEnd) SetReadDeadline(t time.Time) error {
	if err := p.Conn.SetReadDeadline(t); !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	return nil
}

// version is a version of HTTP that a caller speaks.
type version struct {
	name   string
	change []func(*httpapi.Options)
	client func(*http.Transport)
	scheme string
}

func versions(t *testing.T) []version {
	served, trusts := secured(t)
	return []version{
		{"HTTP/1.1", nil, func(*http.Transport) {}, "http"},
		{"HTTP/2", []func(*httpapi.Options){served}, func(c *http.Transport) { c.TLSClientConfig, c.ForceAttemptHTTP2 = trusts.Clone(), true }, "https"},
	}
}

// onFakeTime runs a test for each version of HTTP on fake time, with the limits
// that are the defaults of the configuration but for the change.
func onFakeTime(t *testing.T, test func(*testing.T, *plane), change ...func(*proxy.Options)) {
	for _, v := range versions(t) {
		t.Run(v.name, func(t *testing.T) {
			fakeTime(t, func(t *testing.T) { test(t, newMemoryPlane(t, v, change...)) })
		})
	}
}

func newMemoryPlane(t *testing.T, v version, change ...func(*proxy.Options)) *plane {
	t.Helper()
	settings, err := config.Load(nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := settings.Proxy
	p := &plane{network: &memoryNetwork{at: map[string]*pipes{}}, url: v.scheme + "://localhost:8080"}
	p.world = newWorld(t, append(v.change, func(o *httpapi.Options) {
		heads, err := upstream.New(upstream.Options{
			Metrics: o.Metrics, IdleTimeout: c.IdleConnection, Limits: upstream.Limits(c.HeadLimits), Dial: p.network.dial,
			MaxOpen: c.MaxConnections, MaxOpenPerHead: c.MaxConnectionsPerHead, MaxIdlePerHead: c.MaxIdlePerHead,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := heads.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		options := proxy.Options{
			Router: o.Router, Fleet: o.Fleet, Heads: heads, Metrics: o.Metrics, Log: o.Log, Guard: o.Guard, Limits: proxy.Limits(c.ProxyLimits),
		}
		for _, c := range change {
			c(&options)
		}
		o.Proxy, err = proxy.New(options)
		if err != nil {
			t.Fatal(err)
		}
	})...)
	p.serve(p.network.listen("localhost:8080"))
	transport := &http.Transport{DialContext: p.network.dial}
	v.client(transport)
	p.client = &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	return p
}

// script has a head of the model m answer by a handler, once it has the body: only
// then a server sees that its client leaves.
func (p *plane) script(id string, answer http.HandlerFunc) {
	p.Helper()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w, r)
	})
	if p.network == nil {
		s := httptest.NewServer(h)
		p.Cleanup(s.Close)
		p.registered(id, s.URL)
		return
	}
	s := &http.Server{Handler: h}
	served := make(chan error, 1)
	l := p.network.listen("192.0.2.1:" + id)
	go func() { served <- s.Serve(l) }()
	p.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	p.registered("head-"+id, "http://192.0.2.1:"+id)
}

// mock starts a mock head in memory; the id is its port.
func (p *plane) mock(id string, faults ...mockhead.Fault) *mockhead.Head {
	p.Helper()
	h, err := mockhead.Start(p.Context(), mockhead.Options{Models: []string{"m"}, Speed: 1000, Record: 100, Listener: p.network.listen("192.0.2.1:" + id)})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(h.Close)
	for _, f := range faults {
		if _, err := h.Inject(f); err != nil {
			p.Fatal(err)
		}
	}
	p.registered("head-"+id, "http://192.0.2.1:"+id)
	return h
}

// say writes a part of a stream and flushes it; with an empty one the header.
func say(w http.ResponseWriter, text string) {
	w.Header()["Content-Type"] = []string{"text/event-stream"}
	_, _ = w.Write([]byte(text))
	_ = http.NewResponseController(w).Flush()
}

// Events of a stream.
const (
	roleEvent   = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}` + "\n\n"
	tokenEvent  = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"x"}}]}` + "\n\n"
	finishEvent = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	doneEvent   = "data: [DONE]\n\n"
)

// wait sleeps, or ends with the request's client.
func wait(r *http.Request, d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.Context().Done():
	}
}

// timed is a stream as it was read: its bytes, and the longest silence.
type timed struct {
	text   string
	gap    time.Duration
	took   time.Duration
	err    error
	status int
}

// timed asks and reads the answer piece by piece.
func (p *plane) timed(path, body string, header ...string) (a timed) {
	p.Helper()
	begin := time.Now()
	last := begin
	res, err := p.ask(p.Context(), path, body, header...)
	if err != nil {
		return timed{err: err}
	}
	defer res.Body.Close()
	a.status = res.StatusCode
	var text strings.Builder
	for b := make([]byte, 64<<10); a.err == nil; {
		now := time.Now()
		a.gap, last = max(a.gap, now.Sub(last)), now
		var n int
		n, a.err = res.Body.Read(b)
		text.Write(b[:n])
	}
	a.text, a.took = text.String(), time.Since(begin)
	return a
}

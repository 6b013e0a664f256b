package httpapi_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"headway/api"
	"headway/internal/httpapi"
	"headway/internal/memstore"
)

// limited sets limits of connections.
func limited(l httpapi.Limits) func(*httpapi.Options) {
	return func(o *httpapi.Options) {
		given, to := reflect.ValueOf(l), reflect.ValueOf(&o.Limits).Elem()
		for i := range given.NumField() {
			if f := given.Field(i); !f.IsZero() {
				to.Field(i).Set(f)
			}
		}
	}
}

// patience is how long a test waits for what must happen; reaching it is a
// failure.
const patience = 20 * time.Second

// dial opens a connection that the test closes.
func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// cut waits for the server to close the connection and returns what it sent
// before.
func cut(t testing.TB, c net.Conn) string {
	t.Helper()
	sent, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection is still open after %s", patience)
	}
	return string(sent)
}

func TestSlowClientsAreCut(t *testing.T) {
	const soon = 50 * time.Millisecond
	for _, c := range []struct {
		name   string
		limits httpapi.Limits
		sends  string
		gets   string // what the answer begins with, "" for none
	}{
		{"sends nothing", httpapi.Limits{HeaderTimeout: soon}, "", ""},
		{"stops within the header", httpapi.Limits{HeaderTimeout: soon}, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", ""},
		{"stops within the body", httpapi.Limits{ReadTimeout: soon}, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n{\"model", "HTTP/1.1 408 "},
		{"stops within a chunk", httpapi.Limits{ReadTimeout: soon}, "POST /api/v1/heads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{\"id\":", "HTTP/1.1 408 "},
		{"asks nothing more", httpapi.Limits{IdleTimeout: soon}, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, limited(c.limits))
			conn := dial(t, w.listen())
			if _, err := io.WriteString(conn, c.sends); err != nil {
				t.Fatal(err)
			}
			got := cut(t, conn)
			if !strings.HasPrefix(got, c.gets) || c.gets == "" && got != "" {
				t.Errorf("it got %q; want %q", got, c.gets)
			}
			if strings.Contains(c.gets, "408") && (!strings.Contains(got, `"code":"request_timeout"`) || !strings.Contains(got, "Connection: close")) {
				t.Errorf("it got %q; want a problem and the end of the connection", got)
			}
			if text := w.log.String(); strings.Contains(text, "level=ERROR") {
				t.Errorf("the log says %s", text)
			}
		})
	}
}

// A client that asks and does not read fills the buffers between, and then
// would hold a goroutine and a connection for ever.
func TestClientThatDoesNotReadIsCut(t *testing.T) {
	w := newWorld(t, limited(httpapi.Limits{WriteTimeout: 100 * time.Millisecond}))
	conn := dial(t, w.listen())
	requests := strings.Repeat("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n", 100)
	for {
		if _, err := io.WriteString(conn, requests); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the connection is still open")
		} else if err != nil {
			return
		}
	}
}

// fromAfar is a listener whose connections come from an address that it is given.
type fromAfar struct {
	net.Listener
	addresses chan string
}

func (l *fromAfar) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &afar{c, &net.TCPAddr{IP: net.ParseIP(<-l.addresses), Port: 1}}, nil
}

type afar struct {
	net.Conn
	from net.Addr
}

func (c *afar) RemoteAddr() net.Addr { return c.from }

func TestConnectionsOfOneAddressAreBounded(t *testing.T) {
	w := newWorld(t, limited(httpapi.Limits{MaxPerAddress: 1}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	far := &fromAfar{l, make(chan string, 1)}
	w.serve(far)
	ask := func(from string) net.Conn {
		far.addresses <- from
		c := dial(t, l.Addr().String())
		_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		return c
	}
	answered := func(c net.Conn) bool {
		_, err := http.ReadResponse(bufio.NewReader(c), nil)
		return err == nil
	}
	first := ask("192.0.2.1")
	for from, want := range map[string]bool{
		"192.0.2.2": true, "127.0.0.1": true, "2001:db8:0:1::1": true,
		"192.0.2.1": false, "::ffff:192.0.2.1": false,
	} {
		if c := ask(from); answered(c) != want {
			t.Errorf("a connection from %s beside one from 192.0.2.1: answered %v", from, !want)
		}
	}
	if c := ask("2001:db8:0:1:ffff::"); answered(c) {
		t.Error("a site has many addresses, and got a connection for each")
	}
	if c := ask("2001:db8:0:2::1"); !answered(c) {
		t.Error("another site was refused")
	}
	if !answered(first) {
		t.Error("the first connection was lost")
	}
	_ = first.Close()
	for !answered(ask("192.0.2.1")) { // until the server has seen that it is closed
	}
}

func TestHeadersAndConnectionsAreBounded(t *testing.T) {
	w := newWorld(t, limited(httpapi.Limits{MaxConnections: 2, MaxHeaderBytes: 4 << 10}))
	addr := w.listen()
	first := dial(t, addr)
	in := bufio.NewReader(first)
	ask := func() string {
		t.Helper()
		if _, err := io.WriteString(first, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		return string(drain(r.Body))
	}
	ask()
	long := dial(t, addr)
	if _, err := io.WriteString(long, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: "+strings.Repeat("x", 16<<10)); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if got := cut(t, long); !strings.HasPrefix(got, "HTTP/1.1 431 ") && got != "" {
		t.Errorf("a long header got %q", got)
	}
	// Two connections are open again as soon as the server has closed its side
	// of the last one, which the gauge shows.
	for strings.Contains(ask(), "headway_http_connections 2\n") {
	}
	second := dial(t, addr)
	if _, err := io.WriteString(second, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if r, err := http.ReadResponse(bufio.NewReader(second), nil); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("the second connection: %v", err)
	}
	if got := cut(t, dial(t, addr)); got != "" {
		t.Errorf("one connection too many got %q", got)
	}
	if text := ask(); !strings.Contains(text, "headway_http_connections 2\n") || !strings.Contains(text, "headway_http_connections_refused_total 1\n") {
		t.Error("the connections are not counted")
	}
}

// A header may have as many bytes as is documented, and not one more.
func TestTheLimitOfHeadersIsExact(t *testing.T) {
	for _, limit := range []int{0, 8 << 10} {
		w := newWorld(t, limited(httpapi.Limits{MaxHeaderBytes: int64(limit)}))
		addr := w.listen()
		if limit == 0 {
			limit = 16 << 10 // docs/configuration.md
		}
		ask := func(size int) string {
			t.Helper()
			c := dial(t, addr)
			header := "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: "
			header += strings.Repeat("x", size-len(header)-4) + "\r\n\r\n"
			// The rest of one that is too long is not read.
			if _, err := io.WriteString(c, header); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
			return cut(t, c)
		}
		if got := ask(limit); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("a header of %d bytes, as many as may be, got %.80q", limit, got)
		}
		if got := ask(limit + 1); !strings.HasPrefix(got, "HTTP/1.1 431 ") {
			t.Errorf("a header of %d bytes, one too many, got %.80q", limit+1, got)
		}
	}
}

// noRequest sends what net/http refuses before it is a request; the answers are
// problems like all others. It returns their code.
func (w *world) noRequest(c *contract, connect func() net.Conn) string {
	w.Helper()
	wants := map[int]int{}
	for request, want := range map[string]struct {
		status int
		detail string
	}{
		"GET /livez HTTP/1.1\r\n\r\n":              {400, "missing required Host header"},
		"GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n": {400, "malformed Host header"},
		"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n": {400, "RFC 9112"},
		"GET /livez HTTP/1.1\r\nHost: localhost\r\nX y: 1\r\n\r\n":                                 {400, "invalid header name"},
		"GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n":                {501, "transfer encoding"},
		"GET /livez HTTP/7.0\r\nHost: localhost\r\n\r\n":                                           {505, "unsupported protocol version"},
		"GET /" + "\x00" + " HTTP/1.1\r\nHost: localhost\r\n\r\n":                                  {400, "RFC 9112"},
		"nonsense\r\n\r\n": {400, "RFC 9112"},
		"GET /livez HTTP/1.1\r\nHost: localhost\r\nExpect: a-miracle\r\n\r\n":                           {417, "100-continue"},
		"GET /livez HTTP/1.0\r\nExpect: a-miracle\r\n\r\n":                                              {417, "100-continue"},
		"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: " + strings.Repeat("x", 16<<10) + "\r\n\r\n": {431, "http.max_header_bytes"},
	} {
		conn := connect()
		_, _ = io.WriteString(conn, request) // the rest of one that is too long is not read
		r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(cut(w, conn))), nil)
		if err != nil {
			w.Fatalf("%.60q: %v", request, err)
		}
		a := &answer{status: r.StatusCode, header: r.Header, body: drain(r.Body)}
		_ = r.Body.Close()
		if !r.Close {
			w.Errorf("%.60q: the answer does not say that the connection ends", request)
		}
		p := w.problem(want.status, api.CodeMalformed, a)
		c.problem(w, a)
		if !strings.Contains(p.Detail, want.detail) || a.header.Get("Date") == "" {
			w.Errorf("%.60q: got %q, %v; want %q", request, p.Detail, a.header, want.detail)
		}
		wants[want.status]++
	}
	page := w.scrape()
	for status, n := range wants {
		if line := fmt.Sprintf("http_requests_total{endpoint=\"other\",method=\"other\",status=\"%d\"} %d\n", status, n); !strings.Contains(page, line) {
			w.Errorf("no %s", line)
		}
	}
	return api.CodeMalformed
}

// pipes is a listener in memory, so that time can stand still while nothing
// happens.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return &afar{c, p.Addr()}, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080} }

var errRefused = errors.New("connection refused")

// ask sends one request over a connection of its own; a nil answer is one that
// the server cut.
func (p *pipes) ask(method, target, body string) (*answer, error) {
	client, server := net.Pipe()
	defer client.Close()
	select {
	case p.conns <- server:
	case <-p.closed:
		return nil, errRefused
	}
	request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body)
	if _, err := io.WriteString(client, request); err != nil {
		return nil, err
	}
	r, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	header := r.Header
	if r.Close {
		header.Set("Connection", "close") // ReadResponse takes it away
	}
	return &answer{status: r.StatusCode, header: header, body: drain(r.Body)}, nil
}

// draining is a world with one head, a registration in flight and a server
// that was asked to stop.
type drainingWorld struct {
	*world
	pipes    *pipes
	release  chan struct{} // lets the registration go on
	inFlight chan error    // how it ended
	served   chan error
	drained  chan error
}

func newDrainingWorld(t *testing.T) *drainingWorld {
	w := &drainingWorld{
		world: newWorld(t), pipes: newPipes(), release: make(chan struct{}),
		inFlight: make(chan error, 1), served: make(chan error, 1), drained: make(chan error, 1),
	}
	w.register("a")
	synctest.Wait()
	w.store.Inject(memstore.Fault{Wait: w.release})
	go func() { w.served <- w.server.Serve(w.pipes) }()
	go func() {
		a, err := w.pipes.ask(http.MethodPost, "/api/v1/heads", headBody("b"))
		if err == nil && a.status != http.StatusCreated {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		w.inFlight <- err
	}()
	synctest.Wait()
	if a, err := w.pipes.ask(http.MethodGet, "/readyz", ""); err != nil || a.status != http.StatusOK || a.header.Get("Connection") != "" {
		t.Fatalf("before: %v, %+v", err, a)
	}
	go func() { w.drained <- w.server.Drain(context.Background()) }()
	synctest.Wait()
	return w
}

func TestStoppingLosesNoRequest(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		begin := time.Now()
		w := newDrainingWorld(t)
		// For the time of the lame duck readiness fails, and everything is served
		// and asked to come back over another connection.
		for time.Since(begin) < 3*time.Second {
			a, err := w.pipes.ask(http.MethodGet, "/readyz", "")
			if err != nil || a.status != http.StatusServiceUnavailable {
				t.Fatalf("readyz after %s: %v, %+v", time.Since(begin), err, a)
			}
			for _, check := range into[api.Readiness](t, a).Checks {
				if check.OK != (check.Name != "stopping") {
					t.Errorf("check %+v", check)
				}
			}
			a, err = w.pipes.ask(http.MethodPost, "/api/v1/decisions", `{"model_type":"llama-3.1-8b"}`)
			if err != nil || a.status != http.StatusOK || a.header.Get("Connection") != "close" {
				t.Fatalf("decision after %s: %v, %+v", time.Since(begin), err, a)
			}
			if a, err = w.pipes.ask(http.MethodGet, "/livez", ""); err != nil || a.status != http.StatusOK {
				t.Fatalf("livez after %s: %v, %+v; a process that stops is alive", time.Since(begin), err, a)
			}
			time.Sleep(250 * time.Millisecond)
		}
		time.Sleep(time.Millisecond)
		if _, err := w.pipes.ask(http.MethodGet, "/livez", ""); !errors.Is(err, errRefused) {
			t.Errorf("after the lame duck: %v; want no listener", err)
		}
		time.Sleep(20 * time.Second) // less than the shutdown's timeout
		select {
		case err := <-w.inFlight:
			t.Fatalf("work in flight ended before its time: %v", err)
		case err := <-w.drained:
			t.Fatalf("it stopped with work in flight: %v", err)
		default:
		}
		close(w.release)
		if err := <-w.inFlight; err != nil {
			t.Errorf("work in flight: %v", err)
		}
		if err := errors.Join(<-w.drained, <-w.served); err != nil {
			t.Errorf("it stopped with: %v", err)
		}
	})
}

func TestWorkThatDoesNotEndIsCut(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		w := newDrainingWorld(t)
		begin := time.Now()
		err := <-w.drained
		if err == nil || !strings.Contains(err.Error(), "still under way after 30s and were cut") {
			t.Errorf("Drain: %v; want one that says what was waited for", err)
		}
		if took := time.Since(begin); took != 35*time.Second {
			t.Errorf("it took %s; want the lame duck, the timeout and the last words, 35 s", took)
		}
		if err := <-w.inFlight; err == nil {
			t.Error("work in flight was answered after its connection was cut")
		}
		close(w.release)
		if err := <-w.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

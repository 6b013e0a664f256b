package httpapi_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"headway/internal/httpapi"
)

// frames is a connection by HTTP/2 that sends what it likes.
type frames struct {
	*http2.Framer
	conn   net.Conn
	buffer bytes.Buffer
	pack   *hpack.Encoder
}

// byHTTP2 connects to a server by HTTP/2 with settings of its own.
func byHTTP2(t testing.TB, addr string, trusts *tls.Config, settings ...http2.Setting) *frames {
	t.Helper()
	config := trusts.Clone()
	config.NextProtos = []string{"h2"}
	conn := tls.Client(dial(t, addr), config)
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := &frames{Framer: http2.NewFramer(conn, conn), conn: conn}
	f.pack = hpack.NewEncoder(&f.buffer)
	if err := errors.Join(f.WriteSettings(settings...), f.WriteSettingsAck()); err != nil {
		t.Fatal(err)
	}
	return f
}

// ask opens a stream; more says that a body follows.
func (f *frames) ask(stream uint32, method, path string, more bool) error {
	f.buffer.Reset()
	for _, h := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "localhost"}, {":path", path}} {
		if err := f.pack.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.buffer.Bytes(), EndHeaders: true, EndStream: !more})
}

// Streams that are opened and reset at once (CVE-2023-44487) hold neither
// goroutines nor others up.
func TestStreamsThatAreResetAtOnce(t *testing.T) {
	served, trusts := secured(t)
	w := newWorld(t, served)
	w.register("a")
	addr := w.listen()
	before := runtime.NumGoroutine()
	client := &http.Transport{TLSClientConfig: trusts.Clone(), ForceAttemptHTTP2: true}
	defer client.CloseIdleConnections()
	const connections, streams = 4, 5_000
	for range connections {
		f := byHTTP2(t, addr, trusts)
		go func() { _, _ = io.Copy(io.Discard, f.conn) }()
		for n := range uint32(streams) {
			if f.ask(2*n+1, "GET", "/metrics", false) != nil || f.WriteRSTStream(2*n+1, http2.ErrCodeCancel) != nil {
				break // it was thrown out, which is as good
			}
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+addr+"/api/v1/decisions", strings.NewReader(`{"model_type":"llama-3.1-8b"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "localhost"
		answered, err := client.RoundTrip(r)
		if err != nil {
			t.Fatalf("another client: %v", err)
		}
		_ = answered.Body.Close()
		if answered.StatusCode != http.StatusOK {
			t.Errorf("another client: %d", answered.StatusCode)
		}
		if n := runtime.NumGoroutine() - before; n > 3000 {
			t.Errorf("%d goroutines are held", n)
		}
	}
}

// A stream by HTTP/2 has the deadlines of a request: a client that sends its body
// slowly, or does not read its answer, loses it.
func TestSlowStreamsAreEnded(t *testing.T) {
	served, trusts := secured(t)
	w := newWorld(t, served, func(o *httpapi.Options) {
		o.Limits.ReadTimeout, o.Limits.WriteTimeout = time.Second, 4*time.Second // within which hands are shaken, too
	})
	addr := w.listen()
	ended := func(f *frames) string {
		t.Helper()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return err.Error()
			}
			switch frame := frame.(type) {
			case *http2.RSTStreamFrame:
				return "reset"
			case *http2.HeadersFrame:
				fields, err := hpack.NewDecoder(4096, nil).DecodeFull(frame.HeaderBlockFragment())
				if err != nil {
					t.Fatal(err)
				}
				if fields[0].Value != "200" {
					return fields[0].Value
				}
			}
		}
	}
	slow := byHTTP2(t, addr, trusts)
	if err := errors.Join(slow.ask(1, "POST", "/api/v1/decisions", true), slow.WriteData(1, false, []byte(`{"model`))); err != nil {
		t.Fatal(err)
	}
	if got := ended(slow); got != "408" {
		t.Errorf("a body that does not come: %s", got)
	}
	deaf := byHTTP2(t, addr, trusts, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	if err := deaf.ask(1, "GET", "/openapi.json", false); err != nil {
		t.Fatal(err)
	}
	if got := ended(deaf); got != "reset" {
		t.Errorf("an answer that is not read: %s", got)
	}
}

// starved is a listener to which the system gives no connection for a while.
type starved struct {
	*pipes
	refusals int
	asked    int
}

func (l *starved) Accept() (net.Conn, error) {
	if l.asked++; l.asked <= l.refusals {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.pipes.Accept()
}

// A process without file descriptors left asks again after a while, says so, and
// serves when there are some.
func TestTheListenerOutlivesAFullTableOfFiles(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		w := newWorld(t)
		l := &starved{pipes: newPipes(), refusals: 20}
		begin := time.Now()
		served := make(chan error, 1)
		go func() { served <- w.server.Serve(l) }()
		a, err := l.ask(http.MethodGet, "/livez", "")
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("%v, %+v", err, a)
		}
		if took := time.Since(begin); took < 5*time.Second || took > 20*time.Second {
			t.Errorf("20 refusals took %s; want it to wait between them, and not for ever", took)
		}
		if !strings.Contains(w.scrape(), "headway_http_accept_errors_total 20\n") {
			t.Error("they are not counted")
		}
		if n := strings.Count(w.log.String(), "too many open files"); n == 0 || n > 10 {
			t.Errorf("the log says it %d times:\n%s", n, w.log.String())
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = w.server.Drain(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// A connection that is closed twice is counted out once.
func TestAConnectionIsCountedOutOnce(t *testing.T) {
	inner := newPipes()
	l := httpapi.BoundedListener(inner, httpapi.Limits{MaxConnections: 2})
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	come := func() net.Conn {
		client, server := net.Pipe()
		inner.conns <- server
		return client
	}
	come()
	first := <-accepted
	come()
	second := <-accepted
	for range 3 {
		_ = first.Close()
	}
	come()
	third := <-accepted
	refused := come()
	closed := make(chan error, 1)
	go func() { _, err := refused.Read(make([]byte, 1)); closed <- err }()
	select {
	case c := <-accepted:
		t.Error("a third connection at once is accepted")
		_ = c.Close()
	case err := <-closed:
		if !errors.Is(err, io.EOF) {
			t.Errorf("the third connection: %v", err)
		}
	}
	for _, c := range []net.Conn{second, third} {
		_ = c.Close()
	}
	_ = inner.Close()
	<-accepted
}

// One large body does not stay in memory for the sake of small ones.
func TestALargeBufferIsNotKept(t *testing.T) {
	for range 100 {
		httpapi.UseBuffer(1 << 20)
		if n := httpapi.UseBuffer(0); n > 64<<10 {
			t.Fatalf("a buffer of %d bytes was kept", n)
		}
	}
}

package httpapi_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"headway/api"
	"headway/internal/httpapi"
)

// shake opens a connection by TLS that offers the protocols.
func shake(t testing.TB, addr string, trusts *tls.Config, protocols ...string) *tls.Conn {
	t.Helper()
	config := trusts.Clone()
	config.NextProtos = protocols
	conn := tls.Client(dial(t, addr), config)
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// counted waits until a metric has a value.
func (w *world) counted(metric string, value int) {
	w.Helper()
	want := fmt.Sprintf("%s %d\n", metric, value)
	for end := time.Now().Add(patience); !strings.Contains(w.scrape(), want); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("no %s", want)
		}
	}
}

const failedHandshakes = "headway_tls_handshake_failures_total"

// What net/http refuses before it is a request is a problem by TLS, too, and
// counted; so is a request that came without TLS.
func TestWhatIsNoRequestByTLS(t *testing.T) {
	served, trusts := secured(t)
	for _, protocols := range [][]string{nil, {"http/1.1"}} {
		w := newWorld(t, served)
		addr := w.listen()
		w.noRequest(theContract(t), func() net.Conn { return shake(t, addr, trusts, protocols...) })
	}
	w := newWorld(t, served)
	addr := w.listen()
	for n, begin := range []string{"GET /livez", "HEAD /livez", "POST /api/v1/decisions", "PUT /x", "PATCH /x", "DELETE /x", "OPTIONS *"} {
		conn := dial(t, addr)
		if _, err := io.WriteString(conn, begin+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		a := &answer{status: r.StatusCode, header: r.Header, body: drain(r.Body)}
		_ = r.Body.Close()
		if p := w.problem(http.StatusBadRequest, api.CodeMalformed, a); !strings.Contains(p.Detail, "HTTPS") || !r.Close {
			t.Errorf("%s without TLS: %+v", begin, p)
		}
		w.counted(failedHandshakes, n+1)
		w.counted(`http_requests_total{endpoint="other",method="other",status="400"}`, n+1)
	}
}

// A handshake that fails or does not come ends within its time, is counted, and
// holds no other up.
func TestHandshakesAreBounded(t *testing.T) {
	served, trusts := secured(t)
	w := newWorld(t, served, func(o *httpapi.Options) {
		o.Limits.HeaderTimeout, o.Limits.MaxConnections = 2*time.Second, 20
	})
	acme, _ := secured(t)
	checked := newWorld(t, acme, func(o *httpapi.Options) {
		o.TLS = o.TLS.Clone()
		o.TLS.NextProtos = append(o.TLS.NextProtos, "acme-tls/1")
	})
	addr, checkedAddr := w.listen(), checked.listen()
	silent := make([]net.Conn, 10)
	for i := range silent {
		silent[i] = dial(t, addr)
	}
	half := dial(t, addr)
	_, _ = half.Write([]byte{22, 3, 1, 2, 0, 1}) // of a greeting
	conn := shake(t, addr, trusts, "http/1.1")
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := cut(t, conn); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("beside silent ones: %q", got)
	}
	for _, c := range append(silent, half) {
		if got := cut(t, c); strings.Contains(got, "HTTP") {
			t.Errorf("a handshake that does not come got %q", got)
		}
	}
	w.counted(failedHandshakes, len(silent)+1)
	garbage := dial(t, addr)
	_, _ = io.WriteString(garbage, "\x00\x01\x02\x03\x04 no TLS")
	_ = cut(t, garbage)
	w.counted(failedHandshakes, len(silent)+2)
	distrust := trusts.Clone()
	distrust.RootCAs = nil
	if err := tls.Client(dial(t, addr), distrust).HandshakeContext(t.Context()); err == nil {
		t.Error("it is trusted without its authority")
	}
	w.counted(failedHandshakes, len(silent)+3)
	// An authority that checks our name by a handshake asks nothing more.
	if got := cut(t, shake(t, checkedAddr, &tls.Config{InsecureSkipVerify: true, ServerName: "example.com"}, "acme-tls/1")); got != "" {
		t.Errorf("a check of the name got %q", got)
	}
	checked.counted(failedHandshakes, 0)
	w.counted("headway_http_connections", 0)
	for range 20 {
		silent = append(silent, dial(t, addr))
	}
	w.counted("headway_http_connections", 20)
	if got := cut(t, dial(t, addr)); got != "" {
		t.Errorf("a connection beyond the limit got %q", got)
	}
	// What a stopped server leaves behind is found when all tests have ended.
	for _, world := range []*world{w, checked} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = world.server.Drain(ctx)
	}
}

// A stop lets requests by TLS end, by each protocol, and asks the clients
// of HTTP/2 to go.
func TestStoppingByTLSLosesNoRequest(t *testing.T) {
	served, trusts := secured(t)
	w := newWorld(t, served, func(o *httpapi.Options) { o.Limits.LameDuck = time.Millisecond })
	w.register("a")
	release, begun := make(chan struct{}), make(chan struct{})
	addr := w.listen()
	var all sync.WaitGroup
	for protocol, next := range map[string]string{"HTTP/1.1": "http/1.1", "HTTP/2.0": "h2"} {
		config := trusts.Clone()
		config.NextProtos = []string{next}
		client := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: next == "h2", ExpectContinueTimeout: patience}
		t.Cleanup(client.CloseIdleConnections)
		all.Go(func() {
			// The body is asked for once the handler reads it.
			body := io.MultiReader(readerFunc(func([]byte) (int, error) {
				begun <- struct{}{}
				<-release
				return 0, io.EOF
			}), strings.NewReader(`{"model_type":"llama-3.1-8b"}`))
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+addr+"/api/v1/decisions", body)
			if err != nil {
				t.Error(err)
				return
			}
			r.Host = "localhost"
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Expect", "100-continue")
			answered, err := client.RoundTrip(r)
			if err != nil {
				t.Errorf("%s: %v", protocol, err)
				return
			}
			defer answered.Body.Close()
			if text, err := io.ReadAll(answered.Body); err != nil || answered.StatusCode != http.StatusOK || answered.Proto != protocol || answered.TLS == nil {
				t.Errorf("%s: %s by %s, %v: %s", protocol, answered.Status, answered.Proto, err, text)
			}
		})
	}
	idle := byHTTP2(t, addr, trusts)
	if frame, err := idle.ReadFrame(); err != nil || frame.Header().Type != http2.FrameSettings { // one that is not served yet is not notified
		t.Fatalf("%v, %v; want the settings of the service", frame, err)
	}
	<-begun
	<-begun
	drained := make(chan error, 1)
	go func() { drained <- w.server.Drain(context.Background()) }()
	for { // until it gets the goodbye
		frame, err := idle.ReadFrame()
		if err != nil {
			t.Errorf("an idle connection of HTTP/2: %v; want GOAWAY", err)
			break
		}
		if _, is := frame.(*http2.GoAwayFrame); is {
			break
		}
	}
	select {
	case err := <-drained:
		t.Errorf("it stopped with work in flight: %v", err)
	default:
	}
	close(release)
	all.Wait()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if _, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr); err == nil {
		t.Error("it still listens")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// A WebSocket by TLS takes the connection over.
func TestAWebSocketByTLS(t *testing.T) {
	served, trusts := secured(t)
	w := newWorld(t, served)
	conn := shake(t, w.listen(), trusts, "http/1.1")
	if _, err := io.WriteString(conn, "GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%s", r.Status)
	}
	if _, err := conn.Write([]byte{0x88, 0x80, 0, 0, 0, 0}); err != nil { // a masked close
		t.Fatal(err)
	}
	if b, err := in.ReadByte(); err != nil || b&0x80 == 0 {
		t.Errorf("%x, %v; want a frame", b, err)
	}
}

package upstream

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// reset closes a connection so that the other end sees a reset.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// A head closes idle connections while the next request is on its way: each of
// 200 requests is answered, and none is carried out twice.
func TestPitfallP15IdleConnectionsThatTheEngineCloses(t *testing.T) {
	var served atomic.Int64
	end := rawHead(t, func(n int, c net.Conn, r *bufio.Reader) {
		request(r)
		served.Add(1)
		_, _ = io.WriteString(c, ok)
		_, _ = r.ReadByte() // the next request has begun
		if n%2 == 0 {
			reset(c)
		}
	})
	h := newHeads(t, nil)
	for i := range 200 {
		if status, body, err := do(t.Context(), h, post(end)); err != nil || status != 200 || body != "ok" {
			t.Fatalf("request %d: %d %q %v", i, status, body, err)
		}
	}
	if served.Load() != 200 || testutil.ToFloat64(h.repeated) != 199 {
		t.Errorf("%d served, %v repeated", served.Load(), testutil.ToFloat64(h.repeated))
	}
}

// An idle connection that was closed before the request is found without
// sending anything.
func TestPitfallP15ClosedBeforeTheRequest(t *testing.T) {
	closed := make(chan struct{})
	end := rawHead(t, func(_ int, c net.Conn, r *bufio.Reader) {
		request(r)
		_, _ = io.WriteString(c, ok)
		_ = c.Close()
		closed <- struct{}{}
	})
	h := newHeads(t, nil)
	for range 3 {
		if _, _, err := do(t.Context(), h, post(end)); err != nil {
			t.Fatal(err)
		}
		<-closed
	}
	if stale, repeated := testutil.ToFloat64(h.stale), testutil.ToFloat64(h.repeated); stale != 2 || repeated != 0 {
		t.Errorf("%v stale, %v repeated", stale, repeated)
	}
}

// A request is not repeated once the head began to answer, nor on a new
// connection, nor a second time.
func TestPitfallP15WhatIsNotRepeated(t *testing.T) {
	for name, c := range map[string]struct {
		first, second string // what connection 0 answers to its requests; "": closes
		seen          int
		received      bool
	}{
		"began to answer": {ok, "HTTP/1.1 2", 2, true},
		"new connection":  {"", "", 1, false},
		"second time":     {ok, "", 3, false},
	} {
		var seen atomic.Int64
		end := rawHead(t, func(n int, conn net.Conn, r *bufio.Reader) {
			if n > 0 {
				request(r)
				seen.Add(1)
				return
			}
			for _, answer := range []string{c.first, c.second} {
				request(r)
				seen.Add(1)
				if answer == "" {
					return
				}
				_, _ = io.WriteString(conn, answer)
			}
		})
		h := newHeads(t, nil)
		var err error
		for range 2 {
			if _, _, err = do(t.Context(), h, post(end)); err != nil {
				break
			}
		}
		e, is := errors.AsType[*Error](err)
		if !is || (e.Kind != EndOfStream && e.Kind != Reset) || e.Received != c.received || !e.Sent || seen.Load() != int64(c.seen) {
			t.Errorf("%s: %+v after %d requests", name, e, seen.Load())
		}
	}
}

// certificate makes one for localhost, and the pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// Host and the name in TLS are those of the endpoint.
func TestPitfallP17HostAndTLSName(t *testing.T) {
	cert, roots := certificate(t)
	var mu sync.Mutex
	var names, hosts []string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		hosts = append(hosts, r.Host)
		_, _ = fmt.Fprint(w, len(b))
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, hello.ServerName)
		return nil, nil
	}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	end := "https://localhost:" + port
	h := newHeads(t, func(o *Options) {
		o.RootCAs = roots
	})
	for _, size := range []int{2, 300 << 10, 3, 4} {
		call := post(end)
		call.Body = [][]byte{make([]byte, size-1), make([]byte, 1)}
		if _, body, err := do(t.Context(), h, call); err != nil || body != fmt.Sprint(size) {
			t.Fatalf("%q %v", body, err)
		}
	}
	if want := "localhost:" + port; !slices.Equal(hosts, []string{want, want, want, want}) || !slices.Equal(names, []string{"localhost"}) {
		t.Errorf("hosts %q, names %q (one connection is reused)", hosts, names)
	}
	other := newHeads(t, nil)
	if _, _, err := do(t.Context(), other, post(end)); kindOf(err) != TLS {
		t.Errorf("without the authority: %v", err)
	}
	if _, _, err := do(t.Context(), h, post("https://127.0.0.1:"+port)); kindOf(err) != TLS {
		t.Errorf("by another name: %v", err)
	}
}

// A redirect is an answer like others.
func TestPitfallP28RedirectsAreNotFollowed(t *testing.T) {
	var followed atomic.Bool
	other := rawHead(t, func(int, net.Conn, *bufio.Reader) { followed.Store(true) })
	end := rawHead(t, func(_ int, c net.Conn, r *bufio.Reader) {
		request(r)
		_, _ = io.WriteString(c, "HTTP/1.1 307 Temporary Redirect\r\nLocation: "+other+"/\r\nContent-Length: 0\r\n\r\n")
	})
	answer, err := newHeads(t, nil).Do(t.Context(), post(end))
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.Status != 307 || answer.Header.Get("Location") != other+"/" || followed.Load() {
		t.Errorf("%d %v, followed: %t", answer.Status, answer.Header, followed.Load())
	}
}

// A proxy of the environment is not used.
func TestPitfallP29NoProxyOfTheEnvironment(t *testing.T) {
	var asked atomic.Bool
	proxy := rawHead(t, func(int, net.Conn, *bufio.Reader) { asked.Store(true) })
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, proxy)
	}
	lines := make(chan string, 1)
	end := rawHead(t, func(_ int, c net.Conn, r *bufio.Reader) {
		line, _ := r.ReadString('\n')
		lines <- line
		_, _ = io.WriteString(c, ok)
	})
	end = strings.Replace(end, "127.0.0.1", "localhost", 1)
	if _, _, err := do(t.Context(), newHeads(t, nil), post(end)); err != nil {
		t.Fatal(err)
	}
	if line := <-lines; line != "POST /v1/x?a=b HTTP/1.1\r\n" || asked.Load() {
		t.Errorf("the head was sent %q; the proxy was asked: %t", line, asked.Load())
	}
}

// What is sent, byte for byte, in one write or in several.
func TestTheRequestAsItIsSent(t *testing.T) {
	for _, n := range []int{0, 1, smallBody, smallBody + 1, 1 << 20} {
		body := strings.Repeat("a", n)
		half := n / 2
		call := post("")
		call.Body = [][]byte{[]byte(body[:half]), []byte(body[half:])}
		size := make(chan int, 1) // of the request
		got := make(chan string, 1)
		end := rawHead(t, func(_ int, c net.Conn, r *bufio.Reader) {
			b := make([]byte, <-size)
			_, _ = io.ReadFull(r, b)
			got <- string(b)
			_, _ = io.WriteString(c, ok)
		})
		call.Endpoint = end
		want := fmt.Sprintf("POST /v1/x?a=b HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n%s", end[len("http://"):], len(body), body)
		size <- len(want)
		if _, _, err := do(t.Context(), newHeads(t, nil), call); err != nil {
			t.Fatal(err)
		}
		if <-got != want {
			t.Errorf("another request of %d bytes", n)
		}
		if string(call.Body[0])+string(call.Body[1]) != body {
			t.Error("the call was changed")
		}
	}
}

// A head that answers without reading the body is heard, whether it stalls or
// closes, and the connection is not used again.
func TestAnswersBeforeTheRequestEnds(t *testing.T) {
	for _, stalls := range []bool{true, false} {
		t.Run(fmt.Sprintf("stalls %t", stalls), func(t *testing.T) {
			release := make(chan struct{})
			end := rawHead(t, func(_ int, c net.Conn, r *bufio.Reader) {
				_, _ = http.ReadRequest(r)
				_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
				if stalls {
					<-release
				}
			})
			defer close(release)
			h := newHeads(t, nil)
			call := post(end)
			call.Body = [][]byte{make([]byte, 32<<20)}
			if status, body, err := do(t.Context(), h, call); err != nil || status != 413 || body != "big" {
				t.Errorf("%d %q %v", status, body, err)
			}
			if open, _, _ := h.counts(); open != 0 {
				t.Error("the connection is kept")
			}
		})
	}
}

// A body that is closed before its end closes the connection.
func TestABodyThatIsNotReadToItsEnd(t *testing.T) {
	gone := make(chan struct{})
	end := rawHead(t, func(_ int, c net.Conn, r *bufio.Reader) {
		request(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab")
		_, _ = r.ReadByte()
		close(gone)
	})
	h := newHeads(t, nil)
	answer, err := h.Do(t.Context(), post(end))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(answer.Body, make([]byte, 2)); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := answer.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	if open, _, _ := h.counts(); open != 0 {
		t.Fatalf("%d open", open)
	}
	<-gone
	if _, err := answer.Body.Read(make([]byte, 1)); err == nil {
		t.Error("a closed body is read")
	}
}

// The limits hold for each head and in all; unused connections make way.
func TestLimitsOfConnections(t *testing.T) {
	serve := func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			if _, more := request(r); !more {
				return
			}
			_, _ = io.WriteString(c, ok)
		}
	}
	a, b := rawHead(t, serve), rawHead(t, serve)
	h := newHeads(t, func(o *Options) { o.MaxOpen, o.MaxOpenPerHead, o.MaxIdlePerHead = 3, 2, 1 })
	var open []*Response
	defer func() {
		for _, answer := range open {
			_ = answer.Body.Close()
		}
	}()
	take := func(end string) Kind {
		answer, err := h.Do(t.Context(), post(end))
		if err == nil {
			open = append(open, answer)
		}
		return kindOf(err)
	}
	for i, c := range []struct {
		end  string
		kind Kind
	}{{a, ""}, {a, ""}, {a, Limit}, {b, ""}, {b, Limit}} {
		if kind := take(c.end); kind != c.kind {
			t.Fatalf("exchange %d: %q, want %q", i, kind, c.kind)
		}
	}
	if testutil.ToFloat64(h.refused) != 2 {
		t.Error("what was refused is not counted")
	}
	for _, answer := range open[:2] { // of head a
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
	}
	if n, idle, _ := h.counts(); n != 2 || idle != 1 {
		t.Fatalf("%d open, %d idle; one idle connection is kept", n, idle)
	}
	if kind := take(b); kind != "" {
		t.Fatal(kind)
	}
	c := rawHead(t, serve)
	if kind := take(c); kind != "" {
		t.Errorf("the unused one did not make way: %s", kind)
	}
	for _, answer := range open[2:] {
		_ = answer.Body.Close()
	}
	if n, _, pools := h.counts(); n != 0 || pools != 0 {
		t.Errorf("%d open, %d pools", n, pools)
	}
}

// A head that left has no connections, neither unused ones nor, when they end,
// those in use.
func TestForget(t *testing.T) {
	end := rawHead(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for _, more := request(r); more; _, more = request(r) {
			_, _ = io.WriteString(c, ok)
		}
	})
	h := newHeads(t, nil)
	first, err := h.Do(t.Context(), post(end))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := do(t.Context(), h, post(end)); err != nil {
		t.Fatal(err)
	}
	h.Forget(end)
	h.Forget("http://unknown.test")
	if open, idle, pools := h.counts(); open != 1 || idle != 0 || pools != 0 {
		t.Errorf("%d open, %d idle, %d pools", open, idle, pools)
	}
	_, _ = io.Copy(io.Discard, first.Body)
	_ = first.Body.Close()
	if open, idle, _ := h.counts(); open != 0 || idle != 0 {
		t.Errorf("%d open, %d idle", open, idle)
	}
}

// Close waits for exchanges under way and refuses new ones.
func TestClose(t *testing.T) {
	end := rawHead(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for _, more := request(r); more; _, more = request(r) {
			_, _ = io.WriteString(c, ok)
		}
	})
	h := newHeads(t, nil)
	answer, err := h.Do(t.Context(), post(end))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with an exchange under way: %v", err)
	}
	if _, _, err := do(t.Context(), h, post(end)); kindOf(err) != Closed {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFailuresToConnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	h := newHeads(t, nil)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx      context.Context
		endpoint string
		kind     Kind
	}{
		{t.Context(), "http://" + l.Addr().String(), Refused},
		{t.Context(), "http://name.invalid", Resolve},
		{gone, "http://127.0.0.1:1", Canceled},
	} {
		_, _, err := do(c.ctx, h, post(c.endpoint))
		if e, is := errors.AsType[*Error](err); !is || e.Kind != c.kind || e.Sent || e.Received {
			t.Errorf("%s: %v, want %s", c.endpoint, err, c.kind)
		}
	}
	silent := rawHead(t, func(_ int, _ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	call := post("https" + silent[len("http"):])
	call.Limits.Connect = 50 * time.Millisecond
	if _, _, err := do(t.Context(), h, call); kindOf(err) != ConnectTimeout {
		t.Errorf("a handshake without an answer: %v", err)
	}
	if open, _, pools := h.counts(); open != 0 || pools != 0 {
		t.Errorf("%d open, %d pools", open, pools)
	}
}

func TestOptionsThatAreMissing(t *testing.T) {
	all := Limits{1, 1, 1, 1, 1}
	for want, o := range map[string]Options{
		"Metrics": {}, "Limits": {Metrics: prometheus.NewRegistry()},
		"IdleTimeout": {Metrics: prometheus.NewRegistry(), Limits: all},
		"MaxOpen":     {Metrics: prometheus.NewRegistry(), Limits: all, IdleTimeout: 1},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

package httpapi_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/httpapi"
)

// secured has a service use TLS, and returns what a client needs to trust it.
func secured(t testing.TB) (func(*httpapi.Options), *tls.Config) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: s.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	return func(o *httpapi.Options) { o.TLS = config }, &tls.Config{RootCAs: roots, ServerName: "example.com"}
}

// A client that sends all before it reads gets the answer that refuses it, every
// time: the connection is not reset under it.
func TestAClientThatSendsTooMuchGetsItsAnswer(t *testing.T) {
	w, secrets := closed(t)
	addr := w.listen()
	bearer := "Authorization: Bearer " + secrets[access.RoleAdmin] + "\r\n"
	body := bytes.Repeat([]byte(" "), 2<<20)
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body))
	chunked := append(fmt.Appendf(nil, "%x\r\n", len(body)), body...)
	chunked = append(chunked, "\r\n0\r\n\r\n"...)
	for _, c := range []struct {
		name, head string
		body       []byte
		status     int
	}{
		{"too large", "POST /api/v1/decisions HTTP/1.1\r\n" + bearer + length, body, 413},
		{"too large in chunks", "POST /api/v1/heads HTTP/1.1\r\n" + bearer + "Transfer-Encoding: chunked\r\n\r\n", chunked, 413},
		{"by HTTP/1.0", "POST /api/v1/decisions HTTP/1.0\r\n" + bearer + length, body, 413},
		{"without a key", "POST /api/v1/decisions HTTP/1.1\r\n" + length, body, 401},
		{"of another type", "POST /api/v1/decisions HTTP/1.1\r\n" + bearer + "Content-Type: text/plain\r\n" + length, body, 415},
		{"to nowhere", "POST /nowhere HTTP/1.1\r\n" + length, body, 404},
		{"another method", "PUT /livez HTTP/1.1\r\n" + length, body, 405},
		{"a page's", "POST /api/v1/decisions HTTP/1.1\r\nOrigin: https://evil.example\r\n" + length, body, 403},
	} {
		line, rest, _ := strings.Cut(c.head, "\r\n")
		head := line + "\r\nHost: localhost\r\n" + rest
		for n := range 10 {
			conn := dial(t, addr)
			if _, err := conn.Write(append([]byte(head), c.body...)); err != nil {
				t.Fatalf("%s, time %d: while it sends: %v", c.name, n, err)
			}
			r, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s, time %d: %v", c.name, n, err)
			}
			a := &answer{status: r.StatusCode, header: r.Header, body: drain(r.Body)}
			if p := into[api.Problem](t, a); r.StatusCode != c.status || p.Status != c.status {
				t.Errorf("%s: %d %s; want %d", c.name, a.status, a.body, c.status)
			}
			_ = r.Body.Close()
			_ = conn.Close()
		}
	}
}

// By HTTP/2 the answer ends the stream, and the connection goes on.
func TestABodyThatIsTooLargeByHTTP2(t *testing.T) {
	served, trusts := secured(t)
	w := newWorld(t, served)
	client := &http.Transport{TLSClientConfig: trusts, ForceAttemptHTTP2: true}
	defer client.CloseIdleConnections()
	base := "https://" + w.listen()
	connections := 0
	for range 20 {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
			if !c.Reused {
				connections++
			}
		}})
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/decisions", bytes.NewReader(bytes.Repeat([]byte(" "), 2<<20)))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "localhost"
		r.ContentLength = -1
		answered, err := client.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		a := &answer{status: answered.StatusCode, header: answered.Header, body: drain(answered.Body)}
		_ = answered.Body.Close()
		w.problem(http.StatusRequestEntityTooLarge, api.CodeTooLarge, a)
		if answered.ProtoMajor != 2 {
			t.Fatal(answered.Proto)
		}
	}
	if connections != 1 {
		t.Errorf("20 requests took %d connections", connections)
	}
}

// Reading on has an end in bytes and in time.
func TestReadingOnIsBounded(t *testing.T) {
	t.Run("bytes", func(t *testing.T) {
		w := newWorld(t)
		conn := dial(t, w.listen())
		if _, err := fmt.Fprintf(conn, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", 1<<40); err != nil {
			t.Fatal(err)
		}
		sent := 0
		for chunk := make([]byte, 64<<10); ; sent += len(chunk) {
			if _, err := conn.Write(chunk); err != nil {
				break
			}
			if sent > 64<<20 {
				t.Fatalf("%d bytes were taken of a request that was refused", sent)
			}
		}
	})
	for name, every := range map[string]time.Duration{"silence": time.Hour, "a byte now and then": 100 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			fakeTime(t, func(t *testing.T) {
				w := newWorld(t)
				p := newPipes()
				go func() { _ = w.server.Serve(p) }()
				defer func() { _ = p.Close() }()
				client, server := net.Pipe()
				p.conns <- server
				begin := time.Now()
				go func() {
					_, _ = io.WriteString(client, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n")
					for {
						if _, err := client.Write([]byte(" ")); err != nil {
							return
						}
						time.Sleep(every)
					}
				}()
				got, _ := io.ReadAll(client)
				_ = client.Close()
				if took := time.Since(begin); !strings.HasPrefix(string(got), "HTTP/1.1 413 ") || took > 7*time.Second {
					t.Errorf("after %s: %.100q", took, got)
				}
				time.Sleep(2 * time.Hour) // the sender sees that it is closed
			})
		})
	}
}

// What is left of a body is taken, so that its sender comes to read the answer.
func TestWhatIsLeftOfABodyIsTaken(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		w := newWorld(t)
		p := newPipes()
		go func() { _ = w.server.Serve(p) }()
		defer func() { _ = p.Close() }()
		client, server := net.Pipe()
		p.conns <- server
		answered := make(chan string)
		go func() {
			got, _ := io.ReadAll(client)
			answered <- string(got)
		}()
		if _, err := io.WriteString(client, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2097152\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if n, err := client.Write(make([]byte, 2<<20)); err != nil {
			t.Errorf("%d bytes were taken: %v", n, err)
		}
		if got := <-answered; !strings.HasPrefix(got, "HTTP/1.1 413 ") {
			t.Errorf("%.100q", got)
		}
		_ = client.Close()
	})
}

// A client that leaves in the middle of its body made no mistake in it: it is
// counted as one that left, for every framing.
func TestAClientThatLeavesInItsBody(t *testing.T) {
	served, trusts := secured(t)
	left := func(w *world, n int) {
		t.Helper()
		want := fmt.Sprintf("http_requests_total{endpoint=\"/api/v1/decisions\",method=\"POST\",status=\"499\"} %d\n", n)
		for end := time.Now().Add(patience); !strings.Contains(w.scrape(), want); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no %s", want)
			}
		}
		if page := w.scrape(); strings.Contains(page, `status="400"`) {
			t.Error("it is counted as a mistake")
		}
	}
	t.Run("HTTP/1.1", func(t *testing.T) {
		w := newWorld(t)
		addr := w.listen()
		for n, framing := range []string{"Content-Length: 30\r\n\r\n{\"model", "Transfer-Encoding: chunked\r\n\r\n40\r\n{\"model", "Transfer-Encoding: chunked\r\n\r\n"} {
			conn := dial(t, addr)
			if _, err := io.WriteString(conn, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\n"+framing); err != nil {
				t.Fatal(err)
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			if got := cut(t, conn); got != "" {
				t.Errorf("it got %q", got)
			}
			left(w, n+1)
		}
		conn := dial(t, addr)
		if _, err := io.WriteString(conn, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n{\"model"); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close() // resets
		left(w, 4)
		// One that is framed wrongly is a mistake.
		conn = dial(t, addr)
		if _, err := io.WriteString(conn, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n"); err != nil {
			t.Fatal(err)
		}
		if got := cut(t, conn); !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, api.CodeInvalidJSON) {
			t.Errorf("a wrong chunk: %q", got)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		w := newWorld(t, served)
		client := &http.Transport{TLSClientConfig: trusts, ForceAttemptHTTP2: true}
		defer client.CloseIdleConnections()
		body, writer := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+w.listen()+"/api/v1/decisions", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "localhost"
		go func() {
			_, _ = io.WriteString(writer, `{"model`)
			_ = writer.CloseWithError(io.ErrClosedPipe)
		}()
		if answered, err := client.RoundTrip(r); err == nil {
			_ = answered.Body.Close()
			t.Errorf("it was answered with %d", answered.StatusCode)
		}
		left(w, 1)
	})
}

package upstream

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What http.Transport refuses is refused here too, and what is accepted is read
// as it reads it.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		"", "HTTP/1.1 200 OK\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2;x=y\r\nok\r\n0\r\nA: b\r\n\r\n", "HTTP/1.1 200 OK\nTransfer-Encoding: Chunked\n\n0\n\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: +2\r\n\r\nok", "HTTP/1.1 200 OK\r\nA:\r\n b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1 ;a=\"b;c\"\r\no\r\n1\r\nk\r\n00\r\nA: b\r\nC: d\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokx\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n", "HTTP/1.1 200 OK\r\nPragma: no-cache\r\nconnection: a, Close\r\ntransfer-encoding: Chunked\r\n\r\n0\r\na b: c\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nset-cookie: a\r\nX: \x80\r\nSet-Cookie: b\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 204 No\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		serve := func(c net.Conn) {
			defer func() { _ = c.Close() }()
			if _, more := request(bufio.NewReader(c)); more {
				_, _ = io.WriteString(c, text)
			}
		}
		h := newHeads(t, nil)
		ours, err := h.overPipe(t, serve)
		if err != nil {
			return // stricter is right
		}
		body, failed := io.ReadAll(ours.Body)
		_ = ours.Body.Close()

		a, b := net.Pipe()
		go serve(b)
		transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return a, nil }}
		defer transport.CloseIdleConnections()
		q, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint+"/", strings.NewReader("{}"))
		theirs, err := transport.RoundTrip(q)
		if err != nil {
			t.Fatalf("%q is accepted with %d; http.Transport: %v", text, ours.Status, err)
		}
		defer func() { _ = theirs.Body.Close() }()
		want, theyFailed := io.ReadAll(theirs.Body)
		if failed == nil && theyFailed != nil {
			t.Fatalf("the body of %q is accepted; http.Transport: %v", text, theyFailed)
		}
		for _, name := range []string{"Connection", "Trailer"} { // which net/http takes out
			delete(ours.Header, name)
			delete(theirs.Header, name)
		}
		if ours.Header["Cache-Control"] == nil && ours.Header["Pragma"] != nil {
			delete(theirs.Header, "Cache-Control") // which net/http adds
		}
		if ours.Status != theirs.StatusCode || ours.ContentLength != theirs.ContentLength || string(body) != string(want) || !reflect.DeepEqual(ours.Header, theirs.Header) {
			t.Fatalf("%q is %d %q %v, and for http.Transport %d %q %v", text, ours.Status, body, ours.Header, theirs.StatusCode, want, theirs.Header)
		}
	})
}

// overPipe makes an exchange over a new connection that a function serves.
func (h *Heads) overPipe(t testing.TB, serve func(net.Conn)) (*Response, error) {
	ours, theirs := net.Pipe()
	p, failed := h.reserve(endpoint)
	if failed != nil {
		t.Fatal(failed)
	}
	go serve(theirs)
	answer, failed := h.newConn(p, ours).exchange(t.Context(), post(endpoint), h.o.Limits, time.Now(), time.Now().Add(time.Hour))
	if failed != nil {
		return nil, failed
	}
	return answer, nil
}

package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newHeads are connections with limits that no test reaches by itself.
func newHeads(t testing.TB, change func(*Options)) *Heads {
	t.Helper()
	o := Options{
		Metrics: prometheus.NewRegistry(), IdleTimeout: time.Minute, MaxOpen: 100, MaxOpenPerHead: 50, MaxIdlePerHead: 50,
		Limits: Limits{Connect: time.Minute, Write: time.Minute, FirstByte: time.Minute, Idle: time.Minute, Total: time.Hour},
	}
	if change != nil {
		change(&o)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return h
}

// rawHead serves each connection with a function, and returns its endpoint.
func rawHead(t testing.TB, serve func(n int, c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-ended })
	go func() {
		defer close(ended)
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				serve(n, c, bufio.NewReader(c))
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// request reads one request with its body; false at the end of the connection.
func request(r *bufio.Reader) (*http.Request, bool) {
	q, err := http.ReadRequest(r)
	if err != nil {
		return nil, false
	}
	_, err = io.Copy(io.Discard, q.Body)
	return q, err == nil
}

func post(endpoint string) *Call {
	return &Call{Endpoint: endpoint, Method: "POST", Path: "/v1/x?a=b", Header: []Field{{"Content-Type", "application/json"}}, Body: [][]byte{[]byte("{"), []byte("}")}}
}

// do makes an exchange and reads the body.
func do(ctx context.Context, h *Heads, call *Call) (status int, body string, err error) {
	answer, err := h.Do(ctx, call)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	return answer.Status, string(b), err
}

func kindOf(err error) Kind {
	e, is := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return ""
	case !is:
		return "not an *Error"
	}
	return e.Kind
}

func (h *Heads) counts() (open, idle, pools int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open, h.idle, len(h.pools)
}

// What a head answers byte for byte, the verdict, and whether the connection is
// kept.
func TestAnswers(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		method, answer string
		status         int
		body           string
		kind           Kind
		kept           bool
	}{
		"length":              {"POST", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", "", true},
		"no body":             {"POST", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", "", true},
		"chunks":              {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nX-T: 1\r\n\r\n", 200, "ok", "", true},
		"close":               {"POST", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, "ok", "", false},
		"1.0":                 {"POST", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", "", false},
		"until the end":       {"POST", "HTTP/1.1 200 OK\r\n\r\nok", 200, "ok", "", false},
		"HEAD":                {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", 200, "", "", false},
		"HEAD, empty":         {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", "", true},
		"204":                 {"POST", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", "", true},
		"204 with a length":   {"POST", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", 204, "", "", false},
		"304":                 {"POST", "HTTP/1.1 304 Not Modified\r\nContent-Length: 20\r\n\r\n", 304, "", "", false},
		"304 without it":      {"POST", "HTTP/1.1 304 Not Modified\r\n\r\n", 304, "", "", true},
		"500":                 {"POST", "HTTP/1.1 500 \r\nContent-Length: 1\r\n\r\n!", 500, "!", "", true},
		"interim":             {"POST", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", "", true},
		"interim, many":       {"POST", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 9) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0, "", Malformed, false},
		"switch":              {"POST", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 0, "", Malformed, false},
		"too much":            {"POST", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", 200, "ok", "", false},
		"two answers":         {"POST", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "ok", "", false},
		"both lengths":        {"POST", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", Malformed, false},
		"lengths that agree":  {"POST", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, "ok", "", true},
		"lengths that do not": {"POST", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", 0, "", Malformed, false},
		"negative length":     {"POST", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", 0, "", Malformed, false},
		"coded twice":         {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0, "", Malformed, false},
		"coded, 1.0":          {"POST", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", Malformed, false},
		"space in a name":     {"POST", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", 0, "", Malformed, false},
		"folded":              {"POST", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", 0, "", Malformed, false},
		"NUL":                 {"POST", "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok", 0, "", Malformed, false},
		"CR":                  {"POST", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok", 0, "", Malformed, false},
		"LF alone":            {"POST", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, "ok", "", true},
		"header of 5 kB":      {"POST", "HTTP/1.1 200 OK\r\nX: " + long + "\r\nContent-Length: 2\r\n\r\nok", 200, "ok", "", true},
		"header of 65 kB":     {"POST", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat(long, 14) + "\r\nContent-Length: 2\r\n\r\nok", 0, "", Malformed, false},
		"garbage":             {"POST", "\x00\x01garbage\r\n\r\n", 0, "", Malformed, false},
		"HTTP/2":              {"POST", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", 0, "", Malformed, false},
		"status":              {"POST", "HTTP/1.1 99 OK\r\n\r\n", 0, "", Malformed, false},
		"chunk of no number":  {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", 200, "", Malformed, false},
		"chunk with LF alone": {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n", 200, "", Malformed, false},
		"chunk too long":      {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok!\r\n0\r\n\r\n", 200, "ok", Malformed, false},
		"chunk too large":     {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n", 200, "", Malformed, false},
		"negative chunk":      {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", 200, "", Malformed, false},
		"extended chunk":      {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"b\"\r\nok\r\n0;c\r\n\r\n", 200, "ok", "", true},
		"extension with CR":   {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\rb\r\nok\r\n0\r\n\r\n", 200, "", Malformed, false},
		"extensions, long":    {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+long[:3000]+"\r\no\r\n", 9) + "0\r\n\r\n", 200, "ooooo", Malformed, false},
		"trailer":             {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\nC: d\r\n\r\n", 200, "ok", "", true},
		"trailer of no field": {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\na b: c\r\n\r\n", 200, "ok", Malformed, false},
		"trailer of 70 kB":    {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + strings.Repeat("A: "+long[:1000]+"\r\n", 70) + "\r\n", 200, "ok", Malformed, false},
		"trailer that ends":   {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n", 200, "ok", EndOfStream, false},
		"control character":   {"POST", "HTTP/1.1 200 OK\r\nX: a\x07b\r\nContent-Length: 2\r\n\r\nok", 0, "", Malformed, false},
		"no name":             {"POST", "HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 2\r\n\r\nok", 0, "", Malformed, false},
		"length with a sign":  {"POST", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", 0, "", Malformed, false},
		"list of lengths":     {"POST", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", 0, "", Malformed, false},
		"kept, 1.0":           {"POST", "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 200, "ok", "", true},
		"close in a list":     {"POST", "HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: y, CLOSE\r\nContent-Length: 2\r\n\r\nok", 200, "ok", "", false},
		"status of 4 digits":  {"POST", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", 0, "", Malformed, false},
		"CR in the reason":    {"POST", "HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok", 0, "", Malformed, false},
		"nothing":             {"POST", "", 0, "", EndOfStream, false},
		"half a header":       {"POST", "HTTP/1.1 200 OK\r\nX", 0, "", EndOfStream, false},
		"half a body":         {"POST", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", 200, "o", EndOfStream, false},
		"half a chunk":        {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\no", 200, "o", EndOfStream, false},
		"no last chunk":       {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n", 200, "o", EndOfStream, false},
	} {
		t.Run(name, func(t *testing.T) {
			kept := make(chan struct{})
			end := rawHead(t, func(_ int, conn net.Conn, r *bufio.Reader) {
				request(r)
				_, _ = io.WriteString(conn, c.answer)
				if c.kept {
					<-kept
				}
			})
			defer close(kept)
			h := newHeads(t, nil)
			call := post(end)
			if call.Method = c.method; c.method == "HEAD" {
				call.Body = nil
			}
			status, body, err := do(t.Context(), h, call)
			if status != c.status || body != c.body || kindOf(err) != c.kind {
				t.Errorf("%d %q %v, want %d %q %s", status, body, err, c.status, c.body, c.kind)
			}
			if e, is := errors.AsType[*Error](err); is && (!e.Sent || e.Reused || e.Received != (c.answer != "")) {
				t.Errorf("%+v", e)
			}
			if open, idle, pools := h.counts(); open != idle || (idle == 1) != c.kept || pools != open {
				t.Errorf("%d open, %d idle, %d pools; kept is to be %t", open, idle, pools, c.kept)
			}
		})
	}
}

// Each read has what the head has sent of one or more chunks, and does not wait for
// what comes next; Wait does.
func TestChunksComeAsTheyAreSent(t *testing.T) {
	parts := []string{"2\r\nab\r\n1\r\nc\r\n", "2\r\nde", "\r\n1", "\r\nf\r\n1\r\ng\r\n0", "\r\n\r\n"}
	want := []string{"abc", "de", "fg"}
	next := make(chan bool)
	end := rawHead(t, func(_ int, conn net.Conn, r *bufio.Reader) {
		request(r)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+parts[0])
		for _, part := range parts[1:] {
			<-next
			_, _ = io.WriteString(conn, part)
		}
		_, _ = r.ReadByte()
	})
	h := newHeads(t, nil)
	answer, err := h.Do(t.Context(), post(end))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	sent := 1
	b := make([]byte, 100)
	for _, text := range want {
		if sent == 3 { // no content
			next <- true
		}
		answer.Body.Wait()
		n, err := answer.Body.Read(b)
		if err != nil || string(b[:n]) != text {
			t.Fatalf("%q %v, want %q", b[:n], err, text)
		}
		next <- true
		sent++
	}
	answer.Body.Wait()
	if n, err := answer.Body.Read(b); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d %v at the end", n, err)
	}
}

// The end of a body comes with its last bytes, if it has come with them.
func TestTheEndComesWithTheLastChunk(t *testing.T) {
	end := rawHead(t, func(_ int, conn net.Conn, r *bufio.Reader) {
		request(r)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
		_, _ = r.ReadByte()
	})
	answer, failed := newHeads(t, nil).Do(t.Context(), post(end))
	if failed != nil {
		t.Fatal(failed)
	}
	defer answer.Body.Close()
	b := make([]byte, 100)
	if n, err := answer.Body.Read(b); string(b[:n]) != "ab" || !errors.Is(err, io.EOF) {
		t.Errorf("%q %v", b[:n], err)
	}
	if n, err := answer.Body.Read(b); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d %v after the end", n, err)
	}
}

// A last chunk that is followed by a trailer is not waited for while there are bytes
// to pass on.
func TestATrailerIsNotWaitedFor(t *testing.T) {
	next := make(chan bool)
	end := rawHead(t, func(_ int, conn net.Conn, r *bufio.Reader) {
		request(r)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nA:")
		<-next
		_, _ = io.WriteString(conn, " b\r\n\r\n")
		_, _ = r.ReadByte()
	})
	answer, failed := newHeads(t, nil).Do(t.Context(), post(end))
	if failed != nil {
		t.Fatal(failed)
	}
	defer answer.Body.Close()
	b := make([]byte, 100)
	n, err := answer.Body.Read(b)
	next <- true
	if string(b[:n]) != "ab" || err != nil {
		t.Errorf("%q %v", b[:n], err)
	}
	if n, err := answer.Body.Read(b); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d %v after the end", n, err)
	}
}

// A part of a chunk that ends with the buffer does not wait for the rest.
func TestAPartOfAChunkDoesNotWaitForTheRest(t *testing.T) {
	const header = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	begin := header + "1388\r\n" + strings.Repeat("x", 5000) + "\r\nfa0\r\n"
	part := 2*bufferSize - len(begin)
	next := make(chan bool, 1)
	end := rawHead(t, func(_ int, conn net.Conn, r *bufio.Reader) {
		request(r)
		_, _ = io.WriteString(conn, begin+strings.Repeat("x", part))
		<-next
		_, _ = io.WriteString(conn, strings.Repeat("y", 4000-part)+"\r\n0\r\n\r\n")
	})
	h := newHeads(t, func(o *Options) { o.Limits.Idle = 10 * time.Second })
	answer, err := h.Do(t.Context(), post(end))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	b := make([]byte, 4*bufferSize)
	for n := 0; n < 5000+part; {
		got, err := answer.Body.Read(b[n:])
		if n += got; err != nil {
			t.Fatalf("%v after %d of %d bytes", err, n, 5000+part)
		}
	}
	next <- true
	rest, err := io.ReadAll(answer.Body)
	if len(rest) != 4000-part || err != nil {
		t.Errorf("%d bytes follow: %v", len(rest), err)
	}
}

// Chunks that have come are read at once, however many buffers they take.
func TestWhatFollowsAFullBufferIsReadAtOnce(t *testing.T) {
	const chunks, size = 300, 100
	sent := make(chan bool)
	end := rawHead(t, func(_ int, conn net.Conn, r *bufio.Reader) {
		request(r)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat("64\r\n"+strings.Repeat("x", size)+"\r\n", chunks)+"0\r\n\r\n")
		close(sent)
		_, _ = r.ReadByte()
	})
	h := newHeads(t, nil)
	answer, err := h.Do(t.Context(), post(end))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	<-sent
	reads, b := 0, make([]byte, chunks*size)
	for n := 0; n < chunks*size; reads++ {
		got, err := answer.Body.Read(b[n:])
		if n += got; err != nil {
			t.Fatal(err)
		}
	}
	if reads > 5 { // of 8 buffers; one in 20 ends at a line of the framing
		t.Errorf("%d reads", reads)
	}
}

// Who takes an answer slowly finds the deadline of the last wait passed: what has come
// is read all the same.
func TestAReaderThatPausesGetsTheRest(t *testing.T) {
	const chunks, size = 300, 3000
	end := rawHead(t, func(_ int, conn net.Conn, r *bufio.Reader) {
		request(r)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat("bb8\r\n"+strings.Repeat("x", size)+"\r\n", chunks)+"0\r\n\r\n")
		_, _ = r.ReadByte()
	})
	h := newHeads(t, nil)
	answer, err := h.Do(t.Context(), post(end))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	n, part, b := 0, 1000, make([]byte, 2*bufferSize)
	for ; err == nil; part = 1000 + len(b) - part {
		var got int
		got, err = answer.Body.Read(b[:part])
		n += got
		answer.Body.c.readBy = time.Unix(1, 0)
		_ = answer.Body.c.tcp.SetReadDeadline(time.Unix(1, 0))
	}
	if n != chunks*size || err != io.EOF { //nolint:errorlint // as it is
		t.Errorf("%d bytes of %d, then %v", n, chunks*size, err)
	}
}

// What would change the framing of a request is refused before anything is sent.
func TestCallsThatAreRefused(t *testing.T) {
	h := newHeads(t, nil)
	for name, change := range map[string]func(*Call){
		"method":      func(c *Call) { c.Method = "GET /x HTTP/1.1\r\n" },
		"connect":     func(c *Call) { c.Method = "CONNECT" },
		"path":        func(c *Call) { c.Path = "/a HTTP/1.1\r\nX: y" },
		"no path":     func(c *Call) { c.Path = "" },
		"name":        func(c *Call) { c.Header = []Field{{"A\r\nB", "c"}} },
		"value":       func(c *Call) { c.Header = []Field{{"A", "b\r\nC: d"}} },
		"LF":          func(c *Call) { c.Header = []Field{{"A", "b\nC: d"}} },
		"NUL":         func(c *Call) { c.Header = []Field{{"A", "b\x00"}} },
		"host":        func(c *Call) { c.Header = []Field{{"HOST", "evil.example"}} },
		"length":      func(c *Call) { c.Header = []Field{{"content-length", "3"}} },
		"coding":      func(c *Call) { c.Header = []Field{{"Transfer-Encoding", "chunked"}} },
		"expectation": func(c *Call) { c.Header = []Field{{"Expect", "100-continue"}} },
		"scheme":      func(c *Call) { c.Endpoint = "ftp://127.0.0.1:1" },
		"userinfo":    func(c *Call) { c.Endpoint = "http://a:b@127.0.0.1:1" },
		"no host":     func(c *Call) { c.Endpoint = "http:///x" },
	} {
		call := post("http://127.0.0.1:1")
		change(call)
		if _, _, err := do(t.Context(), h, call); kindOf(err) != Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, endpoint := range []string{"http://169.254.169.254", "http://metadata.google.internal", "http://0.0.0.0:1", "http://127.1"} {
		if _, _, err := do(t.Context(), h, post(endpoint)); kindOf(err) != Forbidden {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	if open, _, pools := h.counts(); open != 0 || pools != 0 {
		t.Errorf("%d open, %d pools", open, pools)
	}
}

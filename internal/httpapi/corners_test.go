package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/mockhead"
	"headway/internal/proxy"
	"headway/internal/routing"
)

// caller is a connection to the data plane, byte by byte.
type caller struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
}

func (p *plane) caller() *caller {
	p.Helper()
	c := dial(p, strings.TrimPrefix(p.url, "http://"))
	return &caller{c, p.TB, bufio.NewReader(c)}
}

func (c *caller) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// read reads one answer to its end.
func (c *caller) read(method string) (r *http.Response, body string, err error) {
	c.t.Helper()
	r, err = http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r, string(b), err
}

// Corners of HTTP: each has the right answer, and the head has the body once, as it
// was meant. nginx 1.22 and haproxy 2.6 do the same but where it is said.
func TestPitfallP26CornersOfHTTP(t *testing.T) {
	const line = "POST " + chatPath
	body := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(chatBody), chatBody)
	for name, c := range map[string]struct {
		request string
		expects bool // a 100 comes before the body
		then    string
		closes  bool
	}{
		"plain":                       {request: line + " HTTP/1.1\r\nHost: localhost\r\n" + body},
		"expect 100-continue":         {request: line + " HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n" + body[:strings.Index(body, "{")], expects: true, then: chatBody}, // haproxy lets the head send the 100
		"expect, and sends at once":   {request: line + " HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n" + body, expects: true},
		"chunks, a trailer":           {request: line + " HTTP/1.1\r\nHost: localhost\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\n" + chatBody[:5] + "\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\nX-T: secret\r\n\r\n", len(chatBody)-5, chatBody[5:])}, // nginx drops the trailer, haproxy passes it on
		"HTTP/1.0":                    {request: line + " HTTP/1.0\r\n" + body, closes: true},
		"HTTP/1.0 that stays":         {request: line + " HTTP/1.0\r\nConnection: keep-alive\r\n" + body},
		"absolute form":               {request: "POST http://localhost" + chatPath + " HTTP/1.1\r\nHost: localhost\r\n" + body},
		"closes after it":             {request: line + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + body, closes: true},
		"two length fields, the same": {request: line + " HTTP/1.1\r\nHost: localhost\r\n" + fmt.Sprintf("Content-Length: %d\r\n", len(chatBody)) + body},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			head := p.start("a")
			conn := p.caller()
			conn.send("%s", c.request)
			if c.expects {
				if r, _, _ := conn.read("POST"); r.StatusCode != http.StatusContinue {
					t.Fatalf("before the body: %d", r.StatusCode)
				}
				conn.send("%s", c.then)
			}
			r, text, err := conn.read("POST")
			if err != nil || r.StatusCode != http.StatusOK || !strings.Contains(text, `"completion_tokens":20`) || r.Close != c.closes {
				t.Errorf("%d, closes %t, %v: %s", r.StatusCode, r.Close, err, text)
			}
			got := head.Received()
			if len(got) != 1 || got[0].SHA256 != sha256.Sum256([]byte(chatBody)) || !bytes.Contains(got[0].Head, fmt.Appendf(nil, "\r\nContent-Length: %d\r\n", len(chatBody))) {
				t.Fatalf("the head received %d requests, or another body: %+v", len(got), got)
			}
			for _, field := range []string{"Expect", "Trailer", "X-T", "Transfer-Encoding", "secret"} {
				if bytes.Contains(got[0].Head, []byte(field)) {
					t.Errorf("the head received %s:\n%s", field, got[0].Head)
				}
			}
		})
	}
}

// A refused caller that expects a 100 has its answer in its place; other
// expectations are not known.
func TestPitfallP26ARefusalComesInThePlaceOf100(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) { o.Limits.MaxBody = 1000 })
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"too large":           {"POST " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n", 413},
		"nowhere":             {"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n", 404},
		"another method":      {"PUT " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n", 405},
		"another expectation": {"POST " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\nContent-Length: 20\r\n\r\n", 417},
	} {
		conn := p.caller()
		conn.send("%s", c.request)
		if r, text, _ := conn.read("POST"); r.StatusCode != c.status {
			t.Errorf("%s: %d %s", name, r.StatusCode, text)
		}
	}
}

// HEAD is answered as GET without a body, and is no method of a completion.
func TestPitfallP26HEAD(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	for path, status := range map[string]int{"/v1/models": 200, "/v1/models/m": 200, "/v1/models/x": 404, chatPath: 405, "/v1/x": 404} {
		conn := p.caller()
		conn.send("HEAD %s HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
		r, text, err := conn.read("HEAD")
		if r.StatusCode != status || text != "" || err != nil {
			t.Errorf("%s: %d %q %v", path, r.StatusCode, text, err)
		}
		if r, _, _ := conn.read("GET"); r.StatusCode != http.StatusOK {
			t.Errorf("%s: the next request is answered with %d", path, r.StatusCode)
		}
	}
}

// Over HTTP/1.0 a stream has no chunks and ends with the connection. One that broke
// has an error event at its end: the version has no other sign.
func TestPitfallP26AStreamOverHTTP10(t *testing.T) {
	for name, broken := range map[string]bool{"whole": false, "broken": true} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			p.script("a", func(w http.ResponseWriter, _ *http.Request) {
				say(w, roleEvent+tokenEvent)
				if broken {
					panic(http.ErrAbortHandler)
				}
				say(w, finishEvent+doneEvent)
			})
			conn := p.caller()
			conn.send("POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", chatPath, len(streamBody), streamBody)
			r, text, _ := conn.read("POST")
			if len(r.TransferEncoding) > 0 || !r.Close || r.StatusCode != http.StatusOK || !strings.HasPrefix(text, roleEvent+tokenEvent) {
				t.Errorf("%d %v\n%s", r.StatusCode, r.Header, text)
			}
			if strings.HasSuffix(text, doneEvent) == broken || strings.Contains(text, `data: {"error":`) != broken {
				t.Errorf("the end is\n%s", text)
			}
		})
	}
}

// Requests that were sent one behind the other are answered in their order.
func TestPitfallP26RequestsInARow(t *testing.T) {
	p := newPlane(t)
	head := p.start("a")
	conn := p.caller()
	one := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", chatPath, len(chatBody), chatBody)
	two := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", chatPath, len(streamBody), streamBody)
	conn.send("%s", one+two+one)
	for n, has := range []string{`"completion_tokens":20`, "data: [DONE]", `"completion_tokens":20`} {
		if r, text, err := conn.read("POST"); r.StatusCode != http.StatusOK || err != nil || !strings.Contains(text, has) {
			t.Errorf("answer %d: %d %v\n%s", n, r.StatusCode, err, text)
		}
	}
	if head.Count() != 3 {
		t.Errorf("the head worked on %d requests", head.Count())
	}
	p.settled()
}

// What a head adds to HTTP stays between: hints before the answer, trailers after it,
// a length that no body follows.
func TestPitfallP26CornersOfAHeadsAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
		body   string
	}{
		"hints before it":  {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 200, "{}"}, // the two pass hints on
		"a trailer":        {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n", 200, "{}"},                   // nginx drops it, haproxy passes it on
		"HTTP/1.0":         {"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}", 200, "{}"},
		"no content":       {"HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
		"an empty body":    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""},
		"more than it has": {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n", 200, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			p.script("a", func(w http.ResponseWriter, _ *http.Request) {
				c2, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(c2, c.answer)
				_ = c2.Close()
			})
			for range 2 {
				a := p.answer(chatPath, chatBody)
				if a.StatusCode != c.status || string(a.body) != c.body || a.err != nil || a.Header.Get("Link") != "" || len(a.Trailer) > 0 {
					t.Errorf("%d %q %v %v", a.StatusCode, a.body, a.err, a.Header)
				}
			}
		})
	}
}

// A caller that closes its side of the connection counts as one that left: the end
// of the connection looks the same, and a head must not go on to work for no one.
// nginx does the same; haproxy answers, and lets the head go on in both cases.
func TestPitfallP26ACallerThatClosesItsSideHasLeft(t *testing.T) {
	p := newPlane(t)
	gone := make(chan struct{})
	p.script("a", func(w http.ResponseWriter, r *http.Request) {
		say(w, roleEvent+tokenEvent)
		<-r.Context().Done()
		close(gone)
	})
	conn := p.caller()
	conn.send("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", chatPath, len(streamBody), streamBody)
	r, err := http.ReadResponse(conn.in, &http.Request{Method: http.MethodPost})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	_ = conn.Conn.(*net.TCPConn).CloseWrite()
	<-gone
	if text, err := io.ReadAll(r.Body); err == nil {
		t.Errorf("the stream has a clean end:\n%s", text)
	}
	p.settled()
	d := p.router.Recent(routing.RecentQuery{Limit: 1})[0]
	if o, _ := d.Outcome(); o.Result != routing.ResultCancelled {
		t.Errorf("the outcome is %+v", o)
	}
}

// A client that is still sending when it is refused has its answer, and not a reset:
// of /v1 with bodies beyond 64 MiB, in both framings, read only after all was sent.
func TestAClientThatSendsOnHasItsAnswer(t *testing.T) {
	open, keyed := newPlane(t), newPlane(t)
	keyed.key(keyed.admin(), access.Request{Name: "a", Role: string(access.RoleAdmin)})
	body := bytes.Repeat([]byte(" "), 66<<20)
	chunk := append(fmt.Appendf(nil, "%x\r\n", len(body)), body...)
	chunk = append(chunk, "\r\n0\r\n\r\n"...)
	for name, c := range map[string]struct {
		head   string
		body   []byte
		status int
	}{
		"too large":           {"POST " + chatPath, body, 413},
		"too large in chunks": {"POST " + chatPath, chunk, 413},
		"nowhere":             {"POST /v1/x", body, 404},
		"another method":      {"PUT " + chatPath, body, 405},
		"compressed":          {"POST " + chatPath, body, 415},
		"without a key":       {"POST " + chatPath, body, 401},
		"in chunks, no key":   {"POST " + chatPath, chunk, 401},
	} {
		t.Run(name, func(t *testing.T) {
			p := open
			if c.status == 401 {
				p = keyed
			}
			conn := p.caller()
			framing := fmt.Sprintf("Content-Length: %d", len(c.body))
			if &c.body[0] == &chunk[0] {
				framing = "Transfer-Encoding: chunked"
			}
			if c.status == 415 {
				framing += "\r\nContent-Encoding: gzip"
			}
			conn.send("%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n", c.head, framing)
			if _, err := conn.Write(c.body); err != nil {
				t.Fatalf("while it sends: %v", err)
			}
			r, text, err := conn.read("POST")
			if r.StatusCode != c.status || err != nil || !strings.HasPrefix(text, `{"error":{"message":`) {
				t.Errorf("%d %v %s", r.StatusCode, err, text)
			}
		})
	}
}

// A path that begins with two slashes, as clients write it whose base URL ends with one,
// is no other endpoint, and its error has the form that they know.
func TestAPathWithTwoSlashesHasAnErrorOfTheDataPlane(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	for _, path := range []string{"//v1/chat/completions", "//v1//chat/completions", "//v1", "//heads/m/x"} {
		conn := p.caller()
		conn.send("POST %s HTTP/1.1\r\nHost: localhost\r\n%s", path, lengthOf(chatBody))
		r, text, err := conn.read("POST")
		if r.StatusCode != http.StatusNotFound || err != nil || !strings.HasPrefix(text, `{"error":{"message":`) {
			t.Errorf("%s: %d %v %s", path, r.StatusCode, err, text)
		}
	}
}

// A head that answers before it has read the request, and closes, is heard.
func TestAHeadThatAnswersEarlyIsHeard(t *testing.T) {
	p := newPlane(t)
	p.start("a", func(o *mockhead.Options) { o.MaxBody = 1000 })
	body := strings.Replace(chatBody, "hello", strings.Repeat("x", 8<<20), 1)
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		res, err := p.ask(ctx, chatPath, body)
		if err != nil {
			cancel()
			t.Fatal(err)
		}
		text := drain(res.Body)
		res.Body.Close()
		cancel()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%d %.200s", res.StatusCode, text)
		}
	}
}

// Who sends a long body to its end before it reads has the answer that a head gave
// meanwhile, and no reset.
func TestAnEarlyAnswerIsNotLostInAReset(t *testing.T) {
	const size = 30 << 20
	p := newPlane(t)
	p.registered("a", rawHead(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}
	}))
	chunk := chunkOf(strings.Repeat("x", size))
	for framing, body := range map[string]string{"length": lengthOf(strings.Repeat("x", size)), "chunks": "Transfer-Encoding: chunked\r\n\r\n" + chunk + "0\r\n\r\n"} {
		conn := p.caller()
		conn.send("POST /heads/m/x HTTP/1.1\r\nHost: localhost\r\n")
		if _, err := io.WriteString(conn, body); err != nil {
			t.Errorf("%s, while it sends: %v", framing, err)
		}
		if r, text, err := conn.read("POST"); r.StatusCode != http.StatusRequestEntityTooLarge || err != nil || text != "{}" {
			t.Errorf("%s: %d %v %q", framing, r.StatusCode, err, text)
		}
		p.settled()
	}
}

package httpapi_test

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/internal/freeport"
	"headway/internal/proxy"
)

// notingHead is a head that notes what it receives, and answers as the request's
// X-Answer says.
type notingHead struct {
	net.Listener
	mu   sync.Mutex
	got  []string
	gone chan struct{} // has a value for each request that was waited with, and whose connection ended
}

func newNotingHead(t *testing.T) *notingHead {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &notingHead{Listener: l, gone: make(chan struct{}, 100)}
	var serving sync.WaitGroup
	conns := map[net.Conn]struct{}{}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			conns[c] = struct{}{}
			r.mu.Unlock()
			serving.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		serving.Wait()
	})
	return r
}

// answersOfHeads are what the notingHead says, by X-Answer.
var answersOfHeads = map[string]string{
	"":         "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"id\":\"one\"}",
	"chunks":   "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{\"id\":\"one\"}\r\n0\r\n\r\n",
	"trailers": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{\"id\":\"one\"}\r\n0\r\nX-Sum: 1\r\n\r\n",
	"hints":    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"id\":\"one\"}",
	"stream":   "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + chunkOf(tokenEvent) + chunkOf(finishEvent+doneEvent) + "0\r\n\r\n",
	"broken":   "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + chunkOf(tokenEvent),
	"both":     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{\"id\":\"one\"}\r\n0\r\n\r\n",
	"two":      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"id\":\"one\"}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",
	"redirect": "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
}

func chunkOf(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

func (r *notingHead) serve(c net.Conn) {
	defer c.Close()
	for in := bufio.NewReader(c); ; {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if req.Header.Get("Expect") != "" {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // no whole request
		}
		framing := "length"
		if len(req.TransferEncoding) > 0 {
			framing = "chunks"
		}
		said := fmt.Sprintf("%s with %s of %d bytes", req.Method, framing, len(body))
		for _, name := range []string{"Expect", "Trailer", "X-T", "X-Hidden"} {
			if req.Header.Get(name) != "" || req.Trailer.Get(name) != "" {
				said += ", " + name
			}
		}
		r.mu.Lock()
		r.got = append(r.got, said)
		r.mu.Unlock()
		kind := req.Header.Get("X-Answer")
		if kind == "never" {
			_, _ = in.ReadByte()
			r.gone <- struct{}{}
			return
		}
		if _, err := io.WriteString(c, answersOfHeads[kind]); err != nil || kind == "broken" || kind == "two" {
			return
		}
	}
}

func (r *notingHead) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// between is a proxy between a caller and a notingHead.
type between struct {
	name    string
	address string
	head    *notingHead
}

func newBetween(t *testing.T) []between {
	t.Helper()
	ours := between{"Headway", "", newNotingHead(t)}
	p := newPlane(t, func(o *proxy.Options) { o.Limits.MaxBody = 1 << 20 })
	p.registered("a", "http://"+ours.head.Addr().String())
	ours.address = strings.TrimPrefix(p.url, "http://")
	return []between{ours, nginx(t), haproxy(t)}
}

// other starts one of Debian's proxies with a configuration, and waits until it
// listens.
func other(t *testing.T, program, file, config string, args ...string) between {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + program); err != nil {
			t.Skipf("%s is missing; get it with: apt-get install -y --no-install-recommends %s", program, map[string]string{"nginx": "nginx-light", "haproxy": "haproxy"}[program])
		}
	}
	b := between{program, freeport.Address(t), newNotingHead(t)}
	dir := t.TempDir()
	config = strings.NewReplacer("LISTEN", b.address, "HEAD", b.head.Addr().String(), "USER", user()).Replace(config)
	if err := os.WriteFile(filepath.Join(dir, file), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DIR", dir)
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for {
		if c, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.address); err == nil {
			_ = c.Close()
			return b
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s: %v: %s", program, err, said.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// user is who nginx's workers are: those of root would else not write here.
func user() string {
	if os.Geteuid() == 0 {
		return "user root;"
	}
	return ""
}

func nginx(t *testing.T) between {
	t.Helper()
	return other(t, "nginx", "nginx.conf", `
USER daemon off; pid nginx.pid; error_log stderr crit; worker_processes 1; master_process off;
events {}
http {
  access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  upstream head { server HEAD; keepalive 8; }
  server {
    listen LISTEN;
    client_max_body_size 1m;
    location / { proxy_pass http://head; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
    location /heads/m/ { proxy_pass http://head/; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
  }
}
`, "-p", "DIR", "-c", "DIR/nginx.conf")
}

func haproxy(t *testing.T) between {
	t.Helper()
	return other(t, "haproxy", "haproxy.cfg", `
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 10s
frontend f
  bind LISTEN
  http-request replace-path /heads/m(/.*) \1
  default_backend b
backend b
  server head HEAD
`, "-f", "DIR/haproxy.cfg")
}

// corner is what a caller sends, and where others than Headway behave as it does.
type corner struct {
	name    string
	request string
	method  string // POST, if ""
	want    string // from Headway
	then    string // is sent when a 100 came
	nginx   string // why nginx differs; "": it agrees
	haproxy string // why haproxy differs; "": it agrees
}

// try sends a corner's request to a proxy, and says in words what came of it.
func (b between) try(t *testing.T, c corner) string {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	before := len(b.head.received())
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, c.request)
	}()
	in := bufio.NewReader(conn)
	said := ""
	for final := false; !final; {
		r, err := http.ReadResponse(in, &http.Request{Method: cmp.Or(c.method, http.MethodPost)})
		if err != nil {
			said += "no answer"
			break
		}
		if final = r.StatusCode >= 200; !final {
			said += fmt.Sprint(r.StatusCode, ", ")
			if r.StatusCode == http.StatusContinue {
				_, _ = io.WriteString(conn, c.then)
			}
			continue
		}
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		status := fmt.Sprint(r.StatusCode)
		if r.StatusCode >= 400 && r.StatusCode < 500 {
			status = "refused"
		}
		said += status
		switch {
		case err != nil:
			said += ", cut"
		case len(r.TransferEncoding) > 0:
			said += ", in chunks"
		case r.ContentLength < 0:
			said += ", up to the end of the connection"
		}
		if r.StatusCode < 300 && bytes.Contains(body, []byte(`"error"`)) {
			said += ", with an event of an error"
		}
		if len(r.Trailer) > 0 {
			said += ", with a trailer"
		}
	}
	_ = conn.Close()
	<-sent
	for _, got := range b.head.received()[before:] {
		said += "; the head got " + got
	}
	return said
}

const chatLine = "POST " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

// lengthOf is the end of a header, and a body.
func lengthOf(body string) string {
	return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

// corners are requests that proxies treat with care.
func corners() []corner {
	chat := lengthOf(chatBody)
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(chatBody), chatBody)
	gotChat := fmt.Sprintf("; the head got POST with length of %d bytes", len(chatBody))
	gotStream := fmt.Sprintf("; the head got POST with length of %d bytes", len(streamBody))
	hidden := "POST /v1/hidden HTTP/1.1\r\nHost: localhost\r\nX-Hidden: 1\r\nContent-Length: 0\r\n\r\n"
	return []corner{
		{name: "plain", want: "200" + gotChat, request: chatLine + chat},
		{name: "expect", want: "100, 200" + gotChat, haproxy: "the head says 100, and may not", request: chatLine + "Expect: 100-continue\r\n" + chat[:strings.Index(chat, "{")], then: chatBody},
		{name: "expect, and sends at once", want: "100, 200" + gotChat, haproxy: "the head says 100, and may not", request: chatLine + "Expect: 100-continue\r\n" + chat},
		{name: "expects something else", want: "refused", nginx: "it passes over what it does not know; RFC 9110 wants 417", haproxy: "it leaves that to the head", request: chatLine + "Expect: magic\r\n" + chat},
		{name: "chunks", want: "200" + gotChat, haproxy: "it passes chunks on; engines read a length everywhere", request: chatLine + "Transfer-Encoding: chunked\r\n\r\n" + chunked},
		{name: "chunks with an extension", want: "200" + gotChat, haproxy: "as chunks", request: chatLine + "Transfer-Encoding: chunked\r\n\r\n" + strings.Replace(chunked, "\r\n", ";a=b\r\n", 1)},
		{name: "a trailer", want: "200" + gotChat, nginx: "it announces a trailer that it has dropped", haproxy: "it passes trailers on; no API of a head has any", request: chatLine + "Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.TrimSuffix(chunked, "\r\n") + "X-T: 1\r\n\r\n"},
		{name: "HTTP/1.0", want: "200" + gotChat, request: "POST " + chatPath + " HTTP/1.0\r\n" + chat},
		{name: "HTTP/1.0, stream", want: "200, up to the end of the connection" + gotStream, haproxy: "it sends chunks, which HTTP/1.0 does not have", request: "POST " + chatPath + " HTTP/1.0\r\nX-Answer: stream\r\n" + lengthOf(streamBody)},
		{name: "HTTP/1.0, stream that breaks", want: "200, up to the end of the connection, with an event of an error" + gotStream, nginx: "its end looks whole", haproxy: "it sends chunks", request: "POST " + chatPath + " HTTP/1.0\r\nX-Answer: broken\r\n" + lengthOf(streamBody)},
		{name: "HTTP/1.0 in chunks", want: "refused", haproxy: "it takes the body for none, and what follows for the next request", request: strings.Replace(chatLine, "HTTP/1.1", "HTTP/1.0", 1) + "Transfer-Encoding: chunked\r\n\r\n" + chunked},
		{name: "stream", want: "200, in chunks" + gotStream, request: chatLine + "X-Answer: stream\r\n" + lengthOf(streamBody)},
		{name: "stream that breaks", want: "200, cut, with an event of an error" + gotStream, nginx: "it cuts without a word", haproxy: "it cuts without a word", request: chatLine + "X-Answer: broken\r\n" + lengthOf(streamBody)},
		{name: "HEAD", want: "200; the head got HEAD with length of 0 bytes", method: "HEAD", request: "HEAD /heads/m/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"},
		{name: "answer with a trailer", want: "200" + gotChat, nginx: "it passes trailers on here", haproxy: "it passes trailers on", request: chatLine + "X-Answer: trailers\r\n" + chat},
		{name: "answer after hints", want: "200" + gotChat, nginx: "it passes hints on; no client of these APIs reads them", haproxy: "as nginx", request: chatLine + "X-Answer: hints\r\n" + chat},
		{name: "answer with both framings", want: "502" + gotChat, nginx: "it lets chunks win: a head that frames twice is broken, or not one head", haproxy: "as nginx", request: chatLine + "X-Answer: both\r\n" + chat},
		{name: "two answers to one request", want: "200" + gotChat, request: chatLine + "X-Answer: two\r\n" + chat},
		{name: "redirect", want: "502" + gotChat, nginx: "it passes the address of another machine on; nobody follows it here", haproxy: "as nginx", request: chatLine + "X-Answer: redirect\r\n" + chat},
		{name: "early 413", want: "refused", haproxy: "it has no bound", request: chatLine + lengthOf(strings.Repeat(" ", 20<<20))},
		{name: "early 413, in chunks", want: "refused", haproxy: "it has no bound", request: chatLine + "Transfer-Encoding: chunked\r\n\r\n" + chunkOf(strings.Repeat(" ", 20<<20)) + "0\r\n\r\n"},

		// What one reads as one request and another as two.
		{name: "Content-Length and chunks", want: "200" + gotChat, nginx: "it refuses; net/http lets chunks win as RFC 9112 allows, and the head gets one framing", haproxy: "it passes chunks on", request: chatLine + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked},
		{name: "chunks that hide a request", want: "refused", haproxy: "it passes an empty body on", request: chatLine + "Content-Length: " + fmt.Sprint(5+len(hidden)) + "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden},
		{name: "two lengths", want: "refused", request: chatLine + "Content-Length: 5\r\n" + chat},
		{name: "two lengths that are one", want: "200" + gotChat, nginx: "it refuses; RFC 9112 allows both", request: chatLine + fmt.Sprintf("Content-Length: %d\r\n", len(chatBody)) + chat},
		{name: "a list of lengths", want: "refused", haproxy: "it takes equal ones for one", request: chatLine + fmt.Sprintf("Content-Length: %d, %d\r\n\r\n%s", len(chatBody), len(chatBody), chatBody)},
		{name: "a length with a sign", want: "refused", request: chatLine + fmt.Sprintf("Content-Length: +%d\r\n\r\n%s", len(chatBody), chatBody)},
		{name: "a length with a space before the colon", want: "refused", request: chatLine + fmt.Sprintf("Content-Length : %d\r\n\r\n%s", len(chatBody), chatBody)},
		{name: "a negative length", want: "refused", request: chatLine + "Content-Length: -1\r\n\r\n" + chatBody},
		{name: "another coding", want: "501", haproxy: "it answers 400", request: chatLine + "Transfer-Encoding: xchunked\r\n\r\n" + chunked},
		{name: "two codings", want: "501", haproxy: "it answers 400", request: chatLine + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked},
		{name: "chunked twice", want: "501", nginx: "it answers 400", haproxy: "it answers 400", request: chatLine + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked},
		{name: "chunked, with a tab", want: "200" + gotChat, nginx: "it knows no tab there; RFC 9110 allows it", haproxy: "it passes chunks on", request: chatLine + "Transfer-Encoding:\tchunked\r\n\r\n" + chunked},
		{name: "chunked, with a form feed", want: "refused", nginx: "it answers 501", request: chatLine + "Transfer-Encoding: \vchunked\r\n\r\n" + chunked},
		{name: "chunked, identity", want: "501", haproxy: "it answers 400", request: chatLine + "Transfer-Encoding: chunked, identity\r\n\r\n" + chunked},
		{name: "a chunk's size with 0x", want: "refused", request: chatLine + "Transfer-Encoding: chunked\r\n\r\n0x" + chunked},
		{name: "a chunk's size beyond 64 bits", want: "refused", request: chatLine + "Transfer-Encoding: chunked\r\n\r\n1000000000000000" + chunked},
		{name: "a chunk without its end", want: "refused", request: chatLine + "Transfer-Encoding: chunked\r\n\r\n" + strings.Replace(chunked, "}\r\n0", "}xx0", 1)},
		{name: "a chunk's size that ends with LF", want: "refused", nginx: "it takes LF for CRLF here; others do not, so that one request may be two", haproxy: "as nginx", request: chatLine + "Transfer-Encoding: chunked\r\n\r\n" + strings.Replace(chunked, "\r\n", "\n", 1)},
		{name: "lines that end with LF", want: "200" + gotChat, request: strings.ReplaceAll(chatLine+chat, "\r\n", "\n")},
		{name: "a CR within a line", want: "refused", request: chatLine + "X-A: b\rX-Hidden: 1\r\n" + chat},
		{name: "a folded line", want: "200" + gotChat, nginx: "it refuses; net/http makes a space of it as RFC 9112 allows", request: chatLine + "X-A: b\r\n X-Hidden: 1\r\n" + chat},
		{name: "a NUL in a value", want: "refused", haproxy: "it passes it on", request: chatLine + "X-A: b\x00c\r\n" + chat},
		{name: "a name with a space", want: "refused", request: chatLine + "X A: b\r\n" + chat},
		{name: "a line without a colon", want: "refused", nginx: "it drops the line", request: chatLine + "X-A\r\n" + chat},
		{name: "no Host", want: "refused", haproxy: "it passes it on", request: strings.Replace(chatLine, "Host: localhost\r\n", "", 1) + chat},
		{name: "two Hosts", want: "refused", haproxy: "it passes them on", request: chatLine + "Host: localhost\r\n" + chat},
		{name: "absolute form", want: "200" + gotChat, request: strings.Replace(chatLine, "POST ", "POST http://localhost", 1) + chat},
		{name: "an empty line before it", want: "refused", nginx: "RFC 9112 asks to pass over it for clients of the 1990s; net/http does not", haproxy: "as nginx", request: "\r\n" + chatLine + chat},
		{name: "two spaces in the request line", want: "refused", nginx: "it takes them for one; others do not", haproxy: "as nginx", request: strings.Replace(chatLine, "POST ", "POST  ", 1) + chat},
		{name: "HTTP/1.2", want: "200" + gotChat, request: strings.Replace(chatLine, "HTTP/1.1", "HTTP/1.2", 1) + chat},
		{name: "HTTP/2.0 in a request line", want: "505", haproxy: "it takes it for HTTP/1.1", request: strings.Replace(chatLine, "HTTP/1.1", "HTTP/2.0", 1) + chat},
	}
}

// Corners of HTTP beside nginx and haproxy: what Headway does, where both do the same,
// and why not where they do not. A head gets one request with one framing in each,
// or none.
func TestPitfallP26CornersBesideNginxAndHaproxy(t *testing.T) {
	all := newBetween(t)
	for _, c := range corners() {
		t.Run(c.name, func(t *testing.T) {
			ours := all[0].try(t, c)
			if ours != c.want {
				t.Errorf("Headway: %s\nwant:    %s", ours, c.want)
			}
			for i, why := range []string{c.nginx, c.haproxy} {
				b := all[i+1]
				switch theirs := b.try(t, c); {
				case theirs != ours && why == "":
					t.Errorf("%s differs: %s\nHeadway: %s", b.name, theirs, ours)
				case theirs == ours && why != "":
					t.Errorf("%s does not differ any more (%s): %s", b.name, why, theirs)
				}
			}
		})
	}
}

// A caller that closes its connection has left, and one that closes its side of it
// looks the same: the head's connection is closed, as nginx does. haproxy lets the head
// go on to the end in both cases.
func TestPitfallP26CallersThatLeaveBesideNginxAndHaproxy(t *testing.T) {
	for _, b := range newBetween(t)[:2] {
		for n, half := range []bool{false, true} {
			conn := dial(t, b.address)
			if _, err := io.WriteString(conn, chatLine+"X-Answer: never\r\n"+lengthOf(chatBody)); err != nil {
				t.Fatal(err)
			}
			for len(b.head.received()) <= n {
				<-time.After(time.Millisecond)
			}
			if half {
				_ = conn.(*net.TCPConn).CloseWrite()
			} else {
				_ = conn.Close()
			}
			select {
			case <-b.head.gone:
			case <-time.After(time.Minute):
				t.Errorf("%s: the head goes on to work; half-closed %t", b.name, half)
			}
		}
	}
}

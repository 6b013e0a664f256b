package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"headway/internal/fleet"
)

// wire is a head that keeps what comes over its connections, byte for byte.
type wire struct {
	mu  sync.Mutex
	got []string // headers of requests
}

func (h *wire) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	got := h.got
	h.got = nil
	return got
}

// newWire registers such a head, which answers each request with the fields.
func (p *plane) newWire(fields string, models ...string) *wire {
	h := &wire{}
	endpoint := rawHead(p, func(c net.Conn, r *bufio.Reader) {
		for {
			header := ""
			for !strings.HasSuffix(header, "\r\n\r\n") {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				header += line
			}
			h.mu.Lock()
			h.got = append(h.got, header)
			h.mu.Unlock()
			q, err := http.ReadRequest(bufio.NewReader(strings.NewReader(header)))
			if err != nil {
				return
			}
			_, _ = io.CopyN(io.Discard, r, q.ContentLength)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"+fields+"\r\n")
		}
	})
	p.serves(fleet.Spec{ID: "w", Endpoint: endpoint, ModelTypes: models, Engine: "triton"})
	return h
}

// What a caller writes in its own way reaches a head as one request to the path that
// was checked, or not at all.
func TestShapesOfRequestsThatPassThrough(t *testing.T) {
	p := newPlane(t)
	head := p.newWire("", "m", "a.b:c")
	host := strings.TrimPrefix(p.url, "http://")
	for request, want := range map[string]string{ // the line that the head gets, or the status of a refusal
		"GET http://" + host + "/heads/m/x HTTP/1.1":                    "GET /x HTTP/1.1",
		"GET http://evil.example/heads/m/x HTTP/1.1":                    "421",
		"GET //heads/m/x HTTP/1.1":                                      "404",
		"GET /heads%2fm/x HTTP/1.1":                                     "404",
		"GET /%68eads/m/x HTTP/1.1":                                     "404",
		"GET /heads/m/../../api/v1/keys HTTP/1.1":                       "400",
		"GET /v1/../heads/m/x HTTP/1.1":                                 "404",
		"GET /heads/../api/v1/keys HTTP/1.1":                            "400",
		"GET /heads/m/%2e%2e%2fx HTTP/1.1":                              "400",
		"GET /heads/m/..;/x HTTP/1.1":                                   "400",
		"GET /heads/m/a%0d%0aX-A:b HTTP/1.1":                            "400",
		"GET /heads/m/%zz HTTP/1.1":                                     "400",
		"GET /heads/m/a//b HTTP/1.1":                                    "GET /a//b HTTP/1.1",
		"GET /heads/m//evil.example/x HTTP/1.1":                         "GET //evil.example/x HTTP/1.1",
		"GET /heads/m/http://evil.example/ HTTP/1.1":                    "GET /http://evil.example/ HTTP/1.1",
		"GET /heads/m/x?a=%0d%0aX-A:b HTTP/1.1":                         "GET /x?a=%0d%0aX-A:b HTTP/1.1",
		"GET /heads/m/x?a=b;c=/../d HTTP/1.1":                           "GET /x?a=b;c=/../d HTTP/1.1",
		"GET /heads/m/x? HTTP/1.1":                                      "GET /x? HTTP/1.1",
		"GET /heads/m?x HTTP/1.1":                                       "GET /?x HTTP/1.1",
		"GET /heads/m/x#../y HTTP/1.1":                                  "GET /x%23../y HTTP/1.1",
		"GET /heads/m\\..\\x HTTP/1.1":                                  "400",
		"GET /heads/m/a\\b HTTP/1.1":                                    "GET /a%5Cb HTTP/1.1",
		"GET /heads/a.b:c/x HTTP/1.1":                                   "GET /x HTTP/1.1",
		"GET /heads/a.b%3ac/x HTTP/1.1":                                 "GET /x HTTP/1.1",
		"GET /heads/m%00/x HTTP/1.1":                                    "400",
		"GET /heads/m%2500/x HTTP/1.1":                                  "400",
		"GET /heads/m%20/x HTTP/1.1":                                    "404",
		"GET /heads/%6d/x HTTP/1.1":                                     "GET /x HTTP/1.1",
		"GET /heads/M/x HTTP/1.1":                                       "404",
		"CONNECT /heads/m/x HTTP/1.1":                                   "501",
		"CONNECT " + host + " HTTP/1.1":                                 "404",
		"TRACE /heads/m/x HTTP/1.1":                                     "405",
		"OPTIONS /heads/m/x HTTP/1.1":                                   "OPTIONS /x HTTP/1.1",
		"OPTIONS * HTTP/1.1":                                            "404",
		"PURGE /heads/m/x HTTP/1.1":                                     "PURGE /x HTTP/1.1",
		"get /heads/m/x HTTP/1.1":                                       "get /x HTTP/1.1",
		"GET /heads/m/x HTTP/1.1\r\nUpgrade: websocket":                 "501",
		"GET /heads/m/x HTTP/1.1\r\nUpgrade: h2c, ws":                   "501",
		"GET /heads/m/x HTTP/1.1\r\nUpgrade: h2c\r\nUpgrade: websocket": "501",
		"GET /heads/m/x HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__": "GET /x HTTP/1.1",
	} {
		lines := p.raw(request + "\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")
		got := head.take()
		p.settled()
		switch {
		case len(lines) != 1:
			t.Errorf("%q is answered with %q", request, lines)
		case len(want) == 3:
			if lines[0] != want || len(got) > 0 {
				t.Errorf("%q is answered with %q, want %s; the head got %q", request, lines, want, got)
			}
		case len(got) != 1 || !strings.HasPrefix(got[0], want+"\r\n"):
			t.Errorf("%q is answered with %q; the head got %q, want %s", request, lines, got, want)
		}
	}
}

// Over HTTP/2 a query may have what no line of HTTP/1 has.
func TestAQueryWithASpaceOverHTTP2ReachesNoHead(t *testing.T) {
	p := newPlane(t)
	head := p.newWire("", "m")
	for _, path := range []string{"/heads/m/x?a HTTP/1.1", "/v1/models?a b", "/heads/m/x?a\tb"} {
		status := overHTTP2(t, p, path)
		if got := head.take(); status != "400" && !strings.HasPrefix(path, "/v1/models") && status != "closed" || len(got) > 0 {
			t.Errorf("%q is answered with %s; the head got %q", path, status, got)
		}
	}
}

// overHTTP2 sends a GET by the handler, as net/http's HTTP/2 makes requests.
func overHTTP2(t *testing.T, p *plane, path string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: p.server, Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	defer func() { server.Close(); <-served }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(time.Minute))
	f := http2.NewFramer(client, client)
	go func() {
		_, _ = io.WriteString(client, http2.ClientPreface)
		_ = f.WriteSettings()
		var block strings.Builder
		e := hpack.NewEncoder(&block)
		for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "localhost"}, {":path", path}} {
			_ = e.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true})
	}()
	d := hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			fields, _ := d.DecodeFull(frame.HeaderBlockFragment())
			for _, field := range fields {
				if field.Name == ":status" {
					return field.Value
				}
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "closed"
		}
	}
}

// Fields by which servers take a request for another one, and those of ours, reach no
// head, however they are written; what a head has no say in reaches no caller.
func TestFieldsThatWouldActElsewhere(t *testing.T) {
	p := newPlane(t)
	const evil = "X-Headway-Head: evil\r\nX-Headway-Attempts: 9\r\nx_headway_head: evil\r\nX-Accel-Redirect: /evil\r\nX-Sendfile: /evil\r\nLocation: /evil\r\nSet-Cookie: evil=1\r\n" +
		"Set_Cookie: evil=1\r\nConnection: keep-alive, X-Request-Id\r\nX-Request-Id: evil\r\nContent-Type: text/html\r\nX-Kept: 1\r\nContent-Security-Policy: default-src 'self'\r\n"
	head := p.newWire(evil, "m")
	names := []string{
		"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL", "X_HTTP_Method_Override", "X_Original_URL",
		"X_Headway_Head", "X_Forwarded_For", "Content_Length", "Transfer_Encoding", "Proxy_Connection", "Http_Host_X_Api_Key", "Te", "Trailer",
	}
	header := []string{"X-Kept", "1"}
	for _, n := range names {
		header = append(header, n, "evil")
	}
	a := p.send(http.MethodPost, "/heads/m/v2/models/m/infer", strings.NewReader("ab"), header...)
	got := head.take()
	if a.StatusCode != http.StatusOK || len(got) != 1 || strings.Contains(got[0], "evil") || !strings.Contains(got[0], "X-Kept: 1\r\n") || strings.Count(got[0], "Content-Length: 2\r\n") != 1 {
		t.Errorf("%d %s, the head got\n%s", a.StatusCode, a.body, got)
	}
	if text := fmt.Sprint(a.Header); strings.Contains(text, "evil") || a.Header.Get("X-Kept") != "1" || a.Header.Get("X-Headway-Head") != "w" || a.Header.Get("X-Headway-Attempts") != "1" {
		t.Errorf("the caller got %s", text)
	}
	if csp := a.Header["Content-Security-Policy"]; len(csp) != 2 || csp[0] != "sandbox" || a.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("a page of a head may act as the console: %v", a.Header)
	}
	p.settled()
}

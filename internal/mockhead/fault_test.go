package mockhead_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/mockhead"
)

const (
	streamed = `{"model":"llama-3.1-8b","messages":[{"role":"user","content":"run"}],"max_tokens":5,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true}}`
	atOnce   = `{"model":"llama-3.1-8b","messages":[{"role":"user","content":"run"}],"max_tokens":5,"ignore_eos":true}`
)

func inject(t *testing.T, h *mockhead.Head, f mockhead.Fault) *mockhead.Injection {
	t.Helper()
	i, err := h.Inject(f)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// raw sends a request on a connection of its own and reads to the end.
func raw(t *testing.T, h *mockhead.Head, body string) (string, error) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(h.URL(), "http://"))
	if err != nil {
		return "", err // a reset may come before the dial is over
	}
	defer func() { _ = c.Close() }()
	if err := send(c, body, "Connection: close\r\n"); err != nil {
		return "", err
	}
	got, err := io.ReadAll(io.LimitReader(c, 32<<20))
	return string(got), err
}

func dial(t *testing.T, h *mockhead.Head) net.Conn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(h.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(c io.Writer, body, header string) error {
	_, err := fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body)
	return err
}

func reset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Each kind has an answer that shows it. An end without an error is a FIN.
func TestEachFaultShows(t *testing.T) {
	h := startHead(t, nil)
	sound, err := raw(t, h, streamed)
	if err != nil || !strings.Contains(sound, "[DONE]") || !strings.HasSuffix(sound, "\r\n0\r\n\r\n") {
		t.Fatalf("a sound head: %q, %v", sound, err)
	}
	for name, tc := range map[string]struct {
		fault  mockhead.Fault
		body   string // "": streamed
		reset  bool
		events int // data: lines; -1: any
		has    string
		hasNot string
	}{
		"reset at accept":   {fault: mockhead.Fault{Kind: mockhead.ResetAccept}, reset: true},
		"no answer":         {fault: mockhead.Fault{Kind: mockhead.ResetRequest}, reset: true, hasNot: "HTTP/"},
		"after header":      {fault: mockhead.Fault{Kind: mockhead.Reset}, reset: true, events: -1},
		"after two":         {fault: mockhead.Fault{Kind: mockhead.Reset, After: 2}, reset: true, events: -1},
		"cut":               {fault: mockhead.Fault{Kind: mockhead.Cut, After: 2}, events: 2, hasNot: "\r\n0\r\n"},
		"cut header":        {fault: mockhead.Fault{Kind: mockhead.Cut}, events: 0, has: "200 OK", hasNot: "\r\n0\r\n"},
		"clean end":         {fault: mockhead.Fault{Kind: mockhead.End, After: 3}, events: 3, has: "\r\n0\r\n", hasNot: "[DONE]"},
		"half-closed":       {fault: mockhead.Fault{Kind: mockhead.HalfClose, After: 3}, events: 3, hasNot: "\r\n0\r\n"},
		"garbage":           {fault: mockhead.Fault{Kind: mockhead.Garbage}, has: "no HTTP at all", hasNot: "HTTP/1.1"},
		"own garbage":       {fault: mockhead.Fault{Kind: mockhead.Garbage, Body: "SSH-2.0-x\r\n"}, has: "SSH-2.0-x"},
		"500":               {fault: mockhead.Fault{Kind: mockhead.Status}, has: `"type":"InternalServerError"`},
		"429":               {fault: mockhead.Fault{Kind: mockhead.Status, Status: 429, RetryAfter: "5"}, has: "Retry-After: 5\r\n"},
		"redirect":          {fault: mockhead.Fault{Kind: mockhead.Redirect, Location: "http://other/v1"}, has: "HTTP/1.1 307 Temporary Redirect"},
		"error at start":    {fault: mockhead.Fault{Kind: mockhead.ErrorEvent}, events: 2, has: `data: {"error":`},
		"error later":       {fault: mockhead.Fault{Kind: mockhead.ErrorEvent, After: 3}, events: 5, has: `data: {"error":`},
		"short":             {fault: mockhead.Fault{Kind: mockhead.ShortBody}, body: atOnce, has: "Content-Length: "},
		"long":              {fault: mockhead.Fault{Kind: mockhead.LongBody}, body: atOnce, has: "Content-Length: "},
		"whole answer cut":  {fault: mockhead.Fault{Kind: mockhead.Cut, After: 1}, body: atOnce, has: `"choices"`, hasNot: `"usage"`},
		"whole answer drip": {fault: mockhead.Fault{Kind: mockhead.Drip}, body: atOnce, has: "1\r\n{\r\n"},
		"long line":         {fault: mockhead.Fault{Kind: mockhead.LongLine, After: 1}, events: 8, has: strings.Repeat("a", 20000)},
		"CRLF":              {fault: mockhead.Fault{Kind: mockhead.Framing, Form: "crlf"}, events: 8, has: "\r\n\r\n"},
		"CR":                {fault: mockhead.Fault{Kind: mockhead.Framing, Form: "cr"}, events: -1, has: "[DONE]\r\r"},
		"no space":          {fault: mockhead.Fault{Kind: mockhead.Framing, Form: "no_space"}, has: `data:{"id"`},
		"several lines":     {fault: mockhead.Fault{Kind: mockhead.Framing, Form: "split"}, events: 15, has: "data: {\ndata: \"id\""},
		"comments":          {fault: mockhead.Fault{Kind: mockhead.Framing, Form: "comments"}, events: 8, has: "\n: inside\n\n"},
		"names":             {fault: mockhead.Fault{Kind: mockhead.Framing, Form: "named"}, events: 8, has: "\nevent: message\ndata:"},
		"no end":            {fault: mockhead.Fault{Kind: mockhead.Framing, Form: "no_end"}, events: 8, hasNot: "[DONE]\n\n"},
		"BOM":               {fault: mockhead.Fault{Kind: mockhead.Framing, Form: "bom"}, events: 8, has: "\ufeffdata: "},
		"in one":            {fault: mockhead.Fault{Kind: mockhead.Framing, Form: "batch"}, events: 8},
		"by bytes":          {fault: mockhead.Fault{Kind: mockhead.Framing, Form: "bytes"}, events: -1, has: "1\r\nd\r\n1\r\na\r\n"},
		"usage in parts":    {fault: mockhead.Fault{Kind: mockhead.Usage, Form: "parts"}, events: 7, has: `"usage":{"completion_tokens":5}`},
		"usage in each":     {fault: mockhead.Fault{Kind: mockhead.Usage, Form: "each"}, events: 7, has: `"completion_tokens":3,`},
		"usage in the last": {fault: mockhead.Fault{Kind: mockhead.Usage, Form: "last"}, events: 7, hasNot: `"choices":[]`},
		"usage null":        {fault: mockhead.Fault{Kind: mockhead.Usage, Form: "null"}, events: 8, has: `"usage":null`},
		"no usage":          {fault: mockhead.Fault{Kind: mockhead.Usage, Form: "none"}, events: 7, hasNot: `"usage"`},
	} {
		t.Run(name, func(t *testing.T) {
			defer h.Heal()
			tc.fault.Times = 1
			i := inject(t, h, tc.fault)
			body := tc.body
			if body == "" {
				body = streamed
			}
			got, err := raw(t, h, body)
			if tc.reset != reset(err) || !tc.reset && err != nil {
				t.Errorf("ended with %v, want a reset: %v", err, tc.reset)
			}
			if n := strings.Count(got, "data: "); tc.events > 0 && n != tc.events || tc.events == 0 && tc.fault.Kind == mockhead.Cut && tc.body == "" && n != 0 {
				t.Errorf("%d events, want %d", n, tc.events)
			}
			if !strings.Contains(got, tc.has) || tc.hasNot != "" && strings.Contains(got, tc.hasNot) {
				t.Errorf("got %.3000q, want %.100q and not %q", got, tc.has, tc.hasNot)
			}
			if i.Hits() != 1 {
				t.Errorf("%d hits", i.Hits())
			}
			if again, err := raw(t, h, streamed); err != nil || !strings.Contains(again, "[DONE]") {
				t.Errorf("the next request: %q, %v", again, err)
			}
		})
	}
	await(t, func() bool { l := h.Load(); return l.Running == 0 && l.KVUsage == 0 })
}

func TestALengthIsWrongByItsSize(t *testing.T) {
	h := startHead(t, nil)
	for kind, want := range map[mockhead.Kind]bool{mockhead.ShortBody: true, mockhead.LongBody: false} {
		inject(t, h, mockhead.Fault{Kind: kind, Times: 1})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL()+"/v1/chat/completions", strings.NewReader(atOnce))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if short := errors.Is(err, io.ErrUnexpectedEOF); short != want || bytes.HasSuffix(text, []byte("}\n")) != want {
			t.Errorf("%s: %q, %v", kind, text, err)
		}
	}
}

// An endless header goes on until the client has enough.
func TestAnEndlessHeader(t *testing.T) {
	h := startHead(t, nil)
	inject(t, h, mockhead.Fault{Kind: mockhead.EndlessHeader, Times: 1})
	c := dial(t, h)
	if err := send(c, atOnce, ""); err != nil {
		t.Fatal(err)
	}
	n, err := io.CopyN(io.Discard, c, 4<<20)
	if err != nil {
		t.Errorf("%d bytes, then %v", n, err)
	}
}

// A stall lasts as long as it says, on a clock that a test may move, and ends
// early when the client leaves or the fault is removed.
func TestStallsLastTheirTime(t *testing.T) {
	for _, f := range []mockhead.Fault{
		{Kind: mockhead.StallHeaders, Seconds: 240},
		{Kind: mockhead.Stall, Seconds: 240},
		{Kind: mockhead.StallInside, Seconds: 240, After: 2},
		{Kind: mockhead.Drip, Seconds: 0.5},
	} {
		t.Run(string(f.Kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				h, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"llama-3.1-8b"}, Speed: 1000, Listener: l})
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				inject(t, h, f)
				transport := &http.Transport{DialContext: l.dial}
				defer transport.CloseIdleConnections()
				start := time.Now()
				resp := post(t.Context(), &http.Client{Transport: transport}, h, 5, true)
				if resp == nil {
					t.Fatal("no answer")
				}
				defer func() { _ = resp.Body.Close() }()
				text, err := io.ReadAll(resp.Body)
				took := time.Since(start)
				if err != nil || !bytes.Contains(text, []byte("[DONE]")) || took < 240*time.Second || took > time.Hour {
					t.Errorf("after %v: %q, %v", took, text, err)
				}
			})
		})
	}
}

// pipes is a listener without a network.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { close(p.closed); return nil }

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	a, b := net.Pipe()
	p.conns <- b
	return a, nil
}

func TestAStallEndsWhenItIsRemoved(t *testing.T) {
	h := startHead(t, nil)
	for _, end := range []func(*mockhead.Injection){(*mockhead.Injection).Remove, func(*mockhead.Injection) { h.Heal() }} {
		i := inject(t, h, mockhead.Fault{Kind: mockhead.Stall, After: 1, Times: 1})
		resp := post(t.Context(), client(t), h, 5, true)
		if resp == nil {
			t.Fatal("no answer")
		}
		r := bufio.NewReader(resp.Body)
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		end(i)
		rest, err := io.ReadAll(r)
		_ = resp.Body.Close()
		if err != nil || !bytes.Contains(rest, []byte("[DONE]")) {
			t.Errorf("%q, %v", rest, err)
		}
	}
}

func TestAClientLeavesAStall(t *testing.T) {
	h := startHead(t, nil)
	inject(t, h, mockhead.Fault{Kind: mockhead.StallHeaders})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan *http.Response)
	go func() { left <- post(ctx, client(t), h, 5, false) }()
	await(t, func() bool { return h.Count() == 1 })
	leave()
	if r := <-left; r != nil {
		_ = r.Body.Close()
		t.Error("a stalled head answered")
	}
}

func TestAShareOfRequestsFails(t *testing.T) {
	h := startHead(t, nil)
	i := inject(t, h, mockhead.Fault{Kind: mockhead.Status, Status: 503, Share: 0.25, Path: "/v1/models"})
	failed := 0
	for range 40 {
		if resp, _ := get(t, client(t), h.URL()+"/v1/models"); resp.StatusCode == http.StatusServiceUnavailable {
			failed++
		}
	}
	if failed != 10 || i.Hits() != 10 {
		t.Errorf("%d of 40 failed and %d hits, want 10", failed, i.Hits())
	}
	inject(t, h, mockhead.Fault{Kind: mockhead.Status, Status: 503, Path: "/health"})
	if resp, _ := get(t, client(t), h.URL()+"/health"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/health: %d", resp.StatusCode)
	}
}

// A connection that was idle is closed without notice: after its time, or just
// when the next request is on its way.
func TestIdleConnectionsAreClosed(t *testing.T) {
	h := startHead(t, nil)
	use := func() (net.Conn, *bufio.Reader) {
		c := dial(t, h)
		r := bufio.NewReader(c)
		if err := send(c, atOnce, ""); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return c, r
	}
	i := inject(t, h, mockhead.Fault{Kind: mockhead.IdleClose, Seconds: 0.001, Times: 1})
	_, r := use()
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection ended with %v", err)
	}
	if i.Hits() != 1 {
		t.Errorf("%d hits", i.Hits())
	}
	i = inject(t, h, mockhead.Fault{Kind: mockhead.IdleReset, Times: 1})
	c, r := use()
	before := h.Count()
	_ = send(c, atOnce, "") // reset before or after it was written whole
	if _, err := r.ReadByte(); !reset(err) {
		t.Errorf("the request on its way met %v", err)
	}
	if h.Count() != before || i.Hits() != 1 {
		t.Errorf("%d requests came, %d hits", h.Count()-before, i.Hits())
	}
}

func TestWhatAHeadReceives(t *testing.T) {
	h := startHead(t, func(o *mockhead.Options) { o.Record = 2 })
	c := dial(t, h)
	r := bufio.NewReader(c)
	for n, header := range []string{"X-Odd:  two  spaces\r\nx-CASE: a\r\n", "X-Second: b\r\n", "X-Third: c\r\n"} {
		if err := send(c, atOnce, header); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		list := h.Received()
		got := list[len(list)-1]
		want := "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n" + header + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(atOnce))
		if string(got.Head) != want || got.SHA256 != sha256.Sum256([]byte(atOnce)) || got.Size != int64(len(atOnce)) || !got.Whole || got.Reused != (n > 0) {
			t.Errorf("request %d: %q %+v", n, got.Head, got)
		}
		if len(list) != min(n+1, 2) || h.Count() != n+1 {
			t.Errorf("%d kept of %d", len(list), h.Count())
		}
	}
	chunked := "POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	if _, err := io.WriteString(c, chunked+"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return h.Count() == 5 })
	if got := h.Received()[0]; got.Size != 3 || got.SHA256 != sha256.Sum256([]byte("abc")) {
		t.Errorf("chunked: %+v", got)
	}
}

func TestFaultsByHTTP(t *testing.T) {
	h := startHead(t, func(o *mockhead.Options) { o.Control = true })
	for body, want := range map[string]int{
		`{"kind":"status","status":503,"path":"/v1/models"}`:                 204,
		`{"kind":"status","status":429,"retry_after":20,"path":"/v1/other"}`: 204,
		`{"kind":"status","retry_after":true}`:                               400,
		`{"kind":"none"}`:                                                    400,
		`{"kind":"redirect"}`:                                                400,
		`{"kind":"framing","form":"x"}`:                                      400,
		`{"kind":"reset","share":2}`:                                         400,
		`{"kind":"reset","after":-1}`:                                        400,
		`{"kind":"stall","seconds":1e9}`:                                     400,
		`{"kind":"long_line","size":1e12}`:                                   400,
		`{"kind":"status","status":200}`:                                     400,
		`{"kind":"reset","unknown":1}`:                                       400,
		`{"kind":"usage"}`:                                                   400,
	} {
		if resp, text := ask(t, h, "/faults", body, ""); resp.StatusCode != want {
			t.Errorf("%s: %d %s", body, resp.StatusCode, text)
		}
	}
	if _, text := ask(t, h, "/faults", `{"kind":"cut","times":"1"}`, ""); !strings.Contains(text, "/times: a JSON string does not fit") {
		t.Errorf("a wrong type: %s", text)
	}
	c := client(t)
	if resp, _ := get(t, c, h.URL()+"/v1/other"); resp.Header.Get("Retry-After") != "20" {
		t.Errorf("Retry-After is %q", resp.Header.Get("Retry-After"))
	}
	if resp, _ := get(t, c, h.URL()+"/v1/models"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("with the fault: %d", resp.StatusCode)
	}
	if _, text := get(t, c, h.URL()+"/faults"); !strings.Contains(text, `"hits":1`) {
		t.Errorf("faults: %s", text)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, h.URL()+"/faults", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	do(t, c, req)
	if resp, _ := get(t, c, h.URL()+"/v1/models"); resp.StatusCode != http.StatusOK {
		t.Errorf("healed: %d", resp.StatusCode)
	}
	if resp, _ := ask(t, startHead(t, nil), "/faults", `{"kind":"reset"}`, ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("without the option: %d", resp.StatusCode)
	}
}

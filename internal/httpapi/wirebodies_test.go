package httpapi_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headway/internal/mockhead"
	"headway/internal/proxy"
)

func bodyOf(size int) string {
	const start, end = `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"`, `"}]}`
	return start + strings.Repeat("x", size-len(start)-len(end)) + end
}

// Bodies are bounded by a limit of their own, far above that of the API, and what is
// above it is an error of the path's API for which no head is called.
func TestPitfallP20BodiesHaveALimitOfTheirOwn(t *testing.T) {
	const limit = 2 << 20
	p := newPlane(t, func(o *proxy.Options) { o.Limits.MaxBody = limit })
	head := p.start("a", func(o *mockhead.Options) { o.Models = []string{"m"} })
	for _, size := range []int{1<<20 + 1, limit - 1, limit} {
		for _, chunked := range []bool{false, true} {
			body := bodyOf(size)
			var r io.Reader = strings.NewReader(body)
			if chunked {
				r = io.MultiReader(r)
			}
			// The model's context is shorter: the head refuses the prompt, not the bytes.
			a := p.send(http.MethodPost, "/v1/tokenize", r, "Content-Type", "application/json")
			got := head.Received()[len(head.Received())-1]
			if got.Size != int64(size) || got.SHA256 != sha256.Sum256([]byte(body)) || !got.Whole {
				t.Errorf("%d bytes, chunked %t: %d, the head got %d: %s", size, chunked, a.StatusCode, got.Size, a.body)
			}
		}
	}
	before := head.Count()
	for _, path := range []string{chatPath, "/v1/messages", "/v1/audio/transcriptions"} {
		for _, chunked := range []bool{false, true} {
			var r io.Reader = strings.NewReader(bodyOf(limit + 1))
			if chunked {
				r = io.MultiReader(r)
			}
			a := p.send(http.MethodPost, path, r, "Content-Type", "application/json")
			kind, code, message := errorOf(t, a)
			if a.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(message, strconv.Itoa(limit)) || kind != "invalid_request_error" && kind != "anthropic request_too_large" || code == "" && path != "/v1/messages" {
				t.Errorf("%s, chunked %t: %d %s", path, chunked, a.StatusCode, a.body)
			}
		}
	}
	if head.Count() != before {
		t.Error("a head was called")
	}
}

// The bodies of all requests have a bound in sum. A request that finds no room waits
// before its body is read, so that its client is held back.
func TestPitfallP20BodiesAreBoundedInSum(t *testing.T) {
	const limit = 1 << 20
	p := newPlane(t, func(o *proxy.Options) {
		o.Limits.MaxBody, o.Limits.MaxBodies, o.Limits.BodyWait = limit, limit, time.Minute
	})
	head := p.start("a")
	stall, err := head.Inject(mockhead.Fault{Kind: mockhead.StallHeaders})
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan planeAnswer, 2)
	ask := func() {
		answers <- p.send(http.MethodPost, "/v1/tokenize", strings.NewReader(bodyOf(limit)), "Content-Type", "application/json")
	}
	go ask()
	p.eventually("the first is at the head", func() bool { return head.Count() == 1 })
	go ask()
	var sent atomic.Int64
	go func() { // a client that counts what is taken of it
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", 64*limit)
		for range 1000 {
			n, err := c.Write(make([]byte, 64<<10))
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}()
	a := p.send(http.MethodPost, chatPath, strings.NewReader(bodyOf(limit+1)), "Content-Type", "application/json")
	if a.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is never allowed waits: %d", a.StatusCode)
	}
	if head.Count() != 1 {
		t.Errorf("%d requests are at the head", head.Count())
	}
	stall.Remove()
	for range 2 {
		if a := <-answers; a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}
	p.settled()
}

// A request that finds no room in time is refused, and the room is given back.
func TestARequestThatFindsNoRoomForItsBody(t *testing.T) {
	const limit = 1 << 20
	p := newPlane(t, func(o *proxy.Options) {
		o.Limits.MaxBody, o.Limits.MaxBodies, o.Limits.BodyWait = limit, limit, time.Millisecond
	})
	head := p.start("a")
	stall, err := head.Inject(mockhead.Fault{Kind: mockhead.StallHeaders})
	if err != nil {
		t.Fatal(err)
	}
	first := make(chan planeAnswer, 1)
	go func() {
		first <- p.send(http.MethodPost, "/v1/tokenize", strings.NewReader(bodyOf(limit)), "Content-Type", "application/json")
	}()
	p.eventually("the first is at the head", func() bool { return head.Count() == 1 })
	a := p.send(http.MethodPost, "/v1/tokenize", strings.NewReader(bodyOf(limit)), "Content-Type", "application/json")
	if _, code, _ := errorOf(t, a); a.StatusCode != http.StatusServiceUnavailable || code != "bodies_full" || a.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.body)
	}
	stall.Remove()
	if a := <-first; a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	p.settled()
	if a := p.send(http.MethodPost, "/v1/tokenize", strings.NewReader(bodyOf(limit)), "Content-Type", "application/json"); a.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d %s", a.StatusCode, a.body)
	}
}

// Callers that find no head come back at different times.
func TestPitfallP23RetryAfterIsSpread(t *testing.T) {
	p := newPlane(t)
	p.apply(`{"default_strategy":"round_robin","aliases":{"away":"not-served"}}`)
	seen := map[string]bool{}
	for range 200 {
		a := p.answer(chatPath, `{"model":"away","messages":[]}`)
		seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
		if a.StatusCode != http.StatusServiceUnavailable || err != nil || seconds < 1 || seconds > 10 {
			t.Fatalf("%d, Retry-After %q", a.StatusCode, a.Header.Get("Retry-After"))
		}
		seen[a.Header.Get("Retry-After")] = true
	}
	if len(seen) < 3 {
		t.Errorf("all come back within %v", seen)
	}
}

// A panic is an error of the path's API.
func TestPitfallP23APanicIsAnErrorObject(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) {
		o.HeadKey = func(string) string { panic("a fault of ours, with text that is not for callers") }
	})
	p.start("a")
	for path, want := range map[string]string{chatPath: "server_error", "/v1/messages": "anthropic api_error"} {
		a := p.answer(path, chatBody)
		kind, _, _ := errorOf(t, a)
		if a.StatusCode != http.StatusInternalServerError || kind != want || bytes.Contains(a.body, []byte("fault of ours")) {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	p.settled()
}

// A head that answers before it has all of a body that streams through ends it.
func TestAHeadAnswersBeforeTheEndOfAStreamedBody(t *testing.T) {
	p := newPlane(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r := bufio.NewReader(c)
		for line, _ := r.ReadString('\n'); line != "\r\n" && line != ""; line, _ = r.ReadString('\n') {
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nmuch")
		_, _ = io.CopyN(io.Discard, r, 1<<30)
		c.Close()
	}()
	p.registered("a", "http://"+l.Addr().String())
	body, feed := io.Pipe()
	fed := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = feed.Write(make([]byte, 16<<10))
		}
		fed <- err
	}()
	a := p.send(http.MethodPost, "/heads/m/upload", body)
	if a.StatusCode != http.StatusRequestEntityTooLarge || string(a.body) != "much" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	body.Close()
	<-fed
	p.settled()
}

// A client that leaves within a body that streams through ends the request at the
// head, and no head is blamed.
func TestAClientLeavesWithinAStreamedBody(t *testing.T) {
	p := newPlane(t)
	ended := make(chan error, 1)
	head := newScripted(t, func(http.ResponseWriter, []byte) {})
	head.onBody = func(err error) { ended <- err }
	p.registered("a", head.url)
	c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST /heads/m/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	p.eventually("a place is taken", func() bool { return p.router.Open() == 1 })
	c.Close()
	if err := <-ended; err == nil {
		t.Error("the head saw a whole body")
	}
	p.settled()
}

// Who says that much will come, and sends little or slowly, keeps no other out.
func TestPitfallP20SlowSendersKeepNoOtherOut(t *testing.T) {
	for _, c := range []struct {
		what  string
		first int  // bytes that each of them sends
		large bool // a large body finds room beside them
	}{{"a byte", 1, true}, {"a first part", 80 << 10, false}} {
		t.Run(c.what, func(t *testing.T) {
			const limit = 8 << 20
			p := newPlane(t, func(o *proxy.Options) {
				o.Limits.MaxBody, o.Limits.MaxBodies, o.Limits.BodyWait, o.Limits.BodyTime = limit, 4*limit, 50*time.Millisecond, time.Minute
			})
			p.start("a")
			for range 6 {
				conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", chatPath, limit, strings.Repeat(" ", c.first))
			}
			if !c.large {
				p.eventually("they hold the room for large bodies", func() bool {
					return p.answer("/v1/tokenize", bodyOf(limit/2)).StatusCode == http.StatusServiceUnavailable
				})
				if text := p.scrape(); !strings.Contains(text, `headway_proxy_bodies_refused_total{reason="no_room"}`) || strings.Contains(text, `headway_proxy_bodies_refused_total{reason="no_room"} 0`) {
					t.Error("the refusal is not counted")
				}
			}
			for _, size := range []int{1000, 100 << 10, 900 << 10} {
				if a := p.answer("/v1/tokenize", bodyOf(size)); a.StatusCode != http.StatusOK {
					t.Errorf("a body of %d bytes: %d %s", size, a.StatusCode, a.body)
				}
			}
			if c.large {
				if a := p.answer("/v1/tokenize", bodyOf(limit)); a.StatusCode != http.StatusOK {
					t.Errorf("a large body: %d %s", a.StatusCode, a.body)
				}
			}
			p.settled()
		})
	}
}

// A body that comes byte by byte ends as one that stops.
func TestABodyThatDripsEnds(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) { o.Limits.BodyTime = 300 * time.Millisecond })
	p.start("a")
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", chatPath, 32<<20, strings.Repeat(" ", 80<<10))
	ended := make(chan struct{})
	defer func() { <-ended }()
	go func() {
		defer close(ended)
		for {
			if _, err := conn.Write([]byte{' '}); err != nil {
				return
			}
			<-time.After(20 * time.Millisecond)
		}
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("%s", res.Status)
	}
	_ = res.Body.Close()
	_ = conn.Close()
}

package httpapi_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/internal/admission"
	"headway/internal/fleet"
	"headway/internal/proxy"
	"headway/internal/routing"
)

// upload begins a request whose body is long.
func (p *plane) upload(framing, begin string) net.Conn {
	p.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		p.Fatal(err)
	}
	fmt.Fprintf(c, "POST /heads/m/upload HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n%s", framing, begin)
	return c
}

// A client that leaves the queue gives its place up, also where its body is long and
// was read in part or not at all.
func TestAClientLeavesTheQueueWithALongBody(t *testing.T) {
	part := strings.Repeat("a", 100<<10) // more than net/http reads by itself
	for _, c := range []struct {
		what, framing, begin string
		waits                bool
	}{
		{"a part of it came", "Content-Length: 2000000", part, false},
		{"a part of a chunk came", "Transfer-Encoding: chunked", "200000\r\n" + part, false},
		{"all of it came", "Content-Length: 2000000", strings.Repeat("a", 2000000), true},
		{"all of its chunks came", "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(part), part), true},
		{"it is too long to be kept", "Content-Length: 20000000", part, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			var a *admission.Admission
			p := newPlane(t, func(o *proxy.Options) {
				var err error
				if a, err = admission.New(admission.Options{Metrics: o.Metrics, MaxWaiting: 2, MaxWait: time.Hour}); err != nil {
					t.Fatal(err)
				}
				o.Admission, o.Limits.MaxBody, o.Limits.BodyTime = a, 4<<20, time.Hour
			})
			p.freed = func(h *fleet.Head) { a.Freed(h.ModelTypes...) }
			g := newGate(t)
			p.narrow("a", g.URL, 1)
			var all sync.WaitGroup
			defer all.Wait()
			first := p.begin(t.Context(), &all)
			<-g.arrived
			client := p.upload(c.framing, c.begin)
			if c.waits {
				p.waiting(1)
			}
			client.Close()
			p.eventually("the client's leaving was seen", func() bool {
				return strings.Contains(p.scrape(), `http_requests_total{endpoint="/heads/",method="POST",status="499"} 1`)
			})
			p.waiting(0)
			g.release <- struct{}{}
			if a := <-first; a.err != nil || a.StatusCode != http.StatusOK {
				t.Errorf("the request before it: %v", a.err)
			}
			p.settled()
		})
	}
}

// What waited with a long body comes to the head as it was sent.
func TestALongBodyThatWaitedIsPassedOn(t *testing.T) {
	p, g := newGatedPlane(t)
	got := make(chan string, 1)
	next := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- fmt.Sprint(r.ContentLength, " ", string(b))
	}))
	t.Cleanup(next.Close)
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-g.arrived
	body := strings.Repeat("0123456789abcdef", 1<<17)
	second := make(chan planeAnswer, 1)
	all.Go(func() { second <- p.send(http.MethodPost, "/heads/m/upload", io.MultiReader(strings.NewReader(body))) })
	p.waiting(1)
	p.narrow("b", next.URL, 1)
	for _, h := range p.fleet.Snapshot().Pools["m"].All.Heads {
		p.freed(h)
	}
	if text := <-got; text != fmt.Sprint(len(body), " ", body) {
		t.Errorf("the head got %d bytes, %.20s", len(text), text)
	}
	if a := <-second; a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	g.release <- struct{}{}
	if a := <-first; a.StatusCode != http.StatusOK {
		t.Errorf("%d", a.StatusCode)
	}
	p.settled()
}

// A client that breaks off while a head takes nothing of its body ends the attempt.
func TestAClientLeavesAtAHeadThatTakesNothing(t *testing.T) {
	p := newPlane(t)
	held := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 1))
		<-held
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(held) })
	p.registered("a", s.URL)
	c := p.upload("Content-Length: 1000000000", "")
	var sender sync.WaitGroup
	defer sender.Wait()
	sender.Go(func() {
		for err := error(nil); err == nil; { // until nothing is taken any more
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, err = c.Write(make([]byte, 64<<10))
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	})
	p.eventually("a place is taken", func() bool { return p.router.Open() == 1 })
	p.settled()
	if o, _ := p.router.Recent(routing.RecentQuery{Limit: 1})[0].Outcome(); o.Result != routing.ResultCancelled {
		t.Errorf("the outcome is %+v", o)
	}
}

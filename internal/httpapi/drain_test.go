package httpapi_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/openai"
	"headway/internal/registry"
	"headway/internal/routing"
)

const messageStart = "event: message_start\n" + `data: {"type":"message_start","message":{"id":"1","type":"message","role":"assistant","content":[],"model":"m","usage":{"input_tokens":3,"output_tokens":0}}}` + "\n\n" +
	"event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}` + "\n\n"

// unfinished are requests that a head never finishes, by what it says of them.
var unfinished = map[string]struct{ path, body, said string }{
	"in the middle of a stream": {chatPath, streamBody, roleEvent + tokenEvent},
	"a stream without content":  {chatPath, streamBody, roleEvent},
	"a stream without an event": {chatPath, streamBody, ": \n\n"},
	"a stream after comments":   {chatPath, streamBody, ""},
	"of Anthropic's API":        {"/v1/messages", strings.Replace(streamBody, `"ignore_eos":true,`, "", 1), messageStart},
	"no stream":                 {chatPath, chatBody, ""},
}

func (p *plane) neverFinishes() {
	p.Helper()
	p.script("1", func(w http.ResponseWriter, r *http.Request) {
		if text := unfinished[r.Header.Get("X-Test")].said; text != "" {
			say(w, text)
		}
		<-r.Context().Done()
	})
}

// asked is a request and its answer.
func (p *plane) asked(kind string) planeAnswer {
	res, err := p.ask(p.Context(), unfinished[kind].path, unfinished[kind].body, "X-Test", kind)
	if err != nil {
		return planeAnswer{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return planeAnswer{res, b, err}
}

// What is still under way at the end of the time for it is cut: a stream by an error
// event and a connection that breaks, another request by a 503. No head is blamed.
func TestAStopAnswersWhatItCuts(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		p.neverFinishes()
		var all sync.WaitGroup
		answers := map[string]planeAnswer{}
		var mu sync.Mutex
		for kind := range unfinished {
			all.Go(func() {
				a := p.asked(kind)
				mu.Lock()
				defer mu.Unlock()
				answers[kind] = a
			})
		}
		synctest.Wait()
		begin := time.Now()
		err := p.server.Drain(t.Context())
		if took := time.Since(begin); took < 33*time.Second || took > 34*time.Second {
			t.Errorf("the stop took %s", took)
		}
		if err == nil || !strings.Contains(err.Error(), "30s") || !strings.Contains(err.Error(), "5 answers in their middle, 1 answered with 503, 0 connections closed") || !strings.Contains(err.Error(), "http.shutdown_timeout") || strings.Contains(err.Error(), "context") {
			t.Errorf("Drain: %v", err)
		}
		if log := p.log.String(); !strings.Contains(log, "answers_cut=5 refused=1 connections_closed=0") || strings.Contains(log, "hello") {
			t.Errorf("the log is\n%s", log)
		}
		all.Wait()
		for kind, a := range answers {
			text := string(a.body)
			if a.Response == nil {
				t.Errorf("%s: %v", kind, a.err)
				continue
			}
			if unfinished[kind].body == chatBody {
				if a.StatusCode != http.StatusServiceUnavailable || a.err != nil || !strings.Contains(text, `"code":"stopping"`) || a.Header.Get("Retry-After") == "" {
					t.Errorf("%s: %d %v %v\n%s", kind, a.StatusCode, a.Header, a.err, text)
				}
				continue
			}
			last := text[strings.LastIndex(strings.TrimSuffix(text, "\n\n"), "\n\n")+2:]
			form := `data: {"error":{"message":"The service is stopping`
			if strings.HasPrefix(kind, "of Anthropic") {
				form = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"The service is stopping"
			} else if !strings.Contains(last, `"code":"stopping"`) {
				t.Errorf("%s: its last event has no code: %s", kind, last)
			}
			if a.StatusCode != http.StatusOK || a.err == nil || !strings.HasPrefix(last, form) || strings.Contains(text, "[DONE]") {
				t.Errorf("%s: %d %v\n%s", kind, a.StatusCode, a.err, text)
			}
			if kind == "in the middle of a stream" && !strings.HasPrefix(text, roleEvent+tokenEvent) {
				t.Errorf("%s: its beginning is lost:\n%s", kind, text)
			}
		}
		if n := p.router.Open(); n != 0 {
			t.Errorf("%d places are taken", n)
		}
		for _, d := range p.router.Recent(routing.RecentQuery{Limit: 100}) {
			if o, ended := d.Outcome(); !ended || o.Result != routing.ResultCancelled {
				t.Errorf("an outcome is %+v, %t", o, ended)
			}
		}
	})
}

// Over HTTP/1.0 the error event is the only sign, so that it must be there.
func TestAStopAnswersCallersOfHTTP10(t *testing.T) {
	p := newPlane(t)
	p.neverFinishes()
	answers := map[string]*http.Response{}
	for _, version := range []string{"HTTP/1.0", "HTTP/1.1"} {
		conn := p.caller()
		conn.send("POST %s %s\r\nHost: localhost\r\nX-Test: in the middle of a stream\r\nContent-Length: %d\r\n\r\n%s", chatPath, version, len(streamBody), streamBody)
		r, err := http.ReadResponse(conn.in, &http.Request{Method: http.MethodPost})
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatal(r, err)
		}
		answers[version] = r
	}
	p.eventually("both wait", func() bool { return p.router.Open() == 2 })
	p.cut("2 answers in their middle, 0 answered with 503, 0 connections closed")
	for version, r := range answers {
		b, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if text := string(b); !strings.Contains(text, `"code":"stopping"`) || (err == nil) != (version == "HTTP/1.0") {
			t.Errorf("%s: %v\n%s", version, err, text)
		}
	}
}

// An event that is too long to be kept is passed on as it comes: the error would stand
// in its middle.
func TestAStopPutsNoErrorIntoALongEvent(t *testing.T) {
	p := newPlane(t)
	begun := tokenEvent + "data: " + strings.Repeat("x", openai.DefaultEvent)
	p.script("a", func(w http.ResponseWriter, r *http.Request) {
		say(w, begun)
		<-r.Context().Done()
	})
	a, err := p.ask(t.Context(), chatPath, streamBody)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	got := make([]byte, len(begun))
	if _, err := io.ReadFull(a.Body, got); err != nil || string(got) != begun {
		t.Fatalf("the answer begins with %.300q, %v", got, err)
	}
	p.cut("1 answers in their middle")
	if rest, err := io.ReadAll(a.Body); len(rest) > 0 || err == nil {
		t.Errorf("the answer ends with %q, %v", rest, err)
	}
}

// cut stops the service at once, and wants an error that says so.
func (p *plane) cut(says string) {
	p.Helper()
	ctx, now := context.WithCancel(p.Context())
	now()
	if err := p.server.Drain(ctx); err == nil || !strings.Contains(err.Error(), says) {
		p.Errorf("Drain: %v; want %q", err, says)
	}
}

// A request that waits for a place goes on to wait when a stop begins, as one that
// a head works on does; it is placed if a place comes free in time.
func TestAStopLetsTheQueueGoOn(t *testing.T) {
	p, g := newGatedPlane(t)
	var all sync.WaitGroup
	first := p.begin(p.Context(), &all)
	<-g.arrived
	second := p.begin(p.Context(), &all)
	p.waiting(1)
	third := p.begin(p.Context(), &all)
	p.waiting(2)
	ctx, now := context.WithCancel(p.Context())
	defer now()
	stopped := make(chan error, 1)
	go func() { stopped <- p.server.Drain(ctx) }()
	g.release <- struct{}{}
	if a := <-first; a.err != nil || a.StatusCode != http.StatusOK {
		t.Errorf("the first: %+v", a)
	}
	<-g.arrived // the second has its place
	now()
	for name, c := range map[string]<-chan planeAnswer{"that a head works on": second, "that waits": third} {
		if a := <-c; a.err != nil || a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(a.body), `"code":"stopping"`) || a.Header.Get("Retry-After") == "" {
			t.Errorf("the one %s: %d %s %v", name, a.StatusCode, a.body, a.err)
		} else if decided := a.Header["X-Headway-Decision-Id"] != nil; decided != (c == second) {
			t.Errorf("the one %s has a decision: %t", name, decided)
		}
	}
	if err := <-stopped; err == nil || !strings.Contains(err.Error(), "0 answers in their middle, 2 answered with 503") {
		t.Errorf("Drain: %v", err)
	}
	all.Wait()
	p.settled()
}

// Heads cannot report to a service that has closed its listener. They stay in the fleet
// all the same: a request that waits for a place, or whose head fails, needs them.
func TestAStopKeepsTheHeads(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		w := newWorldOf(t, registry.LeaseOptions{})
		w.register("a")
		if err := w.server.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		if h := w.fleet.Snapshot().Sorted()[0]; !h.Routable() {
			t.Errorf("a minute after the listener was closed the head is %s", h.Health)
		}
	})
}

// A request that a stop ends in the queue has the decision of the head that failed it
// before.
func TestAStopOfWhatWaitsToBeTriedAgain(t *testing.T) {
	p, g := newGatedPlane(t)
	var all sync.WaitGroup
	defer all.Wait()
	p.begin(p.Context(), &all)
	<-g.arrived
	p.script("failing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	again := p.begin(p.Context(), &all)
	p.waiting(1)
	p.cut("0 answers in their middle, 2 answered with 503")
	a := <-again
	if a.err != nil || !strings.Contains(string(a.body), `"code":"stopping"`) || a.Header.Get("X-Headway-Attempts") != "1" {
		t.Fatalf("%+v %s", a, a.body)
	}
	id, recent := a.Header.Get("X-Headway-Decision-Id"), p.router.Recent(routing.RecentQuery{Limit: 100})
	for _, d := range recent {
		if o, ended := d.Outcome(); d.ID() == id && ended && o.StatusCode == http.StatusInternalServerError {
			return
		}
	}
	t.Errorf("the decision %q of the attempt that failed is not among %d", id, len(recent))
}

// A caller that still sends its body is answered too, and one that takes nothing
// holds up no stop.
func TestAStopWithBodiesUnderWay(t *testing.T) {
	p := newPlane(t)
	p.script("a", func(http.ResponseWriter, *http.Request) {})
	if _, err := p.fleet.Register(t.Context(), fleet.Spec{ID: "b", Endpoint: "http://127.0.0.1:1", ModelTypes: []string{"other"}, Region: "us"}, nil); err != nil {
		t.Fatal(err)
	}
	requests := []string{
		"POST " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
		"POST " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
		"POST " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
		"POST /heads/m/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n{", // is sent on as it comes
	}
	var conns []*caller
	for _, text := range requests {
		c := p.caller()
		c.send("%s", text)
		conns = append(conns, c)
	}
	if r, _, _ := conns[2].read("POST"); r.StatusCode != http.StatusContinue {
		t.Fatal(r.Status)
	}
	p.eventually("bodies are awaited", func() bool {
		return strings.Contains(p.scrape(), fmt.Sprintf("\nheadway_proxy_bodies_awaited %d\n", len(requests)))
	})
	var answers sync.WaitGroup
	for i, c := range conns {
		answers.Go(func() {
			r, err := http.ReadResponse(c.in, &http.Request{Method: http.MethodPost})
			if err != nil {
				t.Errorf("request %d: %v", i, err)
				return
			}
			defer r.Body.Close()
			b, err := io.ReadAll(r.Body)
			if r.StatusCode != http.StatusServiceUnavailable || err != nil || !strings.Contains(string(b), `"code":"stopping"`) || r.Header.Get("Retry-After") == "" {
				t.Errorf("request %d: %d %s %v", i, r.StatusCode, b, err)
			}
		})
	}
	p.cut(fmt.Sprintf("0 answers in their middle, %d answered with 503", len(requests)))
	answers.Wait()
	p.settled()
}

// A lame duck that is not waited for ends at once, and what is under way finishes.
func TestAStopWithoutALameDuck(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		w := newWorld(t)
		begin := time.Now()
		stopped := make(chan error, 1)
		go func() { stopped <- w.server.Drain(t.Context()) }()
		time.Sleep(time.Second)
		w.server.SkipLameDuck()
		if err := <-stopped; err != nil || time.Since(begin) != time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
	})
}

package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headway/internal/fleet"
	"headway/internal/mockhead"
	"headway/internal/proxy"
	"headway/internal/routing"
)

const hedgingPolicy = "default_strategy: least_loaded\nhedge: {after_ms: 20}"

// hedged asks until a request was sent to two heads.
func (p *plane) hedged(body string, header ...string) planeAnswer {
	p.Helper()
	var last planeAnswer
	for range 100 {
		if last = p.answer(chatPath, body, header...); last.Header.Get("X-Headway-Attempts") == "2" || last.err != nil {
			return last
		}
	}
	p.Fatalf("no request was hedged; the last answer is %d %s", last.StatusCode, last.body)
	return planeAnswer{}
}

// A head that brings no content in time is not waited for: another one answers, the
// first is left at once, and none is blamed.
func TestASlowHeadIsHedged(t *testing.T) {
	for name, f := range map[string]mockhead.Fault{
		"before the header": {Kind: mockhead.StallHeaders},
		"before content":    {Kind: mockhead.Stall, After: 1},
	} {
		for _, body := range []string{chatBody, streamBody} {
			if body == chatBody && f.Kind == mockhead.Stall {
				continue // a whole answer is one event
			}
			t.Run(fmt.Sprintf("%s, stream %t", name, body == streamBody), func(t *testing.T) {
				onFakeTime(t, func(t *testing.T, p *plane) { hedgesSlowHead(t, p, f, body) })
			})
		}
	}
}

// hedgesSlowHead has a request hedged that came to a head with a fault. On fake time the
// other one is never slow by itself: what is left of the budget would take many requests.
func hedgesSlowHead(t *testing.T, p *plane, f mockhead.Fault, body string) {
	p.policy("default_strategy: least_loaded\nhedge: {after_ms: 5000}")
	p.mock("1", f)
	p.mock("2")
	a := p.hedged(body)
	if a.err != nil || a.StatusCode != http.StatusOK || a.Header.Get("X-Headway-Head") != "head-2" || bytes.Contains(a.body, []byte("error")) {
		t.Fatalf("%d from %s, %v\n%s", a.StatusCode, a.Header.Get("X-Headway-Head"), a.err, a.body)
	}
	if body == streamBody && (bytes.Count(a.body, []byte(`"role"`)) != 1 || !bytes.HasSuffix(a.body, []byte("data: [DONE]\n\n"))) {
		t.Errorf("the stream is not that of one head:\n%s", a.body)
	}
	p.settled() // also at the head that was slow, while it still stalls
	d := p.decisionOf(a.Header)
	first := d.Before()
	if first == nil || !d.Hedges() || first.ID() == d.ID() || first.Head.ID != "head-1" {
		t.Fatalf("the decision stands beside %+v", first)
	}
	if o, ended := first.Outcome(); !ended || o.Result != routing.ResultCancelled {
		t.Errorf("the slow head's attempt ended as %+v", o)
	}
	if o, _ := d.Outcome(); o.Result != routing.ResultOK {
		t.Errorf("the answer's attempt ended as %+v", o)
	}
	if n := p.fleet.Snapshot().Pools["m"].All.Routable(); n != 2 {
		t.Errorf("%d of 2 heads take requests", n)
	}
	if text := p.scrape(); !strings.Contains(text, `headway_proxy_hedges_total{result="won"} 1`) {
		t.Error("the hedge is not counted")
	}
	if reason := string(d.AppendReason(nil)); !strings.HasSuffix(reason, "beside head-1") {
		t.Errorf("the reason is %q", reason)
	}
}

// A second head that fails, or that is slower, changes nothing.
func TestAHedgeThatFailsLeavesTheFirst(t *testing.T) {
	for _, f := range []mockhead.Fault{
		{Kind: mockhead.Status, Status: 500},
		{Kind: mockhead.Status, Status: 429, RetryAfter: "0"},
		{Kind: mockhead.ResetRequest},
		{Kind: mockhead.ErrorEvent},
		{Kind: mockhead.Cut, After: 1},
		{Kind: mockhead.StallHeaders},
	} {
		for _, body := range []string{chatBody, streamBody} {
			t.Run(fmt.Sprintf("%s %d, stream %t", f.Kind, f.Status, body == streamBody), func(t *testing.T) {
				p := newPlane(t)
				p.policy(hedgingPolicy + "\ncaller_may: [region]")
				if _, err := p.start("first").Inject(mockhead.Fault{Kind: mockhead.StallHeaders, Seconds: 0.3}); err != nil {
					t.Fatal(err)
				}
				second := p.start("second")
				if _, err := second.Inject(f); err != nil {
					t.Fatal(err)
				}
				// In another region, or it may come first, fail, and be ejected.
				spec := fleet.Spec{ID: "second", Endpoint: second.URL(), ModelTypes: []string{"m"}, Region: "eu"}
				if _, err := p.fleet.Register(t.Context(), spec, &fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()}); err != nil {
					t.Fatal(err)
				}
				a := p.hedged(body, "X-Headway-Region", "us")
				if a.err != nil || a.StatusCode != http.StatusOK || a.Header.Get("X-Headway-Head") != "first" || bytes.Contains(a.body, []byte("error")) {
					t.Fatalf("%d from %s, %v\n%s", a.StatusCode, a.Header.Get("X-Headway-Head"), a.err, a.body)
				}
				p.settled()
			})
		}
	}
}

func TestAtMostTwoPercentAreHedged(t *testing.T) {
	p := newPlane(t)
	p.policy("default_strategy: least_loaded\nhedge: {after_ms: 1}")
	for _, id := range []string{"a", "b"} {
		if _, err := p.start(id).Inject(mockhead.Fault{Kind: mockhead.StallHeaders, Seconds: 0.005}); err != nil {
			t.Fatal(err)
		}
	}
	hedged := 0
	for range 200 {
		a := p.answer(chatPath, chatBody)
		if a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		if a.Header.Get("X-Headway-Attempts") == "2" {
			hedged++
		}
	}
	p.settled()
	if hedged < 1 || hedged > 5 {
		t.Errorf("%d of 200 requests were hedged, want at most 2 %% and one", hedged)
	}
	refused := 0
	for _, d := range p.records("limit=1000") {
		if d.Outcome.HedgeRefused {
			refused++
		}
	}
	if n, _ := p.sample("headway_proxy_hedges_refused_total"); n == 0 || refused != n {
		t.Errorf("%d decisions say that a hedge was refused, and %d were", refused, n)
	}
}

// A caller that leaves ends both.
func TestACallerThatLeavesEndsAHedgeToo(t *testing.T) {
	p := newPlane(t)
	p.policy(hedgingPolicy)
	heads := []*mockhead.Head{p.start("a"), p.start("b")}
	for _, h := range heads {
		if _, err := h.Inject(mockhead.Fault{Kind: mockhead.StallHeaders}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, leave := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		res, err := p.ask(ctx, chatPath, streamBody)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		asked <- err
	}()
	p.eventually("both heads have the request", func() bool { return heads[0].Count() > 0 && heads[1].Count() > 0 })
	leave()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller saw %v", err)
	}
	p.settled()
	for _, d := range p.router.Recent(routing.RecentQuery{Limit: 2}) {
		if o, _ := d.Outcome(); o.Result != routing.ResultCancelled {
			t.Errorf("the outcome at %s is %+v", d.Head.ID, o)
		}
	}
}

// The key of the second head stays with us as that of the first does.
func TestTheKeyOfAHedgesHeadReachesNoCaller(t *testing.T) {
	keys := map[string]string{}
	p := newPlane(t, func(o *proxy.Options) { o.HeadKey = func(endpoint string) string { return keys[endpoint] } })
	p.policy(hedgingPolicy + "\ncaller_may: [region]")
	first := p.start("first")
	if _, err := first.Inject(mockhead.Fault{Kind: mockhead.StallHeaders}); err != nil {
		t.Fatal(err)
	}
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":{"message":"bad `+r.Header.Get("Authorization")+`"}}`)
	}))
	t.Cleanup(echo.Close)
	p.serves(fleet.Spec{ID: "second", Endpoint: echo.URL, ModelTypes: []string{"m"}, Region: "eu"})
	keys[first.URL()], keys[echo.URL] = "the-key-of-the-first-head", "the-key-of-the-second-head"
	a := p.answer(chatPath, chatBody, "X-Headway-Region", "us")
	if a.StatusCode != http.StatusBadRequest || a.Header.Get("X-Headway-Head") != "second" || !bytes.Contains(a.body, []byte("bad Bearer")) {
		t.Fatalf("%d from %s: %s", a.StatusCode, a.Header.Get("X-Headway-Head"), a.body)
	}
	if bytes.Contains(a.body, []byte("the-key-of")) || strings.Contains(fmt.Sprint(a.Header), "the-key-of") {
		t.Errorf("the key reached the caller: %v\n%s", a.Header, a.body)
	}
	p.settled()
}

// A hedge that no head answered has failed, in either order, and neither head is
// tried again.
func TestAHedgeThatBothHeadsFail(t *testing.T) {
	for _, first := range []time.Duration{10 * time.Second, 30 * time.Second} {
		onFakeTime(t, func(t *testing.T, p *plane) {
			p.policy("default_strategy: least_loaded\nhedge: {after_ms: 5000}")
			p.script("1", func(w http.ResponseWriter, r *http.Request) {
				wait(r, first)
				w.WriteHeader(http.StatusInternalServerError)
			})
			p.script("2", func(w http.ResponseWriter, r *http.Request) {
				wait(r, 15*time.Second)
				w.WriteHeader(http.StatusInternalServerError)
			})
			a := p.answer(chatPath, chatBody)
			if a.StatusCode != http.StatusInternalServerError || a.Header.Get("X-Headway-Attempts") != "2" {
				t.Errorf("%d after %s attempts: %s", a.StatusCode, a.Header.Get("X-Headway-Attempts"), a.body)
			}
			for result, want := range map[string]int{"won": 0, "lost": 0, "failed": 1} {
				if n, _ := p.sample("headway_proxy_hedges_total", "result", result); n != want {
					t.Errorf("%d hedges %s", n, result)
				}
			}
			p.settled()
		})
	}
}

// Where both heads of a hedge fail, in either order, the decision of the third names both
// with what was wrong and for how long each was asked, and no head is asked twice.
func TestARetryAfterAHedgeNamesBothHeads(t *testing.T) {
	for _, c := range []struct {
		first time.Duration // until the first head fails; the second does 15 s after it was asked
		want  string
	}{
		{10 * time.Second, "; before that %[2]s: error 503 after 15 s; beside %[1]s: error 500 after 10 s"},
		{30 * time.Second, "; before that %[2]s: error 503 after 15 s; beside %[1]s: error 500 after 30 s"},
	} {
		onFakeTime(t, func(t *testing.T, p *plane) {
			p.policy("default_strategy: least_loaded\nhedge: {after_ms: 5000}")
			var mu sync.Mutex
			var asked []string
			for _, id := range []string{"1", "2", "3", "4"} {
				p.script(id, func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					asked = append(asked, "head-"+id)
					turn := len(asked)
					mu.Unlock()
					switch turn {
					case 1:
						wait(r, c.first)
						w.WriteHeader(http.StatusInternalServerError)
					case 2:
						wait(r, 15*time.Second)
						w.WriteHeader(http.StatusServiceUnavailable)
					default:
						w.Header().Set("Content-Type", "application/json")
						_, _ = io.WriteString(w, gateAnswer)
					}
				})
			}
			a := p.answer(chatPath, chatBody, "X-Request-Id", "one")
			p.settled()
			if a.StatusCode != http.StatusOK || a.Header.Get("X-Headway-Attempts") != "3" || len(asked) != 3 || a.Header.Get("X-Headway-Head") != asked[2] {
				t.Fatalf("%d after %s attempts, at %v: %s", a.StatusCode, a.Header.Get("X-Headway-Attempts"), asked, a.body)
			}
			d := p.record(a.Header)
			if want := fmt.Sprintf(c.want, asked[0], asked[1]); !strings.HasSuffix(d.Reason, want) || d.Head.ID != asked[2] || d.Outcome.Result != "ok" {
				t.Errorf("%s, %s: %s\nwant %s", d.Head.ID, d.Outcome.Result, d.Reason, want)
			}
			list := p.records("request_id=one")
			if len(list) != 2 || list[0].DecisionID != d.DecisionID || list[1].Head.ID != asked[0] || list[1].Outcome.Result != "error" {
				t.Errorf("by the request's id: %+v", list)
			}
		})
	}
}

// bothAsked has two heads take a request, the second one as a hedge after 5 s.
func (p *plane) bothAsked(first, second func(w http.ResponseWriter, r *http.Request, id string)) {
	p.Helper()
	p.policy("default_strategy: least_loaded\nhedge: {after_ms: 5000}")
	asked := new(atomic.Int32)
	for _, id := range []string{"1", "2"} {
		p.script(id, func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) == 1 {
				first(w, r, id)
			} else {
				second(w, r, id)
			}
		})
	}
}

// Once the first head has failed, the answer is the second one's, also where it begins
// with a comment.
func TestACommentOfAHedgeNamesItsHead(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		p.bothAsked(func(w http.ResponseWriter, r *http.Request, _ string) {
			wait(r, 10*time.Second)
			w.WriteHeader(http.StatusInternalServerError)
		}, func(w http.ResponseWriter, r *http.Request, id string) {
			wait(r, time.Minute)
			w.Header().Set("X-Answers", id)
			say(w, "data: {\"choices\":[{\"delta\":{\"content\":\""+id+"\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
		})
		a := p.answer(chatPath, streamBody)
		head := a.Header.Get("X-Headway-Head")
		if !bytes.HasPrefix(a.body, []byte(comment)) || head == "" || !bytes.Contains(a.body, []byte(`"content":"`+strings.TrimPrefix(head, "head-")+`"`)) || a.Header.Get("X-Headway-Attempts") != "2" {
			t.Errorf("%d from %s after %s attempts:\n%s", a.StatusCode, head, a.Header.Get("X-Headway-Attempts"), a.body)
		}
		if d := p.decisionOf(a.Header); !d.Hedges() {
			t.Errorf("the decision is %+v", d)
		}
	})
}

// Comments are no content: a head that sends many of them has not won.
func TestCommentsWinNoHedge(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		p.bothAsked(func(w http.ResponseWriter, r *http.Request, _ string) {
			for range 300 {
				say(w, ": \n\n")
				wait(r, 100*time.Millisecond)
			}
			say(w, tokenEvent+"data: [DONE]\n\n")
		}, func(w http.ResponseWriter, r *http.Request, _ string) {
			wait(r, 5*time.Second)
			say(w, tokenEvent+"data: [DONE]\n\n")
		})
		begin := time.Now()
		a := p.answer(chatPath, streamBody)
		if took := time.Since(begin); took > 11*time.Second || a.Header.Get("X-Headway-Attempts") != "2" {
			t.Errorf("after %s attempts and %s: %s", a.Header.Get("X-Headway-Attempts"), took, a.body)
		}
		p.settled()
	})
}

// The second head of a hedge that breaks off is to blame, however slowly the caller takes
// the comments that the first one's attempt writes meanwhile.
func TestAHedgeThatBreaksOffIsBlamedBesideASlowCaller(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		p := newMemoryPlane(t, versions(t)[0])
		p.bothAsked(func(w http.ResponseWriter, r *http.Request, _ string) {
			wait(r, time.Minute)
			say(w, roleEvent+tokenEvent+"data: [DONE]\n\n")
		}, func(_ http.ResponseWriter, r *http.Request, _ string) {
			wait(r, 15*time.Second)
			panic(http.ErrAbortHandler)
		})
		c, err := p.network.dial(t.Context(), "", "localhost:8080")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: one\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", chatPath, len(streamBody), streamBody); err != nil {
			t.Fatal(err)
		}
		<-time.After(18 * time.Second) // a comment waits to be taken since 14 s
		answer, err := io.ReadAll(c)
		if err != nil || !bytes.Contains(answer, []byte("[DONE]")) {
			t.Fatalf("%v: %s", err, answer)
		}
		p.settled()
		list := p.records("request_id=one")
		if len(list) != 2 || list[0].Outcome.Result != "error" || *list[0].Outcome.StatusCode != http.StatusBadGateway || list[1].Outcome.Result != "ok" {
			t.Errorf("%+v", list)
		}
	})
}

// While requests wait for the model none is hedged: a hedge would take a place before
// them.
func TestAHedgePassesNoRequestThatWaits(t *testing.T) {
	p, _ := queues(t)
	p.policy(hedgingPolicy + "\ncaller_may: [region, region_mode]")
	full := newGate(t)
	p.serves(fleet.Spec{ID: "full", Endpoint: full.URL, ModelTypes: []string{"m"}, Region: "eu", MaxInFlight: 1})
	for _, id := range []string{"a", "b"} {
		if _, err := p.start(id).Inject(mockhead.Fault{Kind: mockhead.StallHeaders, Seconds: 0.1}); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	eu := []string{"X-Headway-Region", "eu", "X-Headway-Region-Mode", "require"}
	first := p.begin(t.Context(), &all, eu...)
	<-full.arrived
	second := p.begin(t.Context(), &all, eu...)
	p.waiting(1)
	for range 3 {
		slow := p.begin(t.Context(), &all, "X-Headway-Region", "us")
		if a := <-slow; a.StatusCode != http.StatusOK || a.Header.Get("X-Headway-Attempts") != "1" {
			t.Errorf("%d after %s attempts while a request waits", a.StatusCode, a.Header.Get("X-Headway-Attempts"))
		}
	}
	for _, answers := range []<-chan planeAnswer{first, second} {
		full.release <- struct{}{}
		<-answers
	}
	p.hedged(chatBody, "X-Headway-Region", "us")
	p.settled()
}

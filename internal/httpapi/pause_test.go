package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headway/internal/admission"
	"headway/internal/fleet"
	"headway/internal/proxy"
	"headway/internal/routing"
)

// tired is a head of one place that answers each request, once the test lets it, with
// a status and a Retry-After.
type tired struct {
	*gate
	status int
	again  string
}

func newTired(t testing.TB, status int, again string) *tired {
	t.Helper()
	h := &tired{gate: &gate{arrived: make(chan string, 100), release: make(chan struct{}, 100)}, status: status, again: again}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		h.arrived <- r.Header.Get("X-Test")
		select {
		case <-h.release:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if h.again != "" {
			w.Header().Set("Retry-After", h.again)
		}
		w.WriteHeader(h.status)
		_, _ = io.WriteString(w, `{"error":{"message":"tired","type":"x","code":null}}`)
	}))
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
	})
	return h
}

// queues is a data plane where ten may wait for a model, with what wakes them.
func queues(t *testing.T, change ...func(*proxy.Options)) (*plane, *admission.Admission) {
	t.Helper()
	var a *admission.Admission
	p := newPlane(t, append([]func(*proxy.Options){func(o *proxy.Options) {
		var err error
		if a, err = admission.New(admission.Options{Metrics: o.Metrics, MaxWaiting: 10, MaxWait: time.Minute}); err != nil {
			t.Fatal(err)
		}
		o.Admission = a
	}}, change...)...)
	p.freed = func(*fleet.Head) { a.Changed() }
	return p, a
}

// A head that asks for a pause is no candidate for those who wait for the others: they
// wait on, its own request too, and no decision is made for them meanwhile.
func TestPitfallP24APauseOfOneHeadEndsNoWait(t *testing.T) {
	p, a := queues(t)
	busy := newGate(t)
	p.narrow("busy", busy.URL, 1)
	var all sync.WaitGroup
	defer all.Wait()
	answers := []<-chan planeAnswer{p.begin(t.Context(), &all)}
	<-busy.arrived
	full := newTired(t, 429, "3600")
	p.narrow("full", full.URL, 1)
	answers = append(answers, p.begin(t.Context(), &all))
	<-full.arrived
	for range 4 {
		answers = append(answers, p.begin(t.Context(), &all))
	}
	p.waiting(4)
	full.release <- struct{}{}
	p.waiting(5) // the refused request too
	made := p.router.Newest()
	for range 20 {
		a.Changed()
	}
	p.eventually("they have looked", func() bool { n, _ := p.sample("headway_admission_misses_total"); return n > 0 })
	if n := p.router.Newest(); n != made {
		t.Errorf("%d decisions were made for those who wait", n-made)
	}
	for range answers {
		busy.release <- struct{}{}
	}
	for i, of := range answers {
		if a := <-of; a.err != nil || a.StatusCode != http.StatusOK {
			t.Errorf("request %d: %v %s", i, a.err, a.body)
		}
	}
	p.settled()
	if len(full.arrived) > 0 {
		t.Error("the head was called again")
	}
	if n, _ := p.sample("headway_decision_failures_total"); n != 0 {
		t.Errorf("%d decisions failed", n)
	}
}

// A request that finds one head in a pause and the other busy waits.
func TestPitfallP24ABusyHeadIsWaitedForWhileOthersPause(t *testing.T) {
	p, _ := queues(t)
	busy := newGate(t)
	p.narrow("busy", busy.URL, 1)
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-busy.arrived
	p.registered("away", "http://192.0.2.1:1")
	p.away("away", time.Hour)
	second := p.begin(t.Context(), &all)
	p.waiting(1)
	for _, answers := range []<-chan planeAnswer{first, second} {
		busy.release <- struct{}{}
		if a := <-answers; a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}
}

// away has a head of the model m ask for a pause.
func (p *plane) away(id string, pause time.Duration) {
	p.Helper()
	for _, h := range p.fleet.Snapshot().Pools["m"].All.Heads {
		if h.ID == id {
			h.Live.StayAway(time.Now().Add(pause))
			return
		}
	}
	p.Fatalf("there is no head %s", id)
}

// Where all are in a pause, requests are refused with 429, those that wait too if the
// pause is longer than their time. They are decisions that failed.
func TestPitfallP24AllHeadsPause(t *testing.T) {
	p, a := queues(t)
	busy := newGate(t)
	p.narrow("busy", busy.URL, 1)
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-busy.arrived
	waits := p.begin(t.Context(), &all)
	p.waiting(1)
	p.away("busy", time.Hour)
	a.Changed()
	made := p.router.Newest()
	for _, of := range []planeAnswer{<-waits, p.answer(chatPath, chatBody)} {
		wait, _ := strconv.Atoi(of.Header.Get("Retry-After"))
		if of.StatusCode != http.StatusTooManyRequests || !bytes.Contains(of.body, []byte("heads_rate_limited")) || wait < 3000 || of.Header.Get("X-Headway-Attempts") != "0" {
			t.Errorf("%d, Retry-After %q: %s", of.StatusCode, of.Header.Get("Retry-After"), of.body)
		}
		if d := p.decisionOf(of.Header); d.Failure != routing.FailPaused {
			t.Errorf("the decision failed by %q", d.Failure)
		}
	}
	if n := p.router.Newest(); n != made {
		t.Errorf("%d decisions were made", n-made)
	}
	busy.release <- struct{}{}
	<-first
}

// A short pause is waited for.
func TestAPauseWithinTheWaitIsWaitedFor(t *testing.T) {
	p, a := queues(t)
	busy := newGate(t)
	p.narrow("busy", busy.URL, 1)
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-busy.arrived
	waits := p.begin(t.Context(), &all)
	p.waiting(1)
	p.away("busy", 200*time.Millisecond)
	busy.release <- struct{}{}
	<-first
	busy.release <- struct{}{}
	for {
		select {
		case a := <-waits:
			if a.StatusCode != http.StatusOK {
				t.Errorf("%d %s", a.StatusCode, a.body)
			}
			return
		case <-time.After(5 * time.Millisecond):
			a.Changed()
		}
	}
}

// Retry-After is that of the heads that the request may go to.
func TestPitfallP24TheLeastPauseIsThatOfTheRequestsRegion(t *testing.T) {
	p := newPlane(t)
	for region, pause := range map[string]time.Duration{"us": 200 * time.Second, "eu": 100 * time.Second} {
		p.serves(fleet.Spec{ID: region, Endpoint: "http://192.0.2.1:1", ModelTypes: []string{"m"}, Region: region})
		p.away(region, pause)
	}
	refusing := newTired(t, 429, "250")
	refusing.release <- struct{}{}
	for i, want := range []int{200, 200, 100} {
		header := []string{"X-Headway-Region", "us", "X-Headway-Region-Mode", "require"}
		if i == 2 {
			header = header[:2]
		}
		if i == 1 { // the refusal of a head is answered likewise
			p.serves(fleet.Spec{ID: "us2", Endpoint: refusing.URL, ModelTypes: []string{"m"}, Region: "us"})
		}
		a := p.answer(chatPath, chatBody, header...)
		if wait, _ := strconv.Atoi(a.Header.Get("Retry-After")); a.StatusCode != http.StatusTooManyRequests || wait < want-20 || wait > want+4 {
			t.Errorf("request %d: %d, Retry-After %q, want %d", i, a.StatusCode, a.Header.Get("Retry-After"), want)
		}
	}
}

// What a head answered is passed on where all others are in a pause: it is no word of
// ours.
func TestTheLastAnswerIsPassedOnWhereOthersPause(t *testing.T) {
	p, _ := queues(t)
	p.registered("away", "http://192.0.2.1:1")
	p.away("away", time.Hour)
	broken := newTired(t, 500, "")
	broken.release <- struct{}{}
	p.registered("broken", broken.URL)
	a := p.answer(chatPath, chatBody)
	if a.StatusCode != http.StatusInternalServerError || !bytes.Contains(a.body, []byte("tired")) || a.Header.Get("X-Headway-Attempts") != "1" {
		t.Errorf("%d after %s attempts: %s", a.StatusCode, a.Header.Get("X-Headway-Attempts"), a.body)
	}
}

// A request whose head failed waits for a place at another, in the queue, and keeps
// its decision's id. Where none comes free in the time for retries, the last answer is
// passed on.
func TestARetryWaitsForAPlace(t *testing.T) {
	for _, in := range []time.Duration{0, 50 * time.Millisecond} {
		p, _ := queues(t, func(o *proxy.Options) { o.Limits.RetryTime = in })
		busy, broken := newGate(t), newTired(t, 500, "")
		p.narrow("busy", busy.URL, 1)
		var all sync.WaitGroup
		first := p.begin(t.Context(), &all)
		<-busy.arrived
		p.registered("broken", broken.URL)
		second := p.begin(t.Context(), &all)
		<-broken.arrived
		broken.release <- struct{}{}
		if in > 0 {
			if a := <-second; a.StatusCode != http.StatusInternalServerError || !bytes.Contains(a.body, []byte("tired")) {
				t.Errorf("%d %s", a.StatusCode, a.body)
			}
		} else {
			p.waiting(1)
		}
		busy.release <- struct{}{}
		<-first
		busy.release <- struct{}{}
		if in == 0 {
			a := <-second
			if a.StatusCode != http.StatusOK || a.Header.Get("X-Headway-Attempts") != "2" || a.Header.Get("X-Headway-Head") != "busy" {
				t.Fatalf("%d %s: %v", a.StatusCode, a.body, a.Header)
			}
			if d := p.decisionOf(a.Header); d.Before() == nil || d.Before().Head.ID != "broken" || d.ID() != d.Before().ID() {
				t.Errorf("the decision is %+v", d)
			}
		}
		all.Wait()
		p.settled()
		p.waiting(0)
	}
}

// A client that leaves while its retry waits leaves the queue.
func TestAWaitingRetryThatLeaves(t *testing.T) {
	p, _ := queues(t)
	busy, broken := newGate(t), newTired(t, 500, "")
	p.narrow("busy", busy.URL, 1)
	var all sync.WaitGroup
	defer all.Wait()
	p.begin(t.Context(), &all)
	<-busy.arrived
	p.registered("broken", broken.URL)
	ctx, leave := context.WithCancel(t.Context())
	gone := p.begin(ctx, &all)
	<-broken.arrived
	broken.release <- struct{}{}
	p.waiting(1)
	leave()
	<-gone
	p.waiting(0)
	busy.release <- struct{}{}
	p.settled()
	if n, _ := p.sample("headway_proxy_retries_total"); n != 0 {
		t.Errorf("%d retries are counted", n)
	}
}

// A stream gets its comments while its retry waits for a place.
func TestPitfallP6SilenceIsFilledWhileARetryWaits(t *testing.T) {
	p, _ := queues(t, func(o *proxy.Options) { o.Limits.Comment = 20 * time.Millisecond })
	busy, broken := newGate(t), newTired(t, 500, "")
	p.narrow("busy", busy.URL, 1)
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-busy.arrived
	p.registered("broken", broken.URL)
	broken.release <- struct{}{}
	res, err := p.ask(t.Context(), chatPath, streamBody) // it returns with the first comment
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	p.waiting(1)
	some := make([]byte, 5*len(comment))
	if _, err := io.ReadFull(res.Body, some); err != nil || string(some) != strings.Repeat(comment, 5) {
		t.Errorf("%v: %s", err, some)
	}
	for range 2 {
		busy.release <- struct{}{}
	}
	rest, err := io.ReadAll(res.Body) // the gate speaks no stream
	if err == nil || !bytes.Contains(rest, []byte("head_malformed")) {
		t.Errorf("%v: %s", err, rest)
	}
	<-first
}

// A fallback that only lacks a place is waited for, where the model itself has no
// head.
func TestAFullFallbackIsWaitedFor(t *testing.T) {
	p, _ := queues(t)
	p.apply(`{"default_strategy":"random","fallbacks":[{"match":{"model_type":"m"},"to":[{"model_type":"n"}]}]}`)
	other := newGate(t)
	p.narrow("other", other.URL, 1, "n")
	var all sync.WaitGroup
	defer all.Wait()
	first := p.begin(t.Context(), &all)
	<-other.arrived
	second := p.begin(t.Context(), &all)
	p.waiting(1)
	for _, answers := range []<-chan planeAnswer{first, second} {
		other.release <- struct{}{}
		if a := <-answers; a.StatusCode != http.StatusOK || !strings.HasPrefix(a.Header.Get("X-Headway-Fallback"), "n;") {
			t.Errorf("%d %s: %v", a.StatusCode, a.body, a.Header)
		}
	}
}

// Requests that wait while heads ask for pauses now and then are all answered.
func TestPausesUnderLoadLoseNoRequest(t *testing.T) {
	p, a := queues(t)
	var calls atomic.Int64
	for i := range 3 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			if i > 0 && calls.Add(1)%5 == 0 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = io.WriteString(w, `{"error":{"message":"full","type":"x","code":null}}`)
				return
			}
			_, _ = io.WriteString(w, gateAnswer)
		}))
		t.Cleanup(s.Close)
		p.narrow(fmt.Sprint("h", i), s.URL, 1)
	}
	ctx, stop := context.WithCancel(t.Context())
	var all, ticks sync.WaitGroup
	ticks.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			a.Changed()
		}
	})
	lost := atomic.Int64{}
	for range 8 {
		all.Go(func() {
			for range 30 {
				if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK {
					lost.Add(1)
					t.Logf("%d %s", a.StatusCode, a.body)
				}
			}
		})
	}
	all.Wait()
	stop()
	ticks.Wait()
	if n := lost.Load(); n > 0 {
		t.Errorf("%d of 240 requests were lost", n)
	}
	p.settled()
}

package httpapi_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/admission"
	"headway/internal/fleet"
	"headway/internal/mockhead"
	"headway/internal/proxy"
)

var soak = flag.Duration("soak", 0, "a fifth of the time that the chaos lasts; make soak sets it")

// Heads are killed, stalled and reset at random under load, and callers leave. Two
// heads stay sound, so that every request can be served: none is lost before its
// first content, none is answered by two heads, no stream that broke looks whole,
// and nothing is left at the end.
func TestChaosLosesNoRequest(t *testing.T) { newChaos(t).run(2 * time.Second) }

func TestSoakChaosLosesNoRequest(t *testing.T) {
	if *soak == 0 {
		t.Skip("TestChaosLosesNoRequest is its short form")
	}
	newChaos(t).run(5 * *soak)
}

// With the product's own retry budget (a fifth of the requests, ten at once) and three
// attempts none is lost either, as long as one head goes wrong at a time: a fault of
// three requests costs three retries, and a head that is killed five, until it is
// ejected, and one for each of the other callers, four here. Before the next fault a
// hundred requests are answered, which give twenty.
func TestChaosWithTheDefaultsLosesNoRequest(t *testing.T) {
	newChaosOf(t, 4).run(2 * time.Second)
}

func TestSoakChaosWithTheDefaultsLosesNoRequest(t *testing.T) {
	if *soak == 0 {
		t.Skip("TestChaosWithTheDefaultsLosesNoRequest is its short form")
	}
	newChaosOf(t, 4).run(5 * *soak)
}

// The same with all that changes the way of a request: callers with keys, weights and
// limits, a queue, hedges, and checks of health. Each head has one place, so that no
// more than one request is lost with a head beside the five.
func TestChaosWithEverythingOnLosesNoRequest(t *testing.T) {
	newChaosWithEverything(t).run(2 * time.Second)
}

func TestSoakChaosWithEverythingOnLosesNoRequest(t *testing.T) {
	if *soak == 0 {
		t.Skip("TestChaosWithEverythingOnLosesNoRequest is its short form")
	}
	newChaosWithEverything(t).run(5 * *soak)
}

type chaos struct {
	*plane
	seed    uint64
	callers int
	heads   []*mockhead.Head // that go wrong
	keys    []string         // of callers; none: they have no credential
	places  int64            // of a head, 0: no limit
	inTurn  bool             // heads go wrong one at a time

	served, cut, left atomic.Int64
}

func newChaos(t *testing.T) *chaos {
	c := &chaos{seed: rand.Uint64(), callers: 24}
	c.plane = newPlane(t, func(o *proxy.Options) {
		o.Limits.RetryShare, o.Limits.MaxAttempts = 1, 10 // the budget has a test of its own
	})
	return c.populate()
}

func newChaosOf(t *testing.T, callers int, change ...func(*proxy.Options)) *chaos {
	c := &chaos{seed: rand.Uint64(), callers: callers, inTurn: true}
	c.plane = newPlane(t, change...)
	return c.populate()
}

func newChaosWithEverything(t *testing.T) *chaos {
	var a *admission.Admission
	c := &chaos{seed: rand.Uint64(), callers: 12, inTurn: true, places: 1}
	c.plane = newPlane(t, checking(t), func(o *proxy.Options) {
		var err error
		if a, err = admission.New(admission.Options{Metrics: o.Metrics, MaxWaiting: 1000, MaxWait: time.Minute}); err != nil {
			t.Fatal(err)
		}
		o.Admission = a
	})
	c.freed = func(h *fleet.Head) { a.Freed(h.ModelTypes...) }
	c.policy("default_strategy: least_loaded\ncaller_may: [priority]\nhedge: {after_ms: 20}")
	by := c.admin()
	c.key(by, access.Request{Name: "first", Role: string(access.RoleAdmin)})
	for i := range 3 {
		weight, requests, tokens := int64(i+1), int64(1_000_000), int64(1_000_000_000)
		c.keys = append(c.keys, c.key(by, access.Request{
			Name: fmt.Sprint("caller ", i), Role: string(access.RoleClient),
			Limits: access.Limits{Weight: weight, RequestsPerMinute: requests, TokensPerMinute: tokens},
		}))
	}
	return c.populate()
}

// populate starts the heads.
func (c *chaos) populate() *chaos {
	c.heads = make([]*mockhead.Head, 5)
	for i := range 2 + len(c.heads) {
		h, err := mockhead.Start(c.Context(), mockhead.Options{Models: []string{"m"}, Speed: 1000})
		if err != nil {
			c.Fatal(err)
		}
		id := fmt.Sprint("odd-", i-2)
		if i < 2 {
			id = fmt.Sprint("sound-", i)
			c.Cleanup(h.Close)
		} else {
			c.heads[i-2] = h
		}
		c.narrow(id, h.URL(), c.places)
	}
	return c
}

func (c *chaos) run(d time.Duration) {
	c.Helper()
	ctx, stop := context.WithCancel(c.Context())
	defer stop()
	var working sync.WaitGroup
	if c.inTurn {
		working.Go(func() { c.tormentInTurn(ctx) })
	} else {
		for i := range c.heads {
			working.Go(func() { c.torment(ctx, i) })
		}
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Minute}
	for i := range uint64(c.callers) {
		working.Go(func() {
			r := rand.New(rand.NewPCG(c.seed, i))
			for ctx.Err() == nil {
				c.request(client, r)
			}
		})
	}
	<-time.After(d / 4)
	early := heap()
	<-time.After(d - d/4)
	// On a machine that is busy little happens in that time.
	for end := time.Now().Add(time.Minute); c.missing() != "" && time.Now().Before(end); <-time.After(10 * time.Millisecond) {
	}
	stop()
	working.Wait()
	transport.CloseIdleConnections()
	c.settled()
	for _, h := range c.fleet.Snapshot().Sorted() {
		if n, tokens := h.Live.InFlight(), h.Live.Tokens(); n != 0 || tokens != 0 {
			c.Errorf("%s has %d requests and %d tokens in flight", h.ID, n, tokens)
		}
	}
	if late := heap(); late > early+(32<<20) {
		c.Errorf("the heap grew from %d to %d bytes", early, late)
	}
	if what := c.missing(); what != "" {
		c.Errorf("the chaos was none: %s", what)
	}
	c.Logf("seed %d: %d requests were served, %d cut after their first content, %d callers left", c.seed, c.served.Load(), c.cut.Load(), c.left.Load())
}

// missing says what has not happened yet that has to for the chaos to prove anything; "":
// all has.
func (c *chaos) missing() string {
	page := c.scrape()
	counted := func(name string) bool { // is not 0
		return strings.Contains(page, "\n"+name+" ") && !strings.Contains(page, "\n"+name+" 0\n")
	}
	switch {
	case c.served.Load() == 0:
		return "no request was served"
	case c.cut.Load() == 0 && !c.inTurn:
		return "none was cut after its first content"
	case c.left.Load() == 0:
		return "no caller left"
	case !counted("headway_proxy_retries_total"):
		return "no request was tried again"
	case c.places > 0 && !counted(`headway_admission_wait_seconds_count{priority="normal"}`):
		return "none waited for a place"
	}
	return ""
}

// heap is what is in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// torment makes a head go wrong in one way after the other, until the end; then it
// is closed.
func (c *chaos) torment(ctx context.Context, i int) {
	r := rand.New(rand.NewPCG(c.seed, uint64(1000+i)))
	pause := func(most time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(r.Int64N(int64(most)))):
		}
	}
	defer func() { c.heads[i].Close() }()
	for ; ctx.Err() == nil; pause(100 * time.Millisecond) {
		if r.IntN(8) == 0 {
			c.restart(i, func() { pause(200 * time.Millisecond) })
			continue
		}
		if _, err := c.heads[i].Inject(anyFault(r)); err != nil {
			c.Error(err)
			return
		}
		pause(200 * time.Millisecond)
		c.heads[i].Heal()
	}
}

// tormentInTurn makes one head after the other go wrong. The next does when the
// budget of retries is full again and, for one that is killed, when an ejection has
// room.
func (c *chaos) tormentInTurn(ctx context.Context) {
	r := rand.New(rand.NewPCG(c.seed, 1000))
	wait := func(ok func() bool, most time.Duration) {
		for end := time.Now().Add(most); ctx.Err() == nil && !ok() && time.Now().Before(end); <-time.After(time.Millisecond) {
		}
	}
	c.Cleanup(func() {
		for _, h := range c.heads {
			h.Close()
		}
	})
	for ctx.Err() == nil {
		i := r.IntN(len(c.heads))
		if r.IntN(4) == 0 && c.fleet.Snapshot().Pools["m"].All.Routable() > len(c.heads) {
			c.restart(i, func() { wait(func() bool { return false }, 50*time.Millisecond) })
		} else {
			f := anyFault(r)
			f.Times = 3
			if _, err := c.heads[i].Inject(f); err != nil {
				c.Error(err)
				return
			}
			wait(func() bool { return false }, time.Duration(r.Int64N(int64(100*time.Millisecond))))
			c.heads[i].Heal()
		}
		before := c.served.Load()
		wait(func() bool { return c.served.Load() >= before+100 }, time.Hour)
	}
}

// anyFault is one of those that a head has.
func anyFault(r *rand.Rand) mockhead.Fault {
	after := r.IntN(6)
	return []mockhead.Fault{
		{Kind: mockhead.ResetAccept},
		{Kind: mockhead.ResetRequest},
		{Kind: mockhead.Reset, After: after},
		{Kind: mockhead.Cut, After: after},
		{Kind: mockhead.End, After: after},
		{Kind: mockhead.HalfClose, After: after},
		{Kind: mockhead.StallHeaders},
		{Kind: mockhead.Stall, After: after},
		{Kind: mockhead.StallInside, After: after},
		{Kind: mockhead.Garbage},
		{Kind: mockhead.Status, Status: 500},
		{Kind: mockhead.Status, Status: 503},
		{Kind: mockhead.Status, Status: 429, RetryAfter: "1"},
		{Kind: mockhead.ErrorEvent, After: after},
		{Kind: mockhead.ShortBody},
		{Kind: mockhead.IdleReset},
	}[r.IntN(16)]
}

// restart kills a head and starts another at its address.
func (c *chaos) restart(i int, between func()) {
	address := strings.TrimPrefix(c.heads[i].URL(), "http://")
	c.heads[i].Close()
	between()
	for {
		h, err := mockhead.Start(c.Context(), mockhead.Options{Models: []string{"m"}, Speed: 1000, Addr: address})
		if err == nil {
			c.heads[i] = h
			return
		}
		select {
		case <-c.Context().Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// request sends one request, and judges the answer.
func (c *chaos) request(client *http.Client, r *rand.Rand) {
	ctx, leave := context.WithCancel(c.Context())
	defer leave()
	leaves := r.IntN(6) == 0
	if leaves {
		defer time.AfterFunc(time.Duration(r.Int64N(int64(20*time.Millisecond))), leave).Stop()
	}
	body := chatBody
	stream := r.IntN(3) > 0
	if stream {
		body = streamBody
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+chatPath, strings.NewReader(body))
	if err != nil {
		c.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	if len(c.keys) > 0 {
		req.Header.Set("Authorization", "Bearer "+c.keys[r.IntN(len(c.keys))])
		req.Header.Set("X-Headway-Priority", []string{"high", "normal", "low"}[r.IntN(3)])
	}
	res, err := client.Do(req)
	var text []byte
	if err == nil {
		text, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	switch {
	case ctx.Err() != nil:
		c.left.Add(1)
	case res == nil:
		c.Errorf("no answer: %v", err)
	case !stream:
		c.judge(res, err == nil && wholeAnswer(text), text, err)
	case err == nil:
		c.judge(res, strings.HasSuffix(string(text), doneEvent) && strings.Count(string(text), `"role"`) == 1 && !strings.Contains(string(text), `"error"`), text, err)
	default: // it broke: after its first content, with a sign, and by one head
		c.cut.Add(1)
		if s := string(text); strings.Contains(s, "[DONE]") || strings.Count(s, `"role"`) != 1 || !strings.Contains(s, `"content":"`) || strings.Count(s, `"content":"`) < 2 {
			c.Errorf("a stream was lost before its first content, or looks whole, or has two beginnings: %v\n%s", err, text)
		}
	}
}

func (c *chaos) judge(res *http.Response, ok bool, text []byte, err error) {
	if c.served.Add(1); res.StatusCode != http.StatusOK || !ok {
		why := ""
		if d, err := c.router.Decision(res.Header.Get("X-Headway-Decision-Id")); err == nil {
			why = string(d.AppendReason(nil))
		}
		c.Errorf("lost: %d %v, attempts %s (%s)\n%s", res.StatusCode, err, res.Header.Get("X-Headway-Attempts"), why, text)
	}
}

func wholeAnswer(text []byte) bool {
	var v struct {
		Usage struct {
			Completion int `json:"completion_tokens"`
		}
	}
	return json.Unmarshal(text, &v) == nil && v.Usage.Completion > 0
}

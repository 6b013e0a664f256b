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

type chaos struct {
	*plane
	seed  uint64
	heads []*mockhead.Head // that go wrong

	served, cut, left atomic.Int64
}

func newChaos(t *testing.T) *chaos {
	c := &chaos{seed: rand.Uint64(), heads: make([]*mockhead.Head, 5)}
	c.plane = newPlane(t, func(o *proxy.Options) {
		o.Limits.RetryShare, o.Limits.MaxAttempts = 1, 10 // the budget has a test of its own
	})
	for _, id := range []string{"sound-1", "sound-2"} {
		c.start(id, func(o *mockhead.Options) { o.Record = 0 })
	}
	for i := range c.heads {
		h, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"m"}, Speed: 1000})
		if err != nil {
			t.Fatal(err)
		}
		c.heads[i] = h
		c.registered(fmt.Sprint("odd-", i), h.URL())
	}
	return c
}

func (c *chaos) run(d time.Duration) {
	c.Helper()
	ctx, stop := context.WithTimeout(c.Context(), d)
	defer stop()
	var working sync.WaitGroup
	for i := range c.heads {
		working.Go(func() { c.torment(ctx, i) })
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Minute}
	for i := range uint64(24) {
		working.Go(func() {
			r := rand.New(rand.NewPCG(c.seed, i))
			for ctx.Err() == nil {
				c.request(client, r)
			}
		})
	}
	var early uint64
	select {
	case <-ctx.Done():
	case <-time.After(d / 4):
		early = heap()
	}
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
	if c.served.Load() == 0 || c.cut.Load() == 0 || c.left.Load() == 0 {
		c.Errorf("the chaos was none: %d requests were served, %d cut, %d callers left", c.served.Load(), c.cut.Load(), c.left.Load())
	}
	c.Logf("seed %d: %d requests were served, %d cut after their first content, %d callers left", c.seed, c.served.Load(), c.cut.Load(), c.left.Load())
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
		after := r.IntN(6)
		f := []mockhead.Fault{
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
		if _, err := c.heads[i].Inject(f); err != nil {
			c.Error(err)
			return
		}
		pause(200 * time.Millisecond)
		c.heads[i].Heal()
	}
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
		c.Errorf("lost: %d %v, attempts %s\n%s", res.StatusCode, err, res.Header.Get("X-Headway-Attempts"), text)
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

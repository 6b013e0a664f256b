package httpapi_test

import (
	"bytes"
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

	"headway/internal/mockhead"
	"headway/internal/proxy"
	"headway/internal/routing"
)

// askedHeads counts the requests of each head.
type askedHeads struct {
	mu sync.Mutex
	n  map[string]int
}

func (a *askedHeads) add(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n == nil {
		a.n = map[string]int{}
	}
	a.n[id]++
}

func (a *askedHeads) most() (sum, most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.n {
		sum, most = sum+n, max(most, n)
	}
	return sum, most
}

// A request is sent again only where another head may do better: never for the
// caller's fault, never at the same head, never after the first content, and a
// bounded number of times. What the last head said is passed on.
func TestPitfallP13RetriesWhereTheyHelp(t *testing.T) {
	const fault = `{"error":{"message":"from the head","type":"t","code":%d}}`
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			fmt.Fprintf(w, fault, code)
		}
	}
	cut := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			say(w, text)
			panic(http.ErrAbortHandler)
		}
	}
	for name, c := range map[string]struct {
		head   http.HandlerFunc
		heads  int
		asked  int
		status int
		has    string
	}{
		"400":                     {status(400), 5, 1, 400, `"code":400`},
		"404":                     {status(404), 5, 1, 404, `"code":404`},
		"422":                     {status(422), 5, 1, 422, `"code":422`},
		"408":                     {status(408), 5, 1, 408, `"code":408`},
		"413":                     {status(413), 5, 1, 413, `"code":413`},
		"500":                     {status(500), 5, 3, 500, `"code":500`},
		"503":                     {status(503), 5, 3, 503, `"code":503`},
		"529":                     {status(529), 5, 3, 529, `"code":529`},
		"500 of the only one":     {status(500), 1, 1, 500, `"code":500`},
		"500 of two":              {status(500), 2, 2, 500, `"code":500`},
		"501":                     {status(501), 5, 1, 501, `"code":501`},
		"broken":                  {cut(""), 5, 3, 200, `"code":"head_end_of_stream"`},
		"broken before a token":   {cut(roleEvent), 5, 3, 200, `"code":"head_end_of_stream"`},
		"broken after a token":    {cut(roleEvent + tokenEvent), 5, 1, 200, `"code":"head_end_of_stream"`},
		"an error event":          {cut(`data: {"error":{"message":"no","code":1}}` + "\n\n"), 5, 3, 200, `"code":1`},
		"an error after a token":  {cut(tokenEvent + `data: {"error":{"message":"no","code":1}}` + "\n\n"), 5, 1, 200, `"code":1`},
		"the connection is reset": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 5, 3, 502, `"code":"head_end_of_stream"`},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			var asked askedHeads
			for n := range c.heads {
				id := fmt.Sprint(n)
				p.script(id, func(w http.ResponseWriter, r *http.Request) {
					asked.add(id)
					c.head(w, r)
				})
			}
			a := p.answer(chatPath, streamBody)
			if sum, most := asked.most(); sum != c.asked || most != 1 {
				t.Errorf("%d requests, at one head up to %d; want %d", sum, most, c.asked)
			}
			if a.StatusCode != c.status || !bytes.Contains(a.body, []byte(c.has)) || bytes.Contains(a.body, []byte("[DONE]")) || (a.err == nil) == (c.status == 200) {
				t.Errorf("%d %v\n%s", a.StatusCode, a.err, a.body)
			}
			p.settled()
		})
	}
}

// When all heads fail, further attempts are 20 % of the requests and ten more, and
// every caller has its answer.
func TestPitfallP14RetriesHaveABudget(t *testing.T) {
	const requests = 200
	p := newPlane(t)
	var asked atomic.Int32
	for n := range 8 {
		p.script(fmt.Sprint(n), func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":{"message":"overloaded"}}`)
		})
	}
	var answered sync.WaitGroup
	for range 10 {
		answered.Go(func() {
			for range requests / 10 {
				res, err := p.ask(t.Context(), chatPath, chatBody)
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
				if res.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("status %d", res.StatusCode)
				}
			}
		})
	}
	answered.Wait()
	if n := asked.Load(); n > requests*12/10+10 || n < requests*12/10 {
		t.Errorf("%d requests became %d at the heads", requests, n)
	}
	p.settled()
}

// An attempt that fails after the time for retries is the last.
func TestRetriesHaveADeadline(t *testing.T) {
	for after, want := range map[time.Duration]int32{29 * time.Minute: 2, 31 * time.Minute: 1} {
		t.Run(after.String(), func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				var asked atomic.Int32
				for _, id := range []string{"1", "2", "3"} {
					p.script(id, func(w http.ResponseWriter, r *http.Request) {
						asked.Add(1)
						for end := time.Now().Add(after); time.Now().Before(end) && r.Context().Err() == nil; wait(r, time.Minute) {
							say(w, ": waiting\n\n")
						}
						panic(http.ErrAbortHandler)
					})
				}
				if a := p.timed(chatPath, streamBody); errors.Is(a.err, io.EOF) || asked.Load() != want {
					t.Errorf("%d heads were asked, want %d; the end is %v", asked.Load(), want, a.err)
				}
			})
		})
	}
}

// The time for a request counts over all attempts.
func TestAllAttemptsShareOneTime(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		for _, id := range []string{"1", "2"} {
			p.script(id, func(w http.ResponseWriter, r *http.Request) {
				wait(r, 50*time.Second)
				if id == "1" || r.Context().Err() != nil {
					panic(http.ErrAbortHandler)
				}
				for r.Context().Err() == nil {
					say(w, tokenEvent)
					wait(r, time.Minute)
				}
			})
		}
		a := p.timed(chatPath, streamBody)
		if a.took < time.Hour || a.took > time.Hour+5*time.Second || errors.Is(a.err, io.EOF) {
			t.Errorf("it took %s: %v", a.took, a.err)
		}
	})
}

// A connection that the engine closes just when the next request is on its way costs
// no request: 200 of them, each on a connection that is reset as it arrives. A head
// that began to answer is not asked again.
func TestPitfallP15IdleConnectionsThatTheEngineClosed(t *testing.T) {
	t.Run("reset as the request arrives", func(t *testing.T) {
		p := newPlane(t)
		head := p.start("a", func(o *mockhead.Options) { o.Record = 1000 })
		i, err := head.Inject(mockhead.Fault{Kind: mockhead.IdleReset})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 200 {
			if a := p.answer(chatPath, chatBody); a.err != nil || a.StatusCode != http.StatusOK || a.Header.Get("X-Headway-Attempts") != "1" {
				t.Fatalf("request %d: %d %v %s", n, a.StatusCode, a.err, a.body)
			}
		}
		if head.Count() != 200 || i.Hits() < 150 {
			t.Errorf("the head worked on %d requests of 200; %d met the reset", head.Count(), i.Hits())
		}
	})
	t.Run("closed after 1 s, one request a second", func(t *testing.T) {
		fakeTime(t, func(t *testing.T) {
			p := newMemoryPlane(t, version{scheme: "http", client: func(*http.Transport) {}})
			head := p.mock("1", mockhead.Fault{Kind: mockhead.IdleClose, Seconds: 1})
			for n := range 200 {
				begin := time.Now()
				if a := p.timed(chatPath, chatBody); a.status != 200 || !errors.Is(a.err, io.EOF) {
					t.Fatalf("request %d: %d %v %s", n, a.status, a.err, a.text)
				}
				time.Sleep(time.Until(begin.Add(time.Second)))
			}
			if head.Count() != 200 {
				t.Errorf("the head worked on %d requests of 200", head.Count())
			}
		})
	})
	t.Run("broken within the answer", func(t *testing.T) {
		p := newPlane(t)
		var asked atomic.Int32
		p.script("a", func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1); asked.Load()%2 == 0 {
				w.Header().Set("Content-Length", "100")
				_, _ = io.WriteString(w, `{"choices":`)
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, `{}`)
		})
		for n := range 10 {
			a := p.answer(chatPath, chatBody)
			if want := map[bool]int{true: 200, false: 502}[n%2 == 0]; a.StatusCode != want || asked.Load() != int32(n+1) {
				t.Errorf("request %d: %d, the head was asked %d times", n, a.StatusCode, asked.Load())
			}
		}
	})
}

// A failure before a byte was sent takes no retry: it costs no head any work. So heads
// that are gone lose no request, however many of them are.
func TestRetriesOfWhatWasNotSentAreFree(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) { o.Limits.RetryShare, o.Limits.MaxAttempts = 0.001, 10 })
	for i := range 7 {
		s := httptest.NewServer(nil)
		s.Close()
		p.registered(fmt.Sprint("gone-", i), s.URL)
	}
	p.start("sound")
	for range 100 {
		if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
}

// Retries are given back where no other head is left: a pool of one that fails does
// not use up the budget of the others.
func TestARetryWithoutAHeadCostsNothing(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) { o.Limits.RetryShare = 0.001 })
	p.script("a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	for range 30 {
		if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusInternalServerError && a.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	p.start("b")
	for range 4 {
		if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}
}

// A caller whose head breaks while it leaves is not sent to another.
func TestACallerThatLeftIsNotRetried(t *testing.T) {
	p := newPlane(t)
	var asked atomic.Int32
	first := make(chan struct{})
	for _, id := range []string{"a", "b"} {
		p.script(id, func(_ http.ResponseWriter, r *http.Request) {
			if asked.Add(1) == 1 {
				close(first)
			}
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		})
	}
	c := dial(t, strings.TrimPrefix(p.url, "http://"))
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", chatPath, len(chatBody), chatBody)
	<-first
	_ = c.Close()
	p.settled()
	if n := asked.Load(); n != 1 {
		t.Errorf("%d heads were asked", n)
	}
	d := p.router.Recent(routing.RecentQuery{Limit: 1})[0]
	if o, _ := d.Outcome(); o.Result != routing.ResultCancelled {
		t.Errorf("the outcome is %+v", o)
	}
}

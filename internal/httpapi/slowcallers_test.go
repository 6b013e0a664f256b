package httpapi_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"headway/internal/mockhead"
	"headway/internal/routing"
)

// impatient has a head with limits of its own (0: none) answer by a handler.
func (p *plane) impatient(id string, reads, writes time.Duration, answer http.HandlerFunc) {
	p.Helper()
	limits := http.Server{ReadTimeout: reads, WriteTimeout: writes, Handler: answer}
	served := make(chan error, 1)
	l := p.network.listen("192.0.2.1:" + id)
	go func() { served <- limits.Serve(l) }()
	p.Cleanup(func() {
		_ = limits.Close()
		<-served
	})
	p.registered("head-"+id, "http://192.0.2.1:"+id)
}

// unblamed fails the test if a head is out of rotation, or an outcome blames one.
func (p *plane) unblamed(heads int) {
	p.Helper()
	p.settled()
	if n := p.fleet.Snapshot().Pools["m"].All.Routable(); n != heads {
		p.Errorf("%d of %d heads are left", n, heads)
	}
	for _, d := range p.router.Recent(routing.RecentQuery{Limit: 100}) {
		if o, _ := d.Outcome(); o.Blames() {
			p.Errorf("a head was blamed: %+v", o)
		}
	}
}

// uploads sends a body of parts to the path of a head below /heads, and waits between
// them. It returns the status of the answer; 0: none.
func (p *plane) uploads(size int, part string, every time.Duration) int {
	p.Helper()
	body, sends := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for left := size; left > 0; <-time.After(every) {
			n, err := io.WriteString(sends, part[:min(len(part), left)])
			if left -= n; err != nil {
				return
			}
		}
		_ = sends.Close()
	}()
	defer func() {
		_ = body.Close()
		<-ended
	}()
	r, err := http.NewRequestWithContext(p.Context(), http.MethodPost, p.url+"/heads/m/x", body)
	if err != nil {
		p.Fatal(err)
	}
	r.ContentLength = int64(size)
	res, err := p.client.Do(r)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// A head that has waited long enough for a caller's body closes: that is the caller's
// fault.
func TestNoHeadIsBlamedForASlowUpload(t *testing.T) {
	const requests = 3
	for name, c := range map[string]struct {
		part  string
		every time.Duration
	}{
		"silence":                {"abc", 20 * time.Second},
		"slow drip":              {"x", time.Second},
		"the end comes too late": {strings.Repeat("x", 1<<20), 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				for n := range 4 {
					p.impatient(fmt.Sprint(n+1), 10*time.Second, 0, func(_ http.ResponseWriter, r *http.Request) {
						if _, err := io.Copy(io.Discard, r.Body); err != nil {
							panic(http.ErrAbortHandler)
						}
					})
				}
				for range requests {
					if status := p.uploads(2<<20, c.part, c.every); status != http.StatusRequestTimeout {
						t.Errorf("status %d", status)
					}
				}
				p.unblamed(4)
			})
		})
	}
}

// A gateway before an engine says with a 5xx that it waits no longer for a body.
func TestNoHeadIsBlamedForItsAnswerToASlowUpload(t *testing.T) {
	for _, status := range []int{500, 502, 503, 504} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.ReadFull(r.Body, make([]byte, 3))
				w.WriteHeader(status)
			}))
			t.Cleanup(s.Close)
			p.registered("a", s.URL)
			if got := p.uploads(2<<20, "abc", 1100*time.Millisecond); got != status {
				t.Errorf("status %d, want %d", got, status)
			}
			p.unblamed(1)
		})
	}
}

// A head that waits no longer until what it wrote is taken closes: that is the fault of
// a caller that takes its answer slowly.
func TestNoHeadIsBlamedForASlowReader(t *testing.T) {
	const parts, size, requests = 12, 1 << 20, 3
	event := strings.Replace(tokenEvent, `"x"`, `"`+strings.Repeat("x", size)+`"`, 1)
	for name, c := range map[string]struct {
		header string
		part   string
		pause  time.Duration
		every  int // parts that are taken before each pause
	}{
		"a stream, one pause":          {"text/event-stream", event, 45 * time.Second, parts},
		"a stream, taken slowly":       {"text/event-stream", event, 4 * time.Second, 1},
		"JSON, one pause":              {"application/json", strings.Repeat(" ", size), 45 * time.Second, parts},
		"another answer, one pause":    {"audio/mpeg", strings.Repeat("x", size), 45 * time.Second, parts},
		"another answer, taken slowly": {"audio/mpeg", strings.Repeat("x", size), 4 * time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				for n := range 4 {
					p.impatient(fmt.Sprint(n+1), 0, 30*time.Second, func(w http.ResponseWriter, r *http.Request) {
						_, _ = io.Copy(io.Discard, r.Body)
						w.Header()["Content-Type"] = []string{c.header}
						for range parts {
							if _, err := io.WriteString(w, c.part); err != nil {
								panic(http.ErrAbortHandler)
							}
						}
					})
				}
				cut := 0
				for range requests {
					res, err := p.ask(t.Context(), chatPath, streamBody)
					if err != nil {
						t.Fatal(err)
					}
					for n := 1; err == nil; n++ {
						if (n-1)%c.every == 0 {
							<-time.After(c.pause)
						}
						_, err = io.CopyN(io.Discard, res.Body, size)
					}
					if err != io.EOF { //nolint:errorlint // as it is
						cut++
					}
					_ = res.Body.Close()
				}
				if cut != requests {
					t.Errorf("%d of %d answers were cut", cut, requests)
				}
				p.unblamed(4)
			})
		})
	}
}

// A reader that takes its answer slowly may use up the time for a request.
func TestNoHeadIsBlamedForTheTimeThatAReaderTakes(t *testing.T) {
	event := strings.Replace(tokenEvent, `"x"`, `"`+strings.Repeat("x", 1<<20)+`"`, 1)
	onFakeTime(t, func(t *testing.T, p *plane) {
		p.script("1", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				say(w, event)
			}
		})
		res, err := p.ask(t.Context(), chatPath, streamBody)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		begin := time.Now()
		for err == nil && time.Since(begin) < 2*time.Hour {
			<-time.After(50 * time.Second)
			_, err = io.CopyN(io.Discard, res.Body, 1<<20)
		}
		if took := time.Since(begin); took < 50*time.Minute || took > 80*time.Minute {
			t.Errorf("it ended after %s: %v", took, err)
		}
		p.unblamed(1)
	})
}

// What a head does while its caller is as fast as it is counts.
func TestAHeadThatBreaksIsBlamedBesideSlowCallers(t *testing.T) {
	blamed := func(t *testing.T, p *plane) {
		t.Helper()
		p.settled()
		if o, _ := p.router.Recent(routing.RecentQuery{Limit: 1})[0].Outcome(); !o.Blames() {
			t.Errorf("no head was blamed: %+v", o)
		}
	}
	t.Run("an upload", func(t *testing.T) {
		onFakeTime(t, func(t *testing.T, p *plane) {
			p.impatient("1", 0, 0, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.CopyN(io.Discard, r.Body, 1000)
				panic(http.ErrAbortHandler)
			})
			p.uploads(8<<20, strings.Repeat("x", 1<<20), 0)
			blamed(t, p)
		})
	})
	t.Run("an upload that was sent whole, slowly", func(t *testing.T) {
		onFakeTime(t, func(t *testing.T, p *plane) {
			p.impatient("1", 0, 0, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				panic(http.ErrAbortHandler)
			})
			p.uploads(3<<20, strings.Repeat("x", 1<<20), 10*time.Second)
			blamed(t, p)
		})
	})
	for name, f := range map[string]mockhead.Fault{"a reset": {Kind: mockhead.Reset, After: 5}, "a stall": {Kind: mockhead.Stall, After: 5}} {
		t.Run("a stream, "+name, func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				p.mock("1", f)
				p.timed(chatPath, streamBody)
				blamed(t, p)
			})
		})
	}
	t.Run("it is silent after a slow reader", func(t *testing.T) {
		onFakeTime(t, func(t *testing.T, p *plane) {
			p.script("1", func(w http.ResponseWriter, r *http.Request) {
				for range 200 {
					say(w, strings.Repeat(tokenEvent, 1000))
				}
				wait(r, time.Hour)
			})
			res, err := p.ask(t.Context(), chatPath, streamBody)
			if err != nil {
				t.Fatal(err)
			}
			<-time.After(40 * time.Second)
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			blamed(t, p)
		})
	})
}

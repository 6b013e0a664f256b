package httpapi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/mockhead"
	"headway/internal/routing"
)

// No limit of the server for an answer cuts a stream that goes on: one chunk a
// second for 90 s, and one of 25 minutes with pauses of 4.
func TestPitfallP5ALongStreamIsNotCut(t *testing.T) {
	for name, every := range map[string][]time.Duration{
		"90 s":   {time.Second},
		"25 min": append(slices.Repeat([]time.Duration{10 * time.Second}, 40), 4*time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				p.script("1", func(w http.ResponseWriter, r *http.Request) {
					say(w, roleEvent)
					for i := range 90 {
						wait(r, every[i%len(every)])
						say(w, tokenEvent)
					}
					say(w, finishEvent+doneEvent)
				})
				a := p.timed(chatPath, streamBody)
				text := strings.ReplaceAll(a.text, comment, "")
				if !errors.Is(a.err, io.EOF) || text != roleEvent+strings.Repeat(tokenEvent, 90)+finishEvent+doneEvent || a.took < 90*time.Second {
					t.Errorf("after %s: %v, %d tokens of 90:\n%.1000s", a.took, a.err, strings.Count(a.text, `"x"`), a.text)
				}
				p.settled()
			})
		})
	}
}

// comment is what a stream gets while its head is silent.
const comment = ": the model is still working\n\n"

// A caller hears something every 15 s while its head is silent: before the header,
// before the first token, between tokens, while a head only pings, and over
// several attempts. No comment stands inside an event.
func TestPitfallP6SilenceIsFilledBetweenEvents(t *testing.T) {
	whole := roleEvent + tokenEvent + finishEvent + doneEvent
	half := len(tokenEvent) / 2
	heads := map[string]http.HandlerFunc{
		"before the header": func(w http.ResponseWriter, r *http.Request) {
			wait(r, 4*time.Minute)
			say(w, whole)
		},
		"before the first event": func(w http.ResponseWriter, r *http.Request) {
			say(w, "")
			wait(r, 4*time.Minute)
			say(w, whole)
		},
		"before the first token": func(w http.ResponseWriter, r *http.Request) {
			say(w, roleEvent)
			wait(r, 4*time.Minute)
			say(w, whole[len(roleEvent):])
		},
		"the head pings": func(w http.ResponseWriter, r *http.Request) {
			for range 24 {
				say(w, ": ping\n\n")
				wait(r, 10*time.Second)
			}
			say(w, whole)
		},
		"a byte order mark after it": func(w http.ResponseWriter, r *http.Request) {
			wait(r, 4*time.Minute)
			say(w, "\ufeff"+whole)
		},
	}
	for name, h := range heads {
		t.Run(name, func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				p.script("1", h)
				a := p.timed(chatPath, streamBody)
				if !errors.Is(a.err, io.EOF) || a.gap > 15*time.Second || strings.Count(a.text, comment) < 15 {
					t.Errorf("%v, the longest silence is %s:\n%s", a.err, a.gap, a.text)
				}
				if rest := strings.ReplaceAll(strings.ReplaceAll(a.text, comment, ""), ": ping\n\n", ""); rest != whole {
					t.Errorf("the rest is\n%s", rest)
				}
			})
		})
	}
	t.Run("inside an event", func(t *testing.T) {
		onFakeTime(t, func(t *testing.T, p *plane) {
			p.script("1", func(w http.ResponseWriter, r *http.Request) {
				say(w, roleEvent+tokenEvent+tokenEvent[:half])
				wait(r, 4*time.Minute)
				say(w, tokenEvent[half:])
				wait(r, 20*time.Second)
				say(w, finishEvent+doneEvent)
			})
			a := p.timed(chatPath, streamBody)
			if want := roleEvent + tokenEvent + tokenEvent + comment + finishEvent + doneEvent; !errors.Is(a.err, io.EOF) || a.text != want {
				t.Errorf("%v:\n%s", a.err, a.text)
			}
		})
	})
	t.Run("retries that dial", func(t *testing.T) {
		onFakeTime(t, func(t *testing.T, p *plane) {
			p.script("1", func(w http.ResponseWriter, r *http.Request) {
				wait(r, 13900*time.Millisecond)
				panic(http.ErrAbortHandler)
			})
			for _, id := range []string{"x", "y"} { // they never answer
				p.serves(fleet.Spec{ID: id, Endpoint: "http://192.0.2.9:9", ModelTypes: []string{"m"}, Region: "eu"})
			}
			a := p.timed(chatPath, streamBody, "X-Headway-Region", "us")
			if a.gap > 15*time.Second || strings.Count(a.text, comment) != 1 || !strings.Contains(a.text, "head_connect_timeout") {
				t.Errorf("%v, the longest silence is %s:\n%s", a.err, a.gap, a.text)
			}
		})
	})
	t.Run("two attempts", func(t *testing.T) {
		onFakeTime(t, func(t *testing.T, p *plane) {
			var asked atomic.Int32
			for _, id := range []string{"1", "2", "3"} {
				p.script(id, func(w http.ResponseWriter, r *http.Request) {
					wait(r, 10*time.Second)
					if asked.Add(1) < 3 {
						panic(http.ErrAbortHandler)
					}
					say(w, whole)
				})
			}
			a := p.timed(chatPath, streamBody)
			if !errors.Is(a.err, io.EOF) || a.gap > 15*time.Second || strings.ReplaceAll(a.text, comment, "") != whole {
				t.Errorf("%v, %s:\n%s", a.err, a.gap, a.text)
			}
		})
	})
	t.Run("not streaming", func(t *testing.T) {
		onFakeTime(t, func(t *testing.T, p *plane) {
			const answer = `{"object":"chat.completion","model":"m","choices":[]}`
			p.script("1", func(w http.ResponseWriter, r *http.Request) {
				wait(r, 4*time.Minute)
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, answer)
			})
			if a := p.timed(chatPath, chatBody); a.status != 200 || a.text != answer || !errors.Is(a.err, io.EOF) {
				t.Errorf("%d %q %v", a.status, a.text, a.err)
			}
		})
	})
}

// An error that comes after a comment is an event, and the head's own words.
func TestAnErrorAfterACommentIsAnEvent(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		asked  int32
	}{
		"the caller's fault":  {400, "{\"error\":{\n\"message\":\"too long\"}}", 1},
		"the head's":          {500, `{"error":{"message":"broken"}}`, 3},
		"what heads have not": {501, `{"error":{"message":"no such tool"}}`, 1},
		"no stream":           {200, `{"object":"chat.completion"}`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				var asked atomic.Int32
				for _, id := range []string{"1", "2", "3"} {
					p.script(id, func(w http.ResponseWriter, r *http.Request) {
						asked.Add(1)
						wait(r, 16*time.Second)
						w.Header().Set("Content-Type", "application/json")
						w.WriteHeader(c.status)
						_, _ = io.WriteString(w, c.body)
					})
				}
				a := p.timed(chatPath, streamBody)
				want := "data: " + strings.ReplaceAll(c.body, "\n", "\ndata: ") + "\n\n"
				if c.status == 200 {
					want = `data: {"error":{"message":`
				}
				if a.status != 200 || errors.Is(a.err, io.EOF) || !strings.Contains(a.text, want) || strings.Contains(a.text, "[DONE]") || asked.Load() != c.asked {
					t.Errorf("%d, %d heads were asked, %v:\n%s", a.status, asked.Load(), a.err, a.text)
				}
			})
		})
	}
}

// Every limit of a head's answer ends the request as it says, and the answer to the
// caller comes although the server's own limit is over.
func TestEachLimitOfAnAnswer(t *testing.T) {
	begin := roleEvent + tokenEvent
	for name, c := range map[string]struct {
		head   http.HandlerFunc
		body   string
		status int
		code   string
		after  time.Duration
	}{
		"first byte":             {func(_ http.ResponseWriter, r *http.Request) { wait(r, time.Hour) }, chatBody, 504, "head_first_byte_timeout", 10 * time.Minute},
		"first byte of a stream": {func(_ http.ResponseWriter, r *http.Request) { wait(r, time.Hour) }, streamBody, 200, "head_first_byte_timeout", 10 * time.Minute},
		"first event": {func(w http.ResponseWriter, r *http.Request) {
			say(w, roleEvent)
			wait(r, time.Hour)
		}, streamBody, 200, "head_idle_timeout", 5 * time.Minute},
		"silence": {func(w http.ResponseWriter, r *http.Request) {
			say(w, begin)
			wait(r, time.Hour)
		}, streamBody, 200, "head_idle_timeout", 5 * time.Minute},
		"total": {func(w http.ResponseWriter, r *http.Request) {
			for say(w, begin); r.Context().Err() == nil; say(w, tokenEvent) {
				wait(r, time.Minute)
			}
		}, streamBody, 200, "head_total_timeout", time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				p.script("1", c.head)
				a := p.timed(chatPath, c.body)
				broken := a.status == 200
				if a.status != c.status || (!errors.Is(a.err, io.EOF)) != broken || !strings.Contains(a.text, `"code":"`+c.code+`"`) || strings.Contains(a.text, "[DONE]") {
					t.Errorf("%d, %v:\n%.2000s", a.status, a.err, a.text)
				}
				if a.took < c.after || a.took > c.after+10*time.Second {
					t.Errorf("it took %s", a.took)
				}
				p.settled()
				d := p.router.Recent(routing.RecentQuery{Limit: 1})[0]
				if o, _ := d.Outcome(); o.Result != routing.ResultError {
					t.Errorf("the outcome is %+v", o)
				}
			})
		})
	}
	t.Run("connect", func(t *testing.T) {
		onFakeTime(t, func(t *testing.T, p *plane) {
			p.registered("nowhere", "http://192.0.2.9:9")
			p.mock("1")
			for range 4 {
				if a := p.timed(chatPath, chatBody); a.status != 200 || a.took > 3*time.Second {
					t.Errorf("%d after %s: %s", a.status, a.took, a.text)
				}
			}
		})
	})
}

// A caller that stops to read stops its head, and is cut after its time; nothing is
// kept for it meanwhile.
func TestPitfallP25AReaderThatStalls(t *testing.T) {
	const mostKept = 5 << 20 // the client's window of a stream by HTTP/2 is 4 MiB
	event := "data: {\"choices\":[{\"delta\":{\"content\":\"" + strings.Repeat("x", 1<<10) + "\"}}]}\n\n"
	onFakeTime(t, func(t *testing.T, p *plane) {
		var wrote atomic.Int64
		gone := make(chan time.Time, 1)
		p.script("1", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				say(w, event)
				wrote.Add(int64(len(event)))
			}
			gone <- time.Now()
		})
		res, err := p.ask(t.Context(), chatPath, streamBody)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.ReadFull(res.Body, make([]byte, 10<<10)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stalled := time.Now()
		before := wrote.Load()
		if before > mostKept {
			t.Errorf("the head could send %d bytes to a caller that does not read", before)
		}
		if took := (<-gone).Sub(stalled); took < 58*time.Second || took > 62*time.Second {
			t.Errorf("the head's connection was closed after %s", took)
		}
		if n := wrote.Load() - before; n > int64(len(event)) {
			t.Errorf("the head could send %d bytes more meanwhile", n)
		}
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("the end looks clean")
		}
		p.settled()
		if o, _ := p.decisionOf(res.Header).Outcome(); o.Result != routing.ResultCancelled {
			t.Errorf("the outcome is %+v", o)
		}
	})
}

// One that reads slowly is not cut, however long it takes.
func TestAReaderThatIsSlowIsNotCut(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		p.script("1", func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				say(w, tokenEvent)
			}
			say(w, finishEvent+doneEvent)
		})
		res, err := p.ask(t.Context(), chatPath, streamBody)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var got []byte
		for b := make([]byte, 100); err == nil; {
			var n int
			n, err = res.Body.Read(b)
			got = append(got, b[:n]...)
			time.Sleep(5 * time.Second)
		}
		if !errors.Is(err, io.EOF) || string(got) != strings.Repeat(tokenEvent, 100)+finishEvent+doneEvent {
			t.Errorf("%v after %d bytes", err, len(got))
		}
	})
}

// A caller that leaves has its head's connection closed at once, at every stage,
// and no head is blamed.
func TestPitfallP1P2ACallerThatLeavesStopsItsHead(t *testing.T) {
	for name, c := range map[string]struct {
		body   string
		status int64 // that the caller got
		head   func(w http.ResponseWriter)
	}{
		"not streaming": {chatBody, fleet.Unknown, func(http.ResponseWriter) {}},
		"within a whole answer": {chatBody, 200, func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"choices":[`)
			_ = http.NewResponseController(w).Flush()
		}},
		"before the header":      {streamBody, fleet.Unknown, func(http.ResponseWriter) {}},
		"before the first token": {streamBody, 200, func(w http.ResponseWriter) { say(w, roleEvent) }},
		"in the middle":          {streamBody, 200, func(w http.ResponseWriter) { say(w, roleEvent+tokenEvent) }},
	} {
		t.Run(name, func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				asked, gone := make(chan struct{}), make(chan time.Time, 1)
				p.script("1", func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					c.head(w)
					close(asked)
					<-r.Context().Done()
					gone <- time.Now()
				})
				ctx, leave := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() {
					res, err := p.ask(ctx, chatPath, c.body)
					if err == nil {
						_, err = io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					ended <- err
				}()
				<-asked
				time.Sleep(3 * time.Second)
				left := time.Now()
				leave()
				if took := (<-gone).Sub(left); took > time.Second {
					t.Errorf("the head noticed after %s", took)
				}
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("the caller saw %v", err)
				}
				p.settled()
				d := p.router.Recent(routing.RecentQuery{Limit: 1})[0]
				if o, _ := d.Outcome(); o.Result != routing.ResultCancelled || o.StatusCode != c.status {
					t.Errorf("the outcome is %+v", o)
				}
				if page := p.scrape(); strings.Contains(page, `status="500"`) || strings.Contains(page, `status="502"`) {
					t.Error("it is counted as a fault of ours")
				}
			})
		})
	}
}

// The place at a head is held from the decision to the last byte, and given back
// once.
func TestPitfallP3APlaceIsHeldToTheLastByte(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		next := make(chan string)
		p.script("1", func(w http.ResponseWriter, _ *http.Request) {
			for text := range next {
				say(w, text)
			}
		})
		inFlight := func() int64 {
			synctest.Wait()
			return p.fleet.Snapshot().Sorted()[0].Live.InFlight()
		}
		ended := make(chan error, 1)
		go func() { ended <- p.timed(chatPath, streamBody).err }()
		for _, text := range []string{roleEvent, tokenEvent, tokenEvent, finishEvent + doneEvent} {
			next <- text
			time.Sleep(3 * time.Minute) // longer than reservations of the decision API live
			if n := inFlight(); n != 1 {
				t.Fatalf("%d in flight after %q", n, text)
			}
		}
		close(next)
		if err := <-ended; !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if n := inFlight(); n != 0 {
			t.Errorf("%d in flight after the end", n)
		}
	})
}

// Each part of a stream comes before the head has sent the next: the header does
// not wait for a token, nor a token for another.
func TestPitfallP9NothingIsGathered(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		next := make(chan string)
		p.script("1", func(w http.ResponseWriter, _ *http.Request) {
			for text := range next {
				say(w, text)
			}
		})
		go func() { next <- "" }()
		res, err := p.ask(t.Context(), chatPath, streamBody)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for i, text := range []string{tokenEvent, tokenEvent, "data: ", strings.TrimPrefix(tokenEvent, "data: "), finishEvent, doneEvent} {
			next <- text
			switch i {
			case 2:
				continue // half an event
			case 3:
				text = tokenEvent
			}
			got := make([]byte, len(text))
			if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != text {
				t.Fatalf("%q, %v", got, err)
			}
		}
		close(next)
	})
}

// Lines and events of any length pass unchanged.
func TestPitfallP7LinesOfAnyLengthPass(t *testing.T) {
	for _, size := range []int{64<<10 - 1, 64 << 10, 1 << 20, 5 << 20} {
		event := "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" + strings.Repeat("é", size/2) + "\"}}]}\n\n"
		samePassage(t, "a long event", roleEvent+event+tokenEvent+finishEvent+doneEvent)
	}
	samePassage(t, "a long comment", roleEvent+": "+strings.Repeat("c", 3<<20)+"\n\n"+tokenEvent+finishEvent+doneEvent)
}

// Every framing passes byte for byte, in pieces of any size, and its usage is found.
func TestPitfallP8EveryFramingPassesByteForByte(t *testing.T) {
	const usage = `{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}`
	plain := roleEvent + tokenEvent + finishEvent + "data: " + usage + "\n\n" + doneEvent
	for name, text := range map[string]string{
		"LF":                 plain,
		"CRLF":               strings.ReplaceAll(plain, "\n", "\r\n"),
		"CR":                 strings.ReplaceAll(plain, "\n", "\r"),
		"no space":           strings.ReplaceAll(plain, "data: ", "data:"),
		"several data lines": strings.ReplaceAll(plain, `,"choices"`, ",\ndata: \"choices\""),
		"comments":           ": hello\n\n" + strings.ReplaceAll(plain, "data: {", ": inside\ndata: {"),
		"names":              strings.ReplaceAll(plain, "data: {", "event: message\nid: 7\nretry: 10\ndata: {"),
		"no blank line":      strings.TrimSuffix(plain, "\n\n"),
		"one newline":        strings.TrimSuffix(plain, "\n"),
		"byte order mark":    "\ufeff" + plain,
		"blank lines":        "\n\n" + strings.ReplaceAll(plain, "\n\n", "\n\n\n\n"),
		"unknown fields":     strings.ReplaceAll(plain, "data: {", "foo: bar\nlonely\ndata: {"),
		"after the end":      plain + ": bye\n\n",
	} {
		a := samePassage(t, name, text)
		if a.outcome.InputTokens != 11 || a.outcome.OutputTokens != 7 || a.outcome.Result != routing.ResultOK {
			t.Errorf("%s: the outcome is %+v", name, a.outcome)
		}
	}
}

type passage struct{ outcome routing.Outcome }

// samePassage passes a stream on whole, in pieces and byte by byte, and wants the
// same bytes.
func samePassage(t *testing.T, name, text string) (last passage) {
	t.Helper()
	for _, step := range []int{len(text), 1000, 1} {
		if len(text)/step > 4000 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			p.script("1", func(w http.ResponseWriter, _ *http.Request) {
				for b := text; b != ""; b = b[min(step, len(b)):] {
					say(w, b[:min(step, len(b))])
				}
			})
			a := p.answer(chatPath, strings.Replace(streamBody, `"stream"`, `"stream_options":{"include_usage":true},"stream"`, 1))
			if a.err != nil || sha256.Sum256(a.body) != sha256.Sum256([]byte(text)) {
				t.Errorf("in steps of %d: %v, %d bytes of %d:\n%.300q", step, a.err, len(a.body), len(text), a.body)
			}
			p.settled()
			last.outcome, _ = p.decisionOf(a.Header).Outcome()
		})
	}
	return last
}

// A stream that breaks never looks whole, over either version of HTTP: an error
// event, then an end that is none, and over HTTP/2 the connection goes on.
func TestPitfallP4ABrokenStreamOnBothVersions(t *testing.T) {
	for _, f := range []mockhead.Fault{
		{Kind: mockhead.Reset, After: 4},
		{Kind: mockhead.Cut, After: 4},
		{Kind: mockhead.End, After: 4},
		{Kind: mockhead.ErrorEvent, After: 4},
		{Kind: mockhead.HalfClose, After: 4},
	} {
		t.Run(string(f.Kind), func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				heads := []*mockhead.Head{p.mock("1", f), p.mock("2", f)}
				a := p.timed(chatPath, streamBody)
				if a.status != 200 || errors.Is(a.err, io.EOF) || strings.Contains(a.text, "[DONE]") || strings.Count(a.text, `"error"`) != 1 || strings.Count(a.text, `"role"`) != 1 {
					t.Errorf("%d, %v:\n%s", a.status, a.err, a.text)
				}
				if n := heads[0].Count() + heads[1].Count(); n != 1 {
					t.Errorf("%d heads were asked", n)
				}
				if p.url[:5] == "https" && !strings.Contains(a.err.Error(), "stream error") {
					t.Errorf("the end is %v", a.err)
				}
				p.settled()
				d := p.router.Recent(routing.RecentQuery{Limit: 1})[0]
				if o, _ := d.Outcome(); o.Result != routing.ResultError {
					t.Errorf("the outcome is %+v", o)
				}
			})
		})
	}
}

// An event that was torn leaves no half of it before the error.
func TestATornEventIsNotPassedOn(t *testing.T) {
	p := newPlane(t)
	p.script("1", func(w http.ResponseWriter, _ *http.Request) {
		say(w, roleEvent+tokenEvent+tokenEvent[:40])
		panic(http.ErrAbortHandler)
	})
	a := p.answer(chatPath, streamBody)
	rest, ok := bytes.CutPrefix(a.body, []byte(roleEvent+tokenEvent))
	if !ok || !bytes.HasPrefix(rest, []byte(`data: {"error":`)) || !errors.Is(a.err, io.ErrUnexpectedEOF) {
		t.Errorf("%v\n%s", a.err, a.body)
	}
}

// Start-up events are held as long as another head can take over: up to 64 of them
// and 256 KiB.
func TestStartUpEventsAreHeldWithinBounds(t *testing.T) {
	long := strings.Replace(roleEvent, `"id":"c"`, `"id":"`+strings.Repeat("c", 100<<10)+`"`, 1)
	for name, c := range map[string]struct {
		start string
		again bool
	}{
		"64 events": {strings.Repeat(roleEvent, 64), true},
		"65 events": {strings.Repeat(roleEvent, 65), false},
		"comments":  {strings.Repeat(": ping\n\n", 200), true},
		"200 KiB":   {strings.Repeat(long, 2), true},
		"300 KiB":   {strings.Repeat(long, 3), false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			p.script("1", func(w http.ResponseWriter, _ *http.Request) {
				say(w, c.start)
				panic(http.ErrAbortHandler)
			})
			first := p.answer(chatPath, streamBody) // no other head is there
			if !errors.Is(first.err, io.ErrUnexpectedEOF) || bytes.HasPrefix(first.body, []byte(c.start)) == c.again {
				t.Errorf("alone: %v\n%.300s", first.err, first.body)
			}
			p.script("2", func(w http.ResponseWriter, _ *http.Request) { say(w, roleEvent+tokenEvent+finishEvent+doneEvent) })
			for range 8 {
				a := p.answer(chatPath, streamBody)
				if whole := a.err == nil && string(a.body) == roleEvent+tokenEvent+finishEvent+doneEvent; whole != (c.again || a.Header.Get("X-Headway-Head") == "2") {
					t.Errorf("%v\n%.300s", a.err, a.body)
				}
			}
		})
	}
}

package httpapi_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/access"
)

// A caller pays for the answer that it got, not for attempts that failed before, and for
// the prompt that a head had when the caller left.
func TestWhatACallerIsChargedFor(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		fails := strings.Replace(messageStart[:strings.Index(messageStart, "event: content")], `"input_tokens":3`, `"input_tokens":1000`, 1)
		calls := 0
		answer := func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Test") == "left" {
				<-r.Context().Done()
				return
			}
			if calls++; calls == 1 {
				say(w, fails)
				panic(http.ErrAbortHandler)
			}
			say(w, messageStart+"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":5}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
		}
		p.script("1", answer)
		p.script("2", answer)
		p.key(p.admin(), access.Request{Name: "root", Role: string(access.RoleAdmin)})
		key := p.key(p.admin(), access.Request{Name: "limited", Role: "client", Limits: access.Limits{TokensPerMinute: 10_000}})
		body := strings.Replace(streamBody, `"ignore_eos":true,`, "", 1)
		remaining := func() int {
			a := p.answer("/v1/embeddings", `{"model":"none","input":"x"}`, "X-Api-Key", key)
			n, _ := strconv.Atoi(a.Header.Get("X-Ratelimit-Remaining-Tokens"))
			return n
		}
		if a := p.answer("/v1/messages", body, "X-Api-Key", key); a.StatusCode != http.StatusOK || a.Header.Get("X-Headway-Attempts") != "1" && calls != 2 {
			t.Fatalf("%d %v %s", a.StatusCode, a.Header, a.body)
		}
		p.settled()
		if n := remaining(); calls != 2 || n != 10_000-8 {
			t.Errorf("after an answer of 8 tokens by the second head %d are left (%d calls)", n, calls)
		}
		ctx, leave := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Second)
			leave()
		}()
		if res, err := p.ask(ctx, "/v1/messages", strings.Replace(body, "hello", strings.Repeat("hello ", 1000), 1), "X-Api-Key", key, "X-Test", "left"); err == nil {
			_ = res.Body.Close()
		}
		synctest.Wait()
		p.settled()
		if n := remaining(); n > 10_000-300 || n < 10_000-3000 {
			t.Errorf("after a prompt of 6,000 bytes whose caller left %d are left", n)
		}
	})
}

// The header of an answer that is held whole says what is left after it, with what the
// head reports or with the estimate. Of a stream it says what was left before: it is
// sent first.
func TestAnAnswerIsChargedBeforeItsHeader(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		p.script("1", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Ratelimit-Remaining-Tokens", "7") // is not the caller's
			switch kind := r.Header.Get("X-Test"); kind {
			case "stream":
				say(w, roleEvent+tokenEvent+`data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":6}}`+"\n\ndata: [DONE]\n\n")
			case "refused":
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusBadRequest)
				_, _ = w.Write([]byte(`{"error":{"message":"no"}}`))
			default:
				time.Sleep(10 * time.Second)
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(strings.Replace(gateAnswer, `"usage"`, `"`+kind+`"`, 1)))
			}
		})
		p.key(p.admin(), access.Request{Name: "root", Role: string(access.RoleAdmin)})
		key := p.key(p.admin(), access.Request{Name: "limited", Role: "client", Limits: access.Limits{TokensPerMinute: 10_000, RequestsPerMinute: 10}})
		for i, step := range []struct{ kind, remaining, reset string }{
			{"usage", "9000", "50s"},
			{"unknown", "8989", "40s"}, // 11 by the estimate
			{"refused", "8989", "40s"},
			{"stream", "8989", "40s"},
			{"refused", "8979", "40s"},
			{"usage", "7979", "30s"},
		} {
			body := chatBody
			if step.kind == "stream" {
				body = streamBody
			}
			a := p.answer(chatPath, body, "X-Api-Key", key, "X-Test", step.kind)
			got := [...]string{a.Header.Get("X-Ratelimit-Remaining-Tokens"), a.Header.Get("X-Ratelimit-Reset-Tokens"), a.Header.Get("X-Ratelimit-Remaining-Requests")}
			if want := [...]string{step.remaining, step.reset, strconv.Itoa(9 - i)}; got != want {
				t.Errorf("%d, %s: %d, tokens left, reset, requests left: %q; want %q\n%s", i, step.kind, a.StatusCode, got, want, a.body)
			}
			p.settled()
		}
	})
}

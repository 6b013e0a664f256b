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

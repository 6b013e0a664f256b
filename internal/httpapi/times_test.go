package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// With the default limits a head that hangs before its first content is made good by
// another one, within the time for a request.
func TestPitfallP14AHeadThatHangsIsMadeGoodByAnother(t *testing.T) {
	const whole = `{"object":"chat.completion","model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}`
	failed := func(status int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header()["Content-Type"], w.Header()["Content-Length"] = []string{"application/json"}, []string{"100"}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"error":`))
			_ = http.NewResponseController(w).Flush()
		}
	}
	for name, c := range map[string]struct {
		body  string
		hangs func(http.ResponseWriter)
		most  time.Duration
	}{
		"the header":                       {chatBody, func(http.ResponseWriter) {}, 11 * time.Minute},
		"the header of a stream":           {streamBody, func(http.ResponseWriter) {}, 11 * time.Minute},
		"a stream before its first token":  {streamBody, func(w http.ResponseWriter) { say(w, roleEvent) }, 6 * time.Minute},
		"the body of 500":                  {chatBody, failed(500), 5 * time.Second},
		"the body of 503":                  {chatBody, failed(503), 5 * time.Second},
		"the body of 429 before a stream":  {streamBody, failed(429), 5 * time.Second},
		"an answer whose length was known": {chatBody, failed(200), 6 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, p *plane) {
				var asked atomic.Int32
				for _, id := range []string{"1", "2"} {
					p.script(id, func(w http.ResponseWriter, r *http.Request) {
						if asked.Add(1) == 1 {
							c.hangs(w)
							wait(r, 24*time.Hour)
							return
						}
						if c.body == streamBody {
							say(w, roleEvent+tokenEvent+finishEvent+doneEvent)
							return
						}
						w.Header().Set("Content-Type", "application/json")
						_, _ = w.Write([]byte(whole))
					})
				}
				a := p.timed(chatPath, c.body)
				if a.status != http.StatusOK || a.took > c.most || asked.Load() != 2 || a.text != whole && !strings.HasSuffix(a.text, doneEvent) {
					t.Errorf("%d after %s, %d heads asked:\n%s", a.status, a.took, asked.Load(), a.text)
				}
			})
		})
	}
}

// A failed answer that breaks in its middle is not passed on in part when it is the
// last one: its status is.
func TestAFailedAnswerIsPassedOnWholeOrNotAtAll(t *testing.T) {
	for _, status := range []int{500, 503, 429, 404} {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, cut %t", status, cut), func(t *testing.T) {
				onFakeTime(t, func(t *testing.T, p *plane) {
					p.script("1", func(w http.ResponseWriter, r *http.Request) {
						w.Header()["Content-Type"], w.Header()["Content-Length"] = []string{"application/json"}, []string{"100"}
						if status == 404 {
							w.Header()["Content-Type"] = []string{"text/html"} // of a server before the engine
						}
						w.WriteHeader(status)
						_, _ = w.Write([]byte(`{"error":{"code":"half`))
						_ = http.NewResponseController(w).Flush()
						if cut {
							panic(http.ErrAbortHandler)
						}
						wait(r, 24*time.Hour)
					})
					a := p.timed(chatPath, chatBody)
					if a.status != status || a.took > 10*time.Second || strings.Contains(a.text, "half") || !strings.HasSuffix(a.text, "}}") {
						t.Errorf("%d after %s:\n%s", a.status, a.took, a.text)
					}
				})
			})
		}
	}
}

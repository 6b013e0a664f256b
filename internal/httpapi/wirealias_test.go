package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"headway/internal/fleet"
	"headway/internal/mockhead"
)

// A request by an alias reaches the head under the model's own name, and the answer
// names what the client asked for.
func TestPitfallP18AnAliasIsRewrittenBothWays(t *testing.T) {
	const alias, model = "gpt-4", "meta-llama/Llama-3.1-8B"
	p := newPlane(t)
	head, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{model}, Speed: 1000, Record: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(head.Close)
	p.serves(fleet.Spec{ID: "a", Endpoint: head.URL(), ModelTypes: []string{model}})
	p.apply(`{"default_strategy":"round_robin","aliases":{"` + alias + `":"` + model + `"}}`)
	speech, kind := form(alias)
	for _, c := range []struct{ path, body, contentType string }{
		{chatPath, `{"messages":[{"role":"user","content":"gpt-4?"}],"model" : "gpt-4","max_tokens":20}`, ""},
		{chatPath, `{"messages":[{"role":"user","content":"gpt-4?"}],"model":"gpt-4","max_tokens":20,"stream":true}`, ""},
		{"/v1/completions", `{"model":"gpt-4","prompt":"a","max_tokens":3}`, ""},
		{"/v1/completions", `{"model":"gpt-4","prompt":"a","max_tokens":3,"stream":true}`, ""},
		{"/v1/responses", `{"model":"gpt-4","input":"a","max_output_tokens":3}`, ""},
		{"/v1/responses", `{"model":"gpt-4","input":"a","max_output_tokens":3,"stream":true}`, ""},
		{"/v1/messages", `{"model":"gpt-4","max_tokens":3,"messages":[{"role":"user","content":"a"}]}`, ""},
		{"/v1/messages", `{"model":"gpt-4","max_tokens":3,"stream":true,"messages":[{"role":"user","content":"a"}]}`, ""},
		{"/v1/embeddings", `{"model":"gpt-4","input":"a"}`, ""},
		{"/v1/rerank", `{"model":"gpt-4","query":"a","documents":["b"]}`, ""},
		{"/v1/score", `{"model":"gpt-4","text_1":"a","text_2":"b"}`, ""},
		{"/v1/moderations", `{"model":"gpt-4","input":"a"}`, ""},
		{"/v1/audio/transcriptions", speech, kind},
	} {
		a := p.send(http.MethodPost, c.path, strings.NewReader(c.body), "Content-Type", contentTypeOf(c.contentType))
		if a.StatusCode != http.StatusOK || a.err != nil || bytes.Contains(a.body, []byte("Llama")) || a.ContentLength >= 0 && a.ContentLength != int64(len(a.body)) {
			t.Errorf("%s: %d %v %d bytes of %d: %s", c.path, a.StatusCode, a.err, len(a.body), a.ContentLength, a.body)
		}
		if !strings.HasPrefix(c.path, "/v1/audio") && !bytes.Contains(a.body, []byte(`"`+alias+`"`)) {
			t.Errorf("%s: the answer does not name %s: %s", c.path, alias, a.body)
		}
		got := head.Received()[0]
		if want := len(c.body) + len(model) - len(alias); got.Size != int64(want) || !got.Whole {
			t.Errorf("%s: the head got %d bytes, want %d", c.path, got.Size, want)
		}
		p.settled()
		if d := p.decisionOf(a.Header); d.ModelType != model {
			t.Errorf("%s: the decision is for %s", c.path, d.ModelType)
		}
	}
}

// Errors of a head name what the client asked for, whether they are passed on at
// once, kept or within a stream. Names that only begin alike stay.
func TestPitfallP18ErrorsNameWhatTheClientAskedFor(t *testing.T) {
	p := newPlane(t)
	var status int
	var stream bool
	head := newScripted(t, func(w http.ResponseWriter, _ []byte) {
		object := `{"error":{"message":"The model ` + "`llama-3`" + ` does not exist, llama-3-70b and my-llama-3 do. Use \"llama-3\" or not llama-3.","type":"NotFoundError","code":404}}`
		if stream {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: {\"model\":\"llama-3\",\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: "+object+"\n\n")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Openai-Model", "llama-3")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, object)
	})
	p.serves(fleet.Spec{ID: "a", Endpoint: head.url, ModelTypes: []string{"llama-3"}})
	p.apply(`{"default_strategy":"round_robin","aliases":{"best":"llama-3"}}`)
	const want = "The model `best` does not exist, llama-3-70b and my-llama-3 do. Use \\\"best\\\" or not llama-3."
	for _, status = range []int{400, 404, 422, 500, 503} {
		a := p.answer(chatPath, `{"model":"best","messages":[]}`)
		if a.StatusCode != status || !bytes.Contains(a.body, []byte(want)) || a.ContentLength != int64(len(a.body)) || a.Header.Get("Openai-Model") != "best" {
			t.Errorf("%d: %d %v %s", status, a.StatusCode, a.Header, a.body)
		}
	}
	stream = true
	if a := p.answer(chatPath, `{"model":"best","messages":[],"stream":true}`); !bytes.Contains(a.body, []byte(want)) || bytes.Contains(a.body, []byte(`"llama-3"`)) {
		t.Errorf("in a stream: %s", a.body)
	}
}

// An error of a head that is no error object becomes one.
func TestErrorsOfHeadsAreErrorObjects(t *testing.T) {
	p := newPlane(t)
	status, kind := 0, "text/html"
	head := newScripted(t, func(w http.ResponseWriter, _ []byte) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "<html>an internal page</html>")
	})
	p.registered("a", head.url)
	for _, status = range []int{400, 404, 413, 500, 502} {
		for _, path := range []string{chatPath, "/v1/messages"} {
			a := p.answer(path, chatBody)
			got, _, _ := errorOf(t, a)
			if a.StatusCode != status || bytes.Contains(a.body, []byte("internal page")) || strings.HasPrefix(got, "anthropic") != (path != chatPath) {
				t.Errorf("%d: %d %s", status, a.StatusCode, a.body)
			}
			if wait := a.Header.Get("Retry-After"); (wait != "") != (status >= 500) {
				t.Errorf("%d: Retry-After is %q", status, wait)
			}
		}
	}
}

// A head's 503 or 429 in JSON says when to come back, by the head's own word or by
// ours.
func TestARefusalOfAHeadSaysWhenToComeBack(t *testing.T) {
	p := newPlane(t)
	status, own := 0, ""
	head := newScripted(t, func(w http.ResponseWriter, _ []byte) {
		w.Header().Set("Content-Type", "application/json")
		if own != "" {
			w.Header().Set("Retry-After", own)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"error":{"message":"no","type":"x","code":null}}`)
	})
	p.registered("a", head.url)
	ask := func() planeAnswer { return p.answer(chatPath, chatBody) }
	for _, status = range []int{400, 500, 503} {
		if wait := ask().Header.Get("Retry-After"); (wait != "") != (status == 503) {
			t.Errorf("%d: Retry-After is %q", status, wait)
		}
	}
	status, own = http.StatusServiceUnavailable, "77"
	if a := ask(); a.StatusCode != status || a.Header.Get("Retry-After") != "77" {
		t.Errorf("%d: Retry-After is %q of the head's 77", a.StatusCode, a.Header.Get("Retry-After"))
	}
	q := newPlane(t)
	q.registered("b", head.url)
	status, own = http.StatusTooManyRequests, ""
	if a := q.answer(chatPath, chatBody); a.StatusCode != status || a.Header.Get("Retry-After") == "" {
		t.Errorf("%d: Retry-After is %q", a.StatusCode, a.Header.Get("Retry-After"))
	}
}

// While all heads ask for a pause, callers get the least of their times, and no head
// is called.
func TestPitfallP24TheLeastRetryAfterOfAllHeads(t *testing.T) {
	for _, streams := range []bool{false, true} {
		p := newPlane(t)
		calls := 0
		refusing := func(id, wait string) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				calls++
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Retry-After", wait)
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = io.WriteString(w, `{"error":{"message":"full","type":"TooManyRequests","code":429}}`)
			}))
			t.Cleanup(s.Close)
			p.registered(id, s.URL)
		}
		refusing("a", "40")
		refusing("b", "20")
		body := chatBody
		if streams {
			body = streamBody
		}
		begin, waits := time.Now(), map[int]bool{}
		for i := range 12 {
			a := p.answer(chatPath, body)
			wait, _ := strconv.Atoi(a.Header.Get("Retry-After"))
			if kind, _, _ := errorOf(t, a); a.StatusCode != http.StatusTooManyRequests || wait < 15 || wait > 24 || kind == "" {
				t.Errorf("request %d: %d, Retry-After %q: %s", i, a.StatusCode, a.Header.Get("Retry-After"), a.body)
			}
			if waits[wait] = true; float64(wait) < 20-time.Since(begin).Seconds() {
				t.Errorf("request %d: Retry-After of %d s is over before the pause", i, wait)
			}
			if a.Header.Get("X-Headway-Attempts") != fmt.Sprint(map[bool]int{true: 2, false: 0}[i == 0]) || a.Header.Get("X-Headway-Decision-Id") == "" {
				t.Errorf("request %d: %v", i, a.Header)
			}
		}
		if len(waits) == 1 {
			t.Error("all callers come back at once")
		}
		if calls != 2 {
			t.Errorf("the heads were called %d times", calls)
		}
		p.settled()
		p.start("c") // has room
		if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK || a.Header.Get("X-Headway-Head") != "c" {
			t.Errorf("with another head: %d %s", a.StatusCode, a.body)
		}
	}
}

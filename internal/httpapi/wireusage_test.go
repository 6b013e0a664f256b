package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/mockhead"
	"headway/internal/proxy"
	"headway/internal/routing"
)

// serves registers a head.
func (p *plane) serves(spec fleet.Spec) {
	p.Helper()
	if spec.Region == "" {
		spec.Region = "us"
	}
	_, err := p.fleet.Register(p.Context(), spec, &fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
	if err != nil {
		p.Fatal(err)
	}
}

// scripted is a head that answers by a function; it keeps the newest body.
type scripted struct {
	url    string
	body   []byte
	onBody func(err error) // of reading it; nil: nothing
}

func newScripted(t testing.TB, answer func(w http.ResponseWriter, body []byte)) *scripted {
	h := &scripted{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		if h.body, err = io.ReadAll(r.Body); h.onBody != nil {
			h.onBody(err)
		}
		answer(w, h.body)
	}))
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

// The head is asked for its usage where the caller did not ask and the engine is
// known; the chunk that it adds is kept from the caller, and the outcome has it.
func TestPitfallP10UsageIsAskedForAndKeptFromClientsThatDidNotAsk(t *testing.T) {
	with := func(options string) string {
		return strings.Replace(streamBody, `"stream":true`, `"stream":true`+options, 1)
	}
	for _, c := range []struct {
		name, ask, engine, body string
		asked, sees, counted    bool
	}{
		{"auto, known engine", proxy.AskAuto, "vllm", streamBody, true, false, true},
		{"by default", "", "vLLM", streamBody, true, false, true},
		{"auto, unknown engine", proxy.AskAuto, "", streamBody, false, false, false},
		{"always", proxy.AskAlways, "", streamBody, true, false, true},
		{"never", proxy.AskNever, "vllm", streamBody, false, false, false},
		{"the caller asks", proxy.AskAuto, "vllm", with(`,"stream_options":{"include_usage":true}`), false, true, true},
		{"an explicit false", proxy.AskAlways, "vllm", with(`,"stream_options":{"include_usage":false}`), false, false, false},
		{"other options", proxy.AskAlways, "vllm", with(`,"stream_options":{"x":1}`), true, false, true},
		{"not a stream", proxy.AskAlways, "vllm", chatBody, false, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlane(t, func(o *proxy.Options) { o.AskUsage = c.ask })
			head, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"m"}, Speed: 1000, Record: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(head.Close)
			p.serves(fleet.Spec{ID: "a", Endpoint: head.URL(), ModelTypes: []string{"m"}, Engine: c.engine})
			a := p.answer(chatPath, c.body)
			if a.err != nil || a.StatusCode != http.StatusOK {
				t.Fatalf("%d %v %s", a.StatusCode, a.err, a.body)
			}
			if asked := head.Received()[0].Size != int64(len(c.body)); asked != c.asked {
				t.Errorf("the head got %d bytes of %d: asked %t", head.Received()[0].Size, len(c.body), asked)
			}
			if sees := bytes.Contains(a.body, []byte(`"completion_tokens"`)); sees != c.sees || bytes.Contains(a.body, []byte(`"choices":[]`)) && !c.sees {
				t.Errorf("the caller sees usage: %t\n%s", sees, a.body)
			}
			if strings.Contains(c.body, `"stream":true`) && !bytes.HasSuffix(a.body, []byte("data: [DONE]\n\n")) {
				t.Errorf("the stream does not end as the head's does: %s", a.body)
			}
			p.settled()
			o, _ := p.decisionOf(a.Header).Outcome()
			if o.Estimated == c.counted || o.InputTokens <= 0 || o.OutputTokens <= 0 || c.counted && o.OutputTokens != 20 {
				t.Errorf("the outcome is %+v", o)
			}
		})
	}
}

// Parts of usage come in several events, with zeros between.
func TestPitfallP11UsageInPartsIsAddedUp(t *testing.T) {
	p := newPlane(t)
	head := newScripted(t, func(w http.ResponseWriter, _ []byte) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, usage := range []string{`{"prompt_tokens":10}`, `{"prompt_tokens":0,"completion_tokens":0}`, `null`, `{"completion_tokens":5}`} {
			fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":%s}\n\n", usage)
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	p.registered("a", head.url)
	a := p.answer(chatPath, streamBody)
	p.settled()
	if o, _ := p.decisionOf(a.Header).Outcome(); o.InputTokens != 10 || o.OutputTokens != 5 || o.Estimated {
		t.Errorf("the outcome is %+v", o)
	}
}

// Where a head does not count, its model's other reports say how many bytes a
// token has.
func TestTokensAreEstimatedByWhatHeadsReport(t *testing.T) {
	p := newPlane(t)
	usage := ""
	text := strings.Repeat("abcdefghij", 30)
	head := newScripted(t, func(w http.ResponseWriter, _ []byte) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"choices":[{"message":{"role":"assistant","content":%q}}]%s}`, text, usage)
	})
	p.registered("a", head.url)
	body := `{"model":"m","messages":[{"role":"user","content":"` + text + text + `"}]}`
	ask := func() routing.Outcome {
		a := p.answer(chatPath, body)
		p.settled()
		o, _ := p.decisionOf(a.Header).Outcome()
		return o
	}
	if o := ask(); !o.Estimated || o.OutputTokens != 75 || o.InputTokens < 150 || o.InputTokens > 170 {
		t.Errorf("before any report the outcome is %+v", o)
	}
	usage = fmt.Sprintf(`,"usage":{"prompt_tokens":%d,"completion_tokens":%d}`, len(body)/10, len(text)/10)
	for range 32 { // some of them are read for the length of their text
		ask()
	}
	for _, c := range []struct {
		usage       string
		least, most int64 // tokens of the prompt
	}{
		{``, 60, 70},
		{`,"usage":{"prompt_tokens":61}`, 61, 61},
		{`,"usage":{"completion_tokens":30}`, 60, 70},
	} {
		usage = c.usage
		if o := ask(); !o.Estimated || o.OutputTokens != 30 || o.InputTokens < c.least || o.InputTokens > c.most {
			t.Errorf("after reports of ten bytes a token, with %q, the outcome is %+v", usage, o)
		}
	}
}

// The id in an answer finds the decision, with its time to first token and tokens.
func TestPitfallP33TheAnswersIDFindsItsDecision(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	for _, body := range []string{chatBody, streamBody} {
		a := p.answer(chatPath, body)
		p.settled()
		d := into[api.RecentDecision](p.world, p.must(http.StatusOK, http.MethodGet, "/api/v1/decisions/"+a.Header.Get("X-Headway-Decision-Id"), ""))
		if d.Head.ID != a.Header.Get("X-Headway-Head") || d.Strategy != a.Header.Get("X-Headway-Strategy") || d.Outcome == nil {
			t.Fatalf("%+v %v", d, a.Header)
		}
		o := d.Outcome
		if o.Result != "ok" || o.TTFTMs == nil || *o.TTFTMs <= 0 || o.InputTokens == nil || *o.InputTokens <= 0 || o.OutputTokens == nil || *o.OutputTokens != 20 && !o.TokensEstimated {
			t.Errorf("the outcome is %+v", o)
		}
	}
}

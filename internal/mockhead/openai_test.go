package mockhead

import (
	"errors"
	"testing"
	"unicode/utf8"
)

// Whatever comes in: a request that can be served, or an error that names what
// is wrong with valid text.
func FuzzDecodeCompletion(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]},{"role":"assistant","content":null}],"max_tokens":3}`,
		`{"model":"m","prompt":"hi","max_completion_tokens":3,"ignore_eos":true}`,
		`{"model":"m","prompt":["hi"],"n":1}`,
		`{"model":"m","prompt":[1,2,4294967295]}`,
		`{"model":"m","model":"n"}`,
		`{"model":"m","messages":[{"role":"user","role":"tool"}]}`,
		`{"model":"m","max_tokens":-9223372036854775808}`,
		`{"model":"m","stream":1e400}`,
		"{\"model\":\"\xff\"}",
		`[[[[`, `null`, `{}{}`, ``,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, chat bool) {
		c, err := decodeCompletion(body, chat)
		if err != nil {
			var e *apiError
			if !errors.As(err, &e) || e.status < 400 || e.status > 499 || e.message == "" || e.kind == "" {
				t.Fatalf("error %#v", err)
			}
			if utf8.Valid(body) && (!utf8.ValidString(e.message) || !utf8.ValidString(e.param)) {
				t.Fatalf("the error is not valid UTF-8: %q %q", e.message, e.param)
			}
			encode(errorBody{errorObject{Message: e.message, Type: e.kind, Param: optional(e.param)}})
			return
		}
		if c.model == "" || c.promptTokens < 1 || c.promptTokens > len(body)+1 || c.maxTokens < 0 {
			t.Fatalf("%q became %+v", body, c)
		}
		if c.includeUsage && !c.stream {
			t.Fatal("usage of a stream that is none")
		}
	})
}

func TestTextIsFourBytesAToken(t *testing.T) {
	text := AppendText(nil, 7, 0, 100)
	if len(text) != 100*wordBytes || len(vocabulary)%wordBytes != 0 {
		t.Fatalf("100 tokens are %d bytes, the vocabulary has %d", len(text), len(vocabulary))
	}
	for i := wordBytes - 1; i < len(vocabulary); i += wordBytes {
		if vocabulary[i] != ' ' {
			t.Errorf("no space at %d: %q", i, vocabulary[i-3:i+1])
		}
	}
	if got := AppendText(AppendText(nil, 7, 0, 40), 7, 40, 100); string(got) != string(text) {
		t.Error("a text in two parts differs from the whole")
	}
}

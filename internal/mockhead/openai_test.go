package mockhead

import (
	"bytes"
	"errors"
	"hash/maphash"
	"testing"
	"unicode/utf8"

	"headway/internal/engine"
)

// Any input is a request that can be served, or an error that names what
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
			if !errors.As(err, &e) || e.status < 400 || e.status > 499 || e.message == "" {
				t.Fatalf("error %#v", err)
			}
			if utf8.Valid(body) && (!utf8.ValidString(e.message) || !utf8.ValidString(e.param)) {
				t.Fatalf("the error is not valid UTF-8: %q %q", e.message, e.param)
			}
			encode(errorBody{errorObject{Message: e.message, Param: optional(e.param)}})
			return
		}
		if c.model == "" || len(c.prompts) == 0 || c.prompts[0].tokens < 1 || c.prompts[0].tokens > len(body)+1 || c.maxTokens < 0 {
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

// A block of the cache stands for the whole text up to its end, not for its own
// text alone.
func TestABlockStandsForAllTextBeforeIt(t *testing.T) {
	h := &Head{seed: maphash.MakeSeed()}
	const size = engine.BlockTokens * 4
	text := bytes.Repeat([]byte("sun "), 3*size/4)
	other := bytes.Clone(text)
	copy(other[size:], "sea ")
	first, _ := h.hash(text)
	second, _ := h.hash(other)
	if len(first) != 3 || len(second) != 3 {
		t.Fatalf("%d and %d blocks, want 3", len(first), len(second))
	}
	if first[0] != second[0] || first[1] == second[1] || first[2] == second[2] {
		t.Errorf("texts that differ in the second block have the blocks %x and %x", first, second)
	}
}

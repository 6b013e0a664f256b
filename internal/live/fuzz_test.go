package live_test

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"headway/internal/live"
)

// No input makes the reader panic, and what it takes is valid.
func FuzzEnvelopes(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"type":"decide","data":{"model_type":"llama"}}`, `{"id":"a-1","type":"decide","data":{}}`, `{"id":01,"type":"decide","data":{}}`,
		`{"type":"ping"}`, `{"id":1,"type":"decide","data":{},"extra":{}}`, `{"id":null,"type":"status","data":[1]}`, `[`, "\xff", ``,
		`{"id":1,"type":"decide","data":{}},{"x":{}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		original := bytes.Clone(b)
		id, kind, data, err := live.ReadMessage(b)
		if !bytes.Equal(b, original) {
			t.Fatal("the message was changed")
		}
		if err == nil && (!utf8.Valid(b) || kind == "" || len(id) > 128) {
			t.Fatalf("%q is taken: %q %q", b, id, kind)
		}
		if err == nil && len(data) > 0 && !jsontext.Value(data).IsValid() {
			t.Fatalf("%q: the data %q is taken", b, data)
		}
	})
}

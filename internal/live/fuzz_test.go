package live_test

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"headway/internal/live"
)

// Whatever comes: no panic, and the quick reader agrees with the careful one on
// whatever it takes whose data is a JSON object.
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
		quickID, quickData, usual := live.UsualDecision(b)
		if !bytes.Equal(b, original) {
			t.Fatal("the message was changed")
		}
		if err == nil && (!utf8.Valid(b) || kind == "" || len(id) > 128) {
			t.Fatalf("%q is taken: %q %q", b, id, kind)
		}
		if usual && jsontext.Value(quickData).IsValid() && (err != nil || id != string(quickID) || kind != "decide" || !bytes.Equal(data, quickData)) {
			t.Fatalf("%q: %q %q %q %v; quick %q %q", b, id, kind, data, err, quickID, quickData)
		}
	})
}

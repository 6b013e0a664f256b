package tracing

import (
	"net/http"
	"strings"
	"testing"
)

func TestATraceIsContinuedOrBegun(t *testing.T) {
	const id, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for _, c := range []struct {
		name      string
		values    []string
		continued bool
		flags     string
	}{
		{"sampled", []string{"00-" + id + "-" + span + "-01"}, true, "01"},
		{"not sampled", []string{"00-" + id + "-" + span + "-00"}, true, "00"},
		{"flags that are not known", []string{"00-" + id + "-" + span + "-ff"}, true, "03"},
		{"a later version", []string{"cc-" + id + "-" + span + "-01-what-comes"}, true, "01"},
		{"a later version, not separated", []string{"cc-" + id + "-" + span + "-01what"}, false, ""},
		{"too long", []string{"00-" + id + "-" + span + "-01-what"}, false, ""},
		{"version ff", []string{"ff-" + id + "-" + span + "-01"}, false, ""},
		{"upper case", []string{"00-" + strings.ToUpper(id) + "-" + span + "-01"}, false, ""},
		{"no trace", []string{"00-" + strings.Repeat("0", 32) + "-" + span + "-01"}, false, ""},
		{"no span", []string{"00-" + id + "-" + strings.Repeat("0", 16) + "-01"}, false, ""},
		{"no digits", []string{"00-" + strings.Repeat("x", 32) + "-" + span + "-01"}, false, ""},
		{"twice", []string{"00-" + id + "-" + span + "-01", "00-" + id + "-" + span + "-01"}, false, ""},
		{"none", nil, false, ""},
	} {
		h := http.Header{"Tracestate": {"a=1,b=2"}}
		if c.values != nil {
			h["Traceparent"] = c.values
		}
		got := Read(h)
		text := got.Traceparent(nil)
		recorded := got.Traceparent(&Span{id: newSpanID()})
		if len(text) != traceparentLength || strings.Contains(text, span) != c.continued || len(recorded) != len(text) || strings.Contains(recorded, span) {
			t.Errorf("%s: the head would get %q", c.name, text)
		}
		if is := strings.Contains(text, id); is != c.continued || len(got.state) > 0 != c.continued {
			t.Errorf("%s: continued %t with the state %v, want %t: %q", c.name, is, got.state, c.continued, text)
		}
		if c.continued && !strings.HasSuffix(text, "-"+c.flags) {
			t.Errorf("%s: %q, want the flags %s", c.name, text, c.flags)
		}
	}
}

// For every value of the header, a head gets a traceparent that is valid.
func FuzzTrace(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x")
	f.Add("00-00000000000000000000000000000000-b7ad6b7169203331-01")
	f.Fuzz(func(t *testing.T, s string) {
		got := Read(http.Header{"Traceparent": {s}})
		for _, span := range []*Span{nil, {id: newSpanID()}} {
			var again Context
			if text := got.Traceparent(span); !again.parse(text) || again.id != got.id || span != nil && again.parent != span.id {
				t.Errorf("%q became %q", s, text)
			}
		}
	})
}

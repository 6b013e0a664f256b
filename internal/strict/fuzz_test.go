package strict_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"

	"headway/internal/strict"
)

// maxDepth is how deep values may stand in one another.
const maxDepth = 32

// depth is how deeply valid JSON nests.
func depth(text []byte) int {
	deepest := 0
	d := jsontext.NewDecoder(strings.NewReader(string(text)))
	for {
		if _, err := d.ReadToken(); err != nil {
			return deepest
		}
		deepest = max(deepest, d.StackDepth())
	}
}

// sound checks what holds for the faults of every input.
func sound(t *testing.T, faults []strict.Fault) {
	t.Helper()
	for _, f := range faults {
		if f.Reason == "" || len(f.Reason) > 300 || len(f.Pointer) > 300 || f.Pointer != "" && f.Pointer[0] != '/' || !utf8.ValidString(f.Pointer+f.Reason) {
			t.Fatalf("fault %+v", f)
		}
	}
}

// longName reports whether a name is too long to be one.
func longName(v any) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, longName)
	case map[string]any:
		for name, member := range v {
			if len(name) > 256 || longName(member) {
				return true
			}
		}
	}
	return false
}

// FuzzJSON compares the reader with the library: both take the same text, and
// read the same values from it.
func FuzzJSON(f *testing.F) {
	for _, text := range []string{`{}`, `{"a":[1,"b",true,null,{"c":-0.5e3}]}`, `{"a":1,"a":2}`, `[1e999]`, `"\ud83d\ude00"`, `"\u0000\u00fc\u20ac\n\\"`, `{"a":1} x`, ` `, strings.Repeat("[", 33) + strings.Repeat("]", 33)} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want any
		err := jsonv2.Unmarshal(text, &want)
		for _, document := range []bool{false, true} {
			kept := slices.Clone(text)
			r := strict.NewJSON(text, strict.Options{Most: 10, Document: document})
			got := r.Any()
			faults, broken := r.Done()
			if !slices.Equal(kept, text) {
				t.Fatalf("the text was changed to %q", text)
			}
			sound(t, faults)
			if len(faults) > 11 {
				t.Fatalf("%d faults", len(faults))
			}
			ok := broken == nil && len(faults) == 0
			if takes := err == nil && depth(text) <= maxDepth && !(document && longName(want)); ok != takes {
				t.Fatalf("%q: value %v, faults %v, %v; the library says %v", text, got, faults, broken, err)
			}
			if ok && !reflect.DeepEqual(got, want) {
				t.Fatalf("%q is %#v; the library says %#v", text, got, want)
			}
		}
		quoted(t, text)
	})
}

// quoted compares a string as it stands with the text.
func quoted(t *testing.T, text []byte) {
	t.Helper()
	var want, got string
	if jsonv2.Unmarshal(text, &want) != nil || jsontext.Value(text).Kind() != '"' {
		return
	}
	r := strict.NewJSON(text, strict.Options{Most: 10})
	raw, ok := r.Quoted()
	if err := jsonv2.Unmarshal(raw, &got); !ok || err != nil || got != want || raw[0] != '"' || raw[len(raw)-1] != '"' {
		t.Fatalf("%q is %q, and not %q", text, raw, want)
	}
	_, _ = r.Done()
}

// FuzzYAML holds the reader to the library: what it takes is YAML that means
// the same, and JSON that is YAML as well is read the same.
func FuzzYAML(f *testing.F) {
	for _, text := range []string{"a: [1, b, true, null, {c: -0.5}]", "a: &x 1\nb: *x", "a: 1\na: 2", "a: 010", "a: 2024-01-01", "!!str a", "a: b\n---\nc: d", "? [a]\n: b", "<<: {a: b}", "", "a: |\n  b\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := strict.NewYAML(text, strict.Options{Most: 10, Document: true})
		got := r.Any()
		faults, broken := r.Done()
		sound(t, faults)
		for _, f := range faults[:min(len(faults), 10)] {
			if f.Line < 0 || f.Line > 1+strings.Count(string(text), "\n")+strings.Count(string(text), "\r")+strings.Count(string(text), "\u0085")+strings.Count(string(text), "\u2028")+strings.Count(string(text), "\u2029") {
				t.Fatalf("%q: fault %+v", text, f)
			}
		}
		if broken != nil || len(faults) > 0 {
			return
		}
		var want any
		if err := yaml.Unmarshal(text, &want); err != nil {
			t.Fatalf("%q was read as %v; the library says %v", text, got, err)
		}
		// Through JSON, so that numbers are of one type.
		wantText, err1 := json.Marshal(want)
		gotText, err2 := json.Marshal(got)
		if err1 == nil && err2 == nil && string(wantText) != string(gotText) {
			var a, b any
			if json.Unmarshal(wantText, &a) == nil && json.Unmarshal(gotText, &b) == nil && !reflect.DeepEqual(a, b) {
				t.Fatalf("%q is %s; the library says %s", text, gotText, wantText)
			}
		}
	})
}

package strict_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"headway/internal/strict"
)

// Input is repeated in bounded length, as text.
func TestWhatIsRepeatedIsClipped(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{strings.Repeat("x", 200), strings.Repeat("x", 200)},
		{strings.Repeat("x", 201), strings.Repeat("x", 200) + "…"},
		{strings.Repeat("x", 10<<10), strings.Repeat("x", 200) + "…"},
		{strings.Repeat("x", 199) + "ü", strings.Repeat("x", 199) + "…"},
		{"a\xffb", "a\uFFFDb"},
	} {
		if got := strict.Clip(c.text); got != c.want {
			t.Errorf("%d bytes became %d: %q", len(c.text), len(got), got)
		}
	}
}

// A whole number has no fraction, however it is written.
func TestWholeNumbers(t *testing.T) {
	for text, want := range map[string]int64{
		"12": 12, "12.0": 12, "1.2e1": 12, "0": 0, "-0": 0, "1e3": 1000, "1000": 1000,
		"1.5": -1, "12.0001": -1, "-1": -1, "1001": -1, "1e300": -1, "1e999": -1, "9007199254740993": -1, `"12"`: -1, "true": -1,
	} {
		got := int64(-1)
		faults, err := strict.ReadObject([]byte(`{"n":`+text+`}`), 50, func(r *strict.Reader, _ string) bool {
			r.Whole(&got, 0, 1000)
			return true
		})
		switch {
		case err != nil:
			t.Errorf("%s: %v", text, err)
		case want < 0 && (len(faults) != 1 || faults[0].Pointer != "/n" || got != -1):
			t.Errorf("%s: %v, faults %v; want it refused", text, got, faults)
		case want >= 0 && (len(faults) > 0 || got != want):
			t.Errorf("%s: %v, faults %v; want %d", text, got, faults, want)
		}
	}
}

// A place with a fault gets no second one, nor does what is inside of it.
func TestAPlaceHasOneFault(t *testing.T) {
	at := func(pointers ...string) (list []strict.Fault) {
		for _, p := range pointers {
			list = append(list, strict.Fault{Pointer: p, Reason: "x"})
		}
		return list
	}
	got := strict.Merge(at("/a", "/b/c"), at("/a", "/a/x", "/ab", "/b", "/d", "/d", "/d/e"))
	if want := at("/a", "/b/c", "/ab", "/b", "/d", "/d/e"); !slices.Equal(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
	if all := strict.Merge(at(""), at("/a")); len(all) != 2 {
		t.Errorf("a fault of the whole hides another: %v", all)
	}
}

// A document that is no YAML is wrong at the line where the fault begins.
func TestAFaultOfTheSyntaxIsAtItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"a: [":                      "line 1: did not find expected node content",
		"a: [1\nb: 2\n":             "line 2: did not find expected ',' or ']'",
		"a: 1\nb: [1\nc: 2\n":       "line 2: did not find expected ',' or ']'",
		"a: 1\nb: {c: 1\n":          "line 2: did not find expected ',' or '}'",
		"a: 1\n b: 3\n":             "line 2: mapping values are not allowed in this context",
		"a: 1\nb 2\nc: 3\n":         "line 2: could not find expected ':'",
		"a:\n  - 1\n  b: 2\nc: 3\n": "line 2: did not find expected '-' indicator",
	} {
		_, err := strict.NewYAML([]byte(text), strict.Options{}).Done()
		var broken *strict.SyntaxError
		if !errors.As(err, &broken) || broken.Reason != want {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
}

package strict

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestPatternsMatch(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		matches  []string
		differs  []string
		literal  bool
		anything bool
	}{
		{pattern: "", matches: []string{"", "a", "a/b"}, anything: true},
		{pattern: "*", matches: []string{"", "a"}, anything: true},
		{pattern: "***", matches: []string{"", "a"}, anything: true},
		{pattern: "a", matches: []string{"a"}, differs: []string{"", "b", "aa", "A"}, literal: true},
		{pattern: "llama-*", matches: []string{"llama-", "llama-3.1-8b"}, differs: []string{"llama", "qwen", "a-llama-3"}},
		{pattern: "*-8b", matches: []string{"llama-8b", "-8b"}, differs: []string{"8b", "llama-8b-it"}},
		{pattern: "a*b*c", matches: []string{"abc", "axbxc", "abbcc"}, differs: []string{"ab", "acb", "abcd"}},
		{pattern: "?", matches: []string{"x"}, differs: []string{"", "xy"}},
		{pattern: "us-????-1", matches: []string{"us-east-1"}, differs: []string{"us-west-2", "us-north-1"}},
		{pattern: "?*", matches: []string{"x", "xy"}, differs: []string{""}},
	} {
		g := NewGlob(c.pattern)
		if g.Literal != c.literal || g.any != c.anything {
			t.Errorf("%q: literal %v, any %v", c.pattern, g.Literal, g.any)
		}
		for _, s := range c.matches {
			if !g.Match(s) {
				t.Errorf("%q does not match %q", c.pattern, s)
			}
		}
		for _, s := range c.differs {
			if g.Match(s) {
				t.Errorf("%q matches %q", c.pattern, s)
			}
		}
	}
}

// matchSlowly is the definition of a match.
func matchSlowly(pattern, text string) bool {
	switch {
	case pattern == "":
		return text == ""
	case pattern[0] == '*':
		return matchSlowly(pattern[1:], text) || text != "" && matchSlowly(pattern, text[1:])
	case text == "":
		return false
	}
	return (pattern[0] == '?' || pattern[0] == text[0]) && matchSlowly(pattern[1:], text[1:])
}

func drawText(t *rapid.T, alphabet, label string, most int) string {
	runes := rapid.SliceOfN(rapid.SampledFrom([]rune(alphabet)), 0, most).Draw(t, label)
	return string(runes)
}

func TestAMatchIsWhatItsDefinitionSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern, text := drawText(t, "ab*?", "pattern", 8), drawText(t, "ab", "text", 10)
		want := pattern == "" || matchSlowly(pattern, text)
		if got := NewGlob(pattern).Match(text); got != want {
			t.Fatalf("%q matches %q: %v; want %v", pattern, text, got, want)
		}
	})
}

func TestACoveringPatternMatchesAllThatTheOtherDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := NewGlob(drawText(t, "ab*?", "a", 6)), NewGlob(drawText(t, "ab*?", "b", 6))
		text := drawText(t, "ab", "text", 8)
		if a.Covers(b) && b.Match(text) && !a.Match(text) {
			t.Fatalf("%q is said to cover %q, which alone matches %q", a.Pattern, b.Pattern, text)
		}
		if !a.Covers(a) {
			t.Fatalf("%q does not cover itself", a.Pattern)
		}
	})
}

func TestLongPatternsUseEveryState(t *testing.T) {
	long := strings.Repeat("a", MaxPattern-1)
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{long + "?", long + "b", true},
		{long + "?", long, false},
		{"*" + long, "bbb" + long, true},
		{strings.Repeat("?", MaxPattern), long, false},
		{strings.Repeat("?", MaxPattern), long + "c", true},
		{strings.Repeat("*a", MaxPattern/2), strings.Repeat("a", MaxPattern-1) + "b", false},
		{strings.Repeat("*a", MaxPattern/2), long, true},
	} {
		if got := NewGlob(c.pattern).Match(c.text); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.text, got)
		}
	}
}

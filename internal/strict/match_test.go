package strict_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headway/internal/strict"
)

// A part of a text matches one part of a pattern, never two.
func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"gpu-*-a", "gpu-a", false},
		{"gpu-*-a", "gpu--a", true},
		{"gpu-*-a", "gpu-1-a", true},
		{"ab*b", "ab", false},
		{"ab*b", "abb", true},
		{"a*a*a", "aa", false},
		{"a*a*a", "aaa", true},
		{"*ab*ab*", "ab", false},
		{"*ab*ab*", "abab", true},
		{"*ab*ab*", "xabyabz", true},
		{"*", "", true},
		{"**", "", true},
		{"a", "a", true},
		{"a", "aa", false},
		{"a*", "a", true},
		{"*a", "ba", true},
		{"", "", true},
		{"", "a", false},
	} {
		if got := strict.Match(c.pattern, c.text, nil); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern, text := rapid.StringMatching(`[ab*]{0,6}`).Draw(t, "pattern"), rapid.StringMatching(`[ab]{0,8}`).Draw(t, "text")
		want := regexp.MustCompile("^" + strings.ReplaceAll(pattern, "*", ".*") + "$").MatchString(text)
		if got := strict.Match(pattern, text, nil); got != want {
			t.Fatalf("%q matches %q: %v", pattern, text, got)
		}
	})
}

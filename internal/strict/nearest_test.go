package strict_test

import (
	"strings"
	"testing"

	"headway/internal/strict"
)

// The border of what is near, and which of several is nearest.
func TestTheBorderOfNear(t *testing.T) {
	for _, c := range []struct {
		name  string
		known []string
		want  string
	}{
		{"lesat", []string{"least"}, "least"},                            // a swap is one
		{"abcdef", []string{"abcdxy"}, "abcdxy"},                         // two of six
		{"abcdef", []string{"abcxyz"}, ""},                               // three of six
		{"ab", []string{"ac"}, "ac"},                                     // one is always allowed
		{"REGION", []string{"region"}, "region"},                         // case aside
		{"abcdef", []string{"abcdex", "abcdxy"}, "abcdex"},               // the nearest, in any place
		{"abcdef", []string{"abcdxy", "abcdex"}, "abcdex"},               //
		{strings.Repeat("x", 65), []string{strings.Repeat("x", 65)}, ""}, // too long to be compared
		{strings.Repeat("x", 64), []string{strings.Repeat("x", 64)}, strings.Repeat("x", 64)},
	} {
		if got := strict.Nearest(c.name, c.known); got != c.want {
			t.Errorf("Nearest(%q, %q) = %q, want %q", c.name, c.known, got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"listen", "log_level", "max_in_flight", "region"}
	for name, want := range map[string]string{
		"lsiten":                     "listen", // neighbours swapped
		"Region":                     "region",
		"log-level":                  "log_level",
		"max_inflight":               "max_in_flight",
		"regoin":                     "region",
		"weight":                     "",
		"":                           "",
		strings.Repeat("listen", 20): "",
	} {
		if got := strict.Nearest(name, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

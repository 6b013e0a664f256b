package typo_test

import (
	"strings"
	"testing"

	"headway/internal/typo"
)

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
		if got := typo.Nearest(name, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

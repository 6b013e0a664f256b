package proxy

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAfterOfAHead(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                      time.Second,
		"soon":                  time.Second,
		"1.5":                   time.Second,
		"0":                     0,
		"-3":                    0,
		"7":                     7 * time.Second,
		" 7 ":                   7 * time.Second,
		"301":                   maxRetryAfter,
		"99999999999999999999":  maxRetryAfter,
		"-99999999999999999999": 0,
		now.Add(9 * time.Second).Format(http.TimeFormat): 9 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):      0,
		now.Add(time.Hour).Format(http.TimeFormat):       maxRetryAfter,
	} {
		if got := retryAfterOf(text, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

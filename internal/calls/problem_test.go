package calls_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/calls"
)

// Which limit was reached is said in a sentence of its own, without a figure
// that would tell one caller of another.
func TestEachLimitHasItsSentence(t *testing.T) {
	said := map[string]bool{}
	for limit, word := range map[string]string{"key": "credential", "address": "address sends", "failures": "not good"} {
		p := calls.ProblemOf(&access.LimitedError{Limit: limit, RetryAfter: 1500 * time.Millisecond})
		if p.Status() != http.StatusTooManyRequests || p.RetryAfter != 1500*time.Millisecond {
			t.Errorf("%s: %+v", limit, p)
		}
		if !strings.Contains(p.Detail, word) || !strings.HasSuffix(p.Detail, ".") || strings.Contains(p.Detail, "one failures") {
			t.Errorf("%s: %q", limit, p.Detail)
		}
		said[p.Detail] = true
	}
	if len(said) != 3 {
		t.Errorf("%v; want a sentence for each limit", said)
	}
}

// What HTTP has a name for is called by it.
func TestTitlesAreTheUsualTerms(t *testing.T) {
	for _, code := range []string{
		api.CodePreconditionFailed, api.CodePreconditionMissing, api.CodeUnauthenticated, api.CodeForbidden, api.CodeForeignHost, api.CodeConflict, api.CodeInternal,
	} {
		if a := (&calls.Problem{Code: code}).Answer(); a.Title != http.StatusText(a.Status) {
			t.Errorf("%s: %q; want %q", code, a.Title, http.StatusText(a.Status))
		}
	}
}

// A token that cannot be checked waits as long as the issuer may not be asked.
func TestAnIssuerThatIsAwayTellsWhen(t *testing.T) {
	for wait, want := range map[time.Duration]time.Duration{9 * time.Second: 9 * time.Second, 0: time.Second, -time.Second: time.Second} {
		p := calls.ProblemOf(&access.AwayError{RetryAfter: wait})
		if p.Code != api.CodeIssuerUnavailable || p.Status() != http.StatusServiceUnavailable || p.RetryAfter != want {
			t.Errorf("after %s: %+v; want Retry-After %s", wait, p, want)
		}
	}
}

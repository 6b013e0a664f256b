package apiv1_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
)

// Which limit was reached is said in a sentence of its own, without a figure
// that would tell one caller of another.
func TestEachLimitHasItsSentence(t *testing.T) {
	said := map[string]bool{}
	for limit, word := range map[string]string{"key": "credential", "address": "address sends", "failures": "not good", "unknown_keys": "not known so far"} {
		p := apiv1.ProblemOf(&access.LimitedError{Limit: limit, RetryAfter: 1500 * time.Millisecond})
		if p.Status() != http.StatusTooManyRequests || p.RetryAfter != 1500*time.Millisecond {
			t.Errorf("%s: %+v", limit, p)
		}
		if !strings.Contains(p.Detail, word) || !strings.HasSuffix(p.Detail, ".") || strings.Contains(p.Detail, "one failures") {
			t.Errorf("%s: %q", limit, p.Detail)
		}
		said[p.Detail] = true
	}
	if len(said) != 4 {
		t.Errorf("%v; want a sentence for each limit", said)
	}
}

// What HTTP has a name for is called by it.
func TestTitlesAreTheUsualTerms(t *testing.T) {
	for _, code := range []string{
		api.CodePreconditionFailed, api.CodePreconditionMissing, api.CodeUnauthenticated, api.CodeForbidden, api.CodeForeignHost, api.CodeConflict, api.CodeInternal,
		api.CodeNotFound, api.CodeMethodNotAllowed, api.CodeUnsupportedMedia, api.CodeRequestTimeout, api.CodeUpgradeRequired, api.CodeRateLimited, api.CodeTimeout,
	} {
		if a := (&apiv1.Problem{Code: code}).Answer(); !strings.EqualFold(a.Title, http.StatusText(a.Status)) {
			t.Errorf("%s: %q; want %q", code, a.Title, http.StatusText(a.Status))
		}
	}
}

// A token that cannot be checked waits as long as the issuer may not be asked,
// and learns why: an issuer that answers is not called away.
func TestATokenThatCannotBeCheckedLearnsWhyAndUntilWhen(t *testing.T) {
	for why, word := range map[error]string{access.ErrIssuerAway: "cannot be reached", access.ErrKeyUnknown: "is not known so far"} {
		for wait, want := range map[time.Duration]string{9 * time.Second: " 9 s", 8100 * time.Millisecond: " 9 s", 0: " 1 s", -time.Second: " 1 s"} {
			p := apiv1.ProblemOf(&access.UncheckedError{Why: why, RetryAfter: wait})
			if p.Code != api.CodeIssuerUnavailable || p.Status() != http.StatusServiceUnavailable || p.RetryAfter != max(wait, time.Second) {
				t.Errorf("%v, after %s: %+v", why, wait, p)
			}
			if !strings.Contains(p.Detail, word) || !strings.Contains(p.Detail, want) || strings.Contains(p.Answer().Title, "reached") {
				t.Errorf("%v, after %s: %s: %q; want %q and %q", why, wait, p.Answer().Title, p.Detail, word, want)
			}
		}
	}
}

// A caller that gave up gets its own problem, not that of the store.
func TestKeysThatCannotBeWrittenAreUnavailable(t *testing.T) {
	for err, want := range map[error]string{} {
		if p := apiv1.ProblemOf(err); p.Code != want {
			t.Errorf("%v: %s, want %s", err, p.Code, want)
		}
	}
}

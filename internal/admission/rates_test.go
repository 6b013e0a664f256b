package admission_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/admission"
)

func newRates(t testing.TB, requests, tokens int64) *admission.Admission {
	t.Helper()
	a, err := admission.New(admission.Options{Metrics: prometheus.NewRegistry(), Requests: requests, Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRequestsAreLimitedByTheMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newRates(t, 0, 0)
		c := &admission.Caller{ID: "key:1", Requests: 3}
		for i := range int64(3) {
			s, err := a.Enter(c)
			want := admission.Standing{Requests: admission.Quota{Limit: 3, Remaining: 2 - i, Reset: time.Duration(60-10*i) * time.Second}}
			if err != nil || s != want {
				t.Errorf("request %d: %+v, %v", i, s, err)
			}
			time.Sleep(10 * time.Second)
		}
		s, err := a.Enter(c)
		refused, is := errors.AsType[*admission.LimitError](err)
		if !is || refused.Tokens || refused.RetryAfter != 30*time.Second || s.Requests.Remaining != 0 {
			t.Errorf("%+v, %v", s, err)
		}
		if _, err := a.Enter(&admission.Caller{ID: "key:2", Requests: 3}); err != nil {
			t.Errorf("another caller: %v", err)
		}
		time.Sleep(30 * time.Second)
		if s, err := a.Enter(c); err != nil || s.Requests.Remaining != 2 {
			t.Errorf("in the next window: %+v, %v", s, err)
		}
	})
}

// A request that passes its caller's limit of tokens completes, since they are
// counted at its end. The next is refused until the window ends.
func TestPitfallP31TokensAreCountedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newRates(t, 0, 100)
		c := &admission.Caller{ID: "key:1"}
		if s, err := a.Enter(c); err != nil || s.Tokens != (admission.Quota{Limit: 100, Remaining: 100}) || s.Requests != (admission.Quota{}) {
			t.Errorf("%+v, %v", s, err)
		}
		time.Sleep(90 * time.Second) // a long stream: it counts in the window of its end
		a.Charge(c, 1000)
		time.Sleep(59 * time.Second)
		s, err := a.Enter(c)
		refused, is := errors.AsType[*admission.LimitError](err)
		if !is || !refused.Tokens || refused.RetryAfter != time.Second || s.Tokens.Remaining != 0 || s.Tokens.Reset != time.Second {
			t.Errorf("%+v, %v", s, err)
		}
		time.Sleep(time.Second)
		if s, err := a.Enter(c); err != nil || s.Tokens.Remaining != 100 {
			t.Errorf("in the next window: %+v, %v", s, err)
		}
	})
}

func TestACallersOwnLimitWins(t *testing.T) {
	a := newRates(t, 2, 50)
	for own, want := range map[int64]int64{0: 2, 5: 5, -1: 0} {
		s, err := a.Enter(&admission.Caller{ID: fmt.Sprint(own), Requests: own, Tokens: own})
		if err != nil || s.Requests.Limit != want {
			t.Errorf("own limit %d: %+v, %v", own, s, err)
		}
	}
	if s, err := newRates(t, 0, 0).Enter(&admission.Caller{ID: "a"}); err != nil || s != (admission.Standing{}) {
		t.Errorf("without any limit: %+v, %v", s, err)
	}
}

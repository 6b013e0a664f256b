package outbound_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/outbound"
)

// receiver answers each request as a test wants.
type receiver func(r *http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f receiver) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answered(r *http.Request, status int, header http.Header) *http.Response {
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("x")), Request: r}
}

// A post is repeated until it arrives, after the time that the server asks for,
// and each call is counted.
func TestAPostIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := newCounted(t)
		var at []time.Time
		p := outbound.Poster{Count: calls.OIDC, Tries: 4, First: time.Second, Longest: time.Minute, Client: &http.Client{
			Transport: receiver(func(r *http.Request) (*http.Response, error) {
				at = append(at, time.Now())
				body, _ := io.ReadAll(r.Body)
				if string(body) != "{}" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X") != "1" {
					t.Errorf("a request with %s, %v", body, r.Header)
				}
				switch len(at) {
				case 1:
					return nil, errors.New("away")
				case 2:
					return answered(r, 503, http.Header{"Retry-After": {"30"}}), nil
				case 3:
					return answered(r, 429, http.Header{"Retry-After": {"999999999999"}}), nil
				}
				return answered(r, 204, nil), nil
			}),
		}}
		if err := p.Retry(t.Context(), func(int) (bool, error) {
			return false, p.Post(t.Context(), "http://receiver.test/secret", http.Header{"X": {"1"}}, []byte("{}"))
		}); err != nil || len(at) != 4 {
			t.Fatalf("%d calls, %v", len(at), err)
		}
		for i, wait := range []struct{ least, most time.Duration }{{0, time.Second}, {30 * time.Second, 30 * time.Second}, {0, time.Minute}} {
			if took := at[i+1].Sub(at[i]); took < wait.least || took > wait.most {
				t.Errorf("wait %d took %s", i+1, took)
			}
		}
		if success, failed := calls.counts(); success != 1 || failed != 3 {
			t.Errorf("counted %d and %d", success, failed)
		}
	})
}

// It ends after all tries, with an error that is final, or with the context, and
// says why without the URL.
func TestAPostIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		p := outbound.Poster{Tries: 3, First: time.Second, Longest: time.Minute, Client: &http.Client{
			Transport: receiver(func(r *http.Request) (*http.Response, error) {
				if r.URL.Host == "away.test" {
					return nil, errors.New("away")
				}
				return answered(r, 500, nil), nil
			}),
		}}
		for to, want := range map[string]string{
			"http://fails.test/secret": "the receiver answered 500 Internal Server Error", "http://away.test/secret": "away", "http://[secret": "missing ']' in host",
		} {
			tries := 0
			err := p.Retry(ctx, func(int) (bool, error) {
				tries++
				return false, p.Post(ctx, to, nil, nil)
			})
			if err == nil || err.Error() != want || tries != 3 {
				t.Errorf("%s: %d tries, %v", to, tries, err)
			}
		}
		final := 0
		if err := p.Retry(ctx, func(try int) (bool, error) {
			final = try
			return try == 2, errors.New("refused")
		}); err == nil || final != 2 {
			t.Errorf("the error of try %d was final: %v", final, err)
		}
		cancel()
		if err := p.Retry(ctx, func(try int) (bool, error) { final = try; return false, errors.New("refused") }); err == nil || final != 1 {
			t.Errorf("%d tries after the end, %v", final, err)
		}
	})
}

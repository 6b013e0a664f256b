package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Poster posts JSON to servers that may be away. It is safe for concurrent use.
type Poster struct {
	Client         *http.Client
	Count          *Counter      // of each call
	Tries          int           // of one message
	First, Longest time.Duration // waits between them are random, from half of a bound to it; it doubles from First to Longest
}

// StatusError is an answer other than 2xx.
type StatusError struct {
	Status     int
	RetryAfter time.Duration // that the server asks for; 0: nothing
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the receiver answered %d %s", e.Status, http.StatusText(e.Status))
}

// maxAnswer is how much of an answer is read, so that the connection serves
// again.
const maxAnswer = 64 << 10

// Post makes one call. Its error is a *StatusError, or has no URL: a path or
// query may be a credential.
func (p *Poster) Post(ctx context.Context, to string, header http.Header, body []byte) error {
	err := p.post(ctx, to, header, body)
	p.Count.Add(err == nil)
	if named, is := errors.AsType[*url.Error](err); is {
		err = named.Err
	}
	return err
}

func (p *Poster) post(ctx context.Context, to string, header http.Header, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	maps.Copy(r.Header, header)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "headway")
	answer, err := p.Client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	if answer.StatusCode/100 == 2 {
		return nil
	}
	seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
	return &StatusError{answer.StatusCode, time.Duration(min(max(seconds, 0), 1<<20)) * time.Second}
}

// Retry makes a call until it succeeds, its error is final, Tries are used up
// or ctx ends. It waits as long as the server asks, but no longer than Longest.
func (p *Poster) Retry(ctx context.Context, call func(try int) (final bool, err error)) error {
	for try := 1; ; try++ {
		final, err := call(try)
		if err == nil || final || try == p.Tries {
			return err
		}
		most := min(p.Longest, p.First<<(try-1))
		wait := most/2 + rand.N(most/2+1)
		if answer, is := errors.AsType[*StatusError](err); is {
			wait = max(wait, min(p.Longest, answer.RetryAfter))
		}
		if !Pause(ctx, wait) {
			return err
		}
	}
}

// Pause waits, and reports whether ctx is still valid.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxAnswer bounds an answer in bytes. A page of a thousand heads has about a
// million.
const maxAnswer = 16 << 20

type call struct {
	what       string // for errors: "list the heads"
	method     string
	path       string // escaped, below the base
	query      url.Values
	header     http.Header
	in         any // encoded as JSON; nil: no body
	out        any // decoded from JSON; nil: the body is not looked at
	idempotent bool
	success    []int // besides 200; none of them: any below 300
}

type answer struct {
	status  int
	header  http.Header
	repeats int // before this answer
}

// do makes a call, and retries it while that is safe, allowed and useful.
func (c *Client) do(ctx context.Context, k *call) (*answer, error) {
	body, err := k.body()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.what, err)
	}
	c.budget.earn()
	for n := 0; ; n++ {
		a, err := c.try(ctx, k, body)
		if err == nil {
			a.repeats = n
			return a, nil
		}
		err = &callError{what: k.what, repeats: n, err: err}
		asked, repeat := repeatable(ctx, k, err)
		if !repeat || n >= c.repeats || asked > maxAsk || !c.budget.spend() {
			return nil, err
		}
		wait := c.wait(n, asked)
		c.log.Debug("a call is repeated", "call", k.what, "after", wait, "error", err)
		if !pause(ctx, wait) {
			return nil, err
		}
	}
}

// callError adds the call to an error.
type callError struct {
	what    string
	repeats int
	err     error
}

func (e *callError) Error() string {
	if e.repeats > 0 {
		return fmt.Sprintf("%s: tried %d times: %v", e.what, e.repeats+1, e.err)
	}
	return e.what + ": " + e.err.Error()
}

func (e *callError) Unwrap() error { return e.err }

// repeatable reports whether a failed call may be retried, and the router's
// Retry-After.
func repeatable(ctx context.Context, k *call, err error) (time.Duration, bool) {
	if ctx.Err() != nil || errors.Is(err, ErrAnswer) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalid) || errors.Is(err, errRedirect) || errors.Is(err, errToken) {
		return 0, false
	}
	if refused, ok := errors.AsType[*Error](err); ok {
		switch {
		case refused.Status == http.StatusTooManyRequests, refused.Status == http.StatusServiceUnavailable && refused.RetryAfter > 0:
			return refused.RetryAfter, true // it was not processed
		case refused.Status == http.StatusBadGateway, refused.Status == http.StatusServiceUnavailable, refused.Status == http.StatusGatewayTimeout:
			return refused.RetryAfter, k.idempotent
		}
		return 0, false
	}
	return 0, k.idempotent || neverSent(err)
}

// neverSent reports that there was no connection.
func neverSent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

func (k *call) body() ([]byte, error) {
	if k.in == nil {
		return nil, nil
	}
	if raw, ok := k.in.(json.RawMessage); ok {
		if len(raw) == 0 {
			return nil, fmt.Errorf("%w: there is no document", ErrInvalid)
		}
		return raw, nil // as it is, so that the router says what is wrong with it
	}
	body, err := json.Marshal(k.in)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return body, nil
}

var errToken = errors.New("no token")

// try makes one attempt. Errors without an answer are ErrUnavailable, unless
// ctx has ended.
func (c *Client) try(ctx context.Context, k *call, body []byte) (*answer, error) {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.send(limited, k, body)
	if err != nil {
		return nil, noAnswer(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := readAll(resp.Body, maxAnswer)
	if err != nil {
		return nil, noAnswer(ctx, err)
	}
	if !k.succeeded(resp.StatusCode) {
		return nil, newError(resp.StatusCode, resp.Header, text, time.Now())
	}
	if k.out != nil {
		if raw, ok := k.out.(*json.RawMessage); ok && json.Valid(text) {
			*raw = text
		} else if err := json.Unmarshal(text, k.out); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
		}
	}
	return &answer{status: resp.StatusCode, header: resp.Header}, nil
}

func (k *call) succeeded(status int) bool {
	for _, s := range k.success {
		if status == s {
			return true
		}
	}
	return status == http.StatusOK || len(k.success) == 0 && status > http.StatusOK && status < http.StatusMultipleChoices
}

// send returns the answer, whose body the caller closes.
func (c *Client) send(ctx context.Context, k *call, body []byte) (*http.Response, error) {
	target := c.base.String() + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	var reader io.Reader = http.NoBody
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, reader)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.agent)
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != nil {
		token, err := c.token(ctx)
		if err == nil {
			err = checkToken(token)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errToken, err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed.Err // the caller says which call it was
		}
		return nil, err
	}
	return resp, nil
}

// noAnswer marks an error of the connection, or the timeout of an attempt. The
// end of the caller's context is no sign of the router.
func noAnswer(ctx context.Context, err error) error {
	for _, other := range []error{errRedirect, errToken, ErrTooLarge, ErrInvalid} {
		if errors.Is(err, other) {
			return err
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func readAll(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%w: the answer has more than %d bytes", ErrTooLarge, most)
	}
	return text, err
}

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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
	once       bool // without retries
	success    int  // besides 200; 0: any below 300
}

// get reads a T.
func get[T any](ctx context.Context, c *Client, what, path string) (T, error) {
	return fetch[T](ctx, c, &call{what: what, method: http.MethodGet, path: path, idempotent: true})
}

// fetch makes a call whose answer is a T.
func fetch[T any](ctx context.Context, c *Client, k *call) (out T, err error) {
	k.out = &out
	_, err = c.do(ctx, k)
	return out, err
}

// carryOut makes a call whose answer has no content.
func (c *Client) carryOut(ctx context.Context, k *call) error {
	k.success = http.StatusNoContent
	_, err := c.do(ctx, k)
	return err
}

// do makes a call, and retries it while that is safe, allowed and useful. It
// returns the header of the answer.
func (c *Client) do(ctx context.Context, k *call) (http.Header, error) {
	body, err := k.body()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.what, err)
	}
	if !k.once {
		c.budget.earn()
	}
	for n := 0; ; n++ {
		header, err := c.try(ctx, k, body)
		if err == nil {
			return header, nil
		}
		err = &callError{what: k.what, repeats: n, err: err}
		asked, repeat := repeatable(ctx, k, err)
		if k.once || !repeat || n >= c.repeats || asked > maxAsk || !c.budget.spend() {
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
	if ctx.Err() != nil || own(err) || errors.Is(err, ErrAnswer) {
		return 0, false
	}
	if refused, ok := errors.AsType[*Error](err); ok {
		switch refused.Status {
		case http.StatusTooManyRequests:
			return refused.RetryAfter, true
		case http.StatusServiceUnavailable: // with Retry-After it was not processed
			return refused.RetryAfter, k.idempotent || refused.RetryAfter > 0
		case http.StatusBadGateway, http.StatusGatewayTimeout:
			return refused.RetryAfter, k.idempotent
		}
		return 0, false
	}
	op, ok := errors.AsType[*net.OpError](err)
	return 0, k.idempotent || ok && op.Op == "dial" // there was no connection
}

// own reports an error of this side.
func own(err error) bool {
	return errors.Is(err, errRedirect) || errors.Is(err, errToken) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalid)
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
func (c *Client) try(ctx context.Context, k *call, body []byte) (http.Header, error) {
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
	status := resp.StatusCode
	if status != http.StatusOK && status != k.success && (k.success != 0 || status < http.StatusOK || status >= http.StatusMultipleChoices) {
		return nil, newError(resp, text)
	}
	if raw, ok := k.out.(*json.RawMessage); ok && json.Valid(text) {
		*raw = text
	} else if k.out != nil {
		err = decode(text, k.out)
	}
	return resp.Header, err
}

func decode(text []byte, out any) error {
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return nil
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
	maps.Copy(req.Header, k.header)
	req.Header.Set("User-Agent", c.agent)
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if err := c.authorize(ctx, req.Header); err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err // the caller says which call it was
	}
	return resp, err
}

// open makes one attempt at a stream, which the caller closes.
func (c *Client) open(ctx context.Context, k *call) (io.ReadCloser, error) {
	resp, err := c.send(ctx, k, nil)
	if err != nil {
		return nil, noAnswer(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := readAll(resp.Body, maxAnswer) // without it there is still the status
	return nil, newError(resp, text)
}

// noAnswer marks an error of the connection, or the timeout of an attempt. The
// end of the caller's context is no sign of the router.
func noAnswer(ctx context.Context, err error) error {
	if own(err) {
		return err
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

package proxy

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"headway/internal/access"
	"headway/internal/openai"
)

// ErrStopping is the cause with which the contexts of requests end that the service
// cannot finish before it stops. Their callers are still there.
var ErrStopping = errors.New("the service is stopping")

func isStopping(ctx context.Context) bool { return errors.Is(context.Cause(ctx), ErrStopping) }

// cutOff is the error for a caller that is still there though its request's context has
// ended; nil: the context goes on, or the caller left.
func cutOff(ctx context.Context) *openai.Error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, ErrStopping):
		return stopping()
	case errors.Is(cause, access.ErrRevoked):
		return keyRevoked()
	}
	return nil
}

// gone is the end of a request whose context has ended.
func gone(ctx context.Context) error {
	if e := cutOff(ctx); e != nil {
		return e
	}
	return ErrClientGone
}

func stopping() *openai.Error {
	return &openai.Error{
		Status: http.StatusServiceUnavailable, Code: "stopping", RetryAfter: retryAfter(),
		Message: "The service is stopping and could not finish the request. Send it again.",
	}
}

// stopped counts the requests that a stop ended.
type stopped struct{ cut, refused atomic.Int64 }

func (s *stopped) count(x *exchange, err error) {
	switch {
	case !isStopping(x.ctx) || errors.Is(err, ErrClientGone):
	case x.begun:
		s.cut.Add(1)
	default:
		s.refused.Add(1)
	}
}

// Stop ends the wait for bodies that have not come whole. The contexts of all
// requests have ended with ErrStopping before.
func (p *Proxy) Stop() { p.underway.stop() }

// PaceCollector has the process collect its garbage when it pays, until ctx ends.
func (p *Proxy) PaceCollector(ctx context.Context) error {
	p.bodies.pace.follow(ctx)
	return nil
}

// Stopped is how many answers were cut in their middle since the service stops, and
// how many requests were refused.
func (p *Proxy) Stopped() (cut, refused int64) {
	return p.stopped.cut.Load(), p.stopped.refused.Load()
}

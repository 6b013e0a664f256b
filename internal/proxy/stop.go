package proxy

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

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
	case !isStopping(x.r.Context()) || errors.Is(err, ErrClientGone):
	case x.begun:
		s.cut.Add(1)
	default:
		s.refused.Add(1)
	}
}

// Stop ends the wait for bodies that have not come whole. The contexts of all
// requests have ended with ErrStopping before.
func (p *Proxy) Stop() { p.bodies.stop() }

// Stopped is how many answers were cut in their middle since the service stops, and
// how many requests were refused.
func (p *Proxy) Stopped() (cut, refused int64) {
	return p.stopped.cut.Load(), p.stopped.refused.Load()
}

// receiving are the requests whose body is awaited. A context that ends interrupts
// no read of a body.
type receiving struct {
	mu   sync.Mutex
	from map[*http.ResponseController]struct{}
}

// begin notes that a body is awaited, end that it is no more.
func (r *receiving) begin(rc *http.ResponseController) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from[rc] = struct{}{}
}

func (r *receiving) end(rc *http.ResponseController) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.from, rc)
}

func (r *receiving) awaited() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return float64(len(r.from))
}

// interrupt ends the read of one body, if there is one.
func (r *receiving) interrupt(rc *http.ResponseController) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, awaited := r.from[rc]; awaited {
		_ = rc.SetReadDeadline(time.Unix(1, 0))
	}
}

// stop ends every read of a body. One whose deadline is moved meanwhile looks at its
// context after that, which has ended before.
func (r *receiving) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for rc := range r.from {
		_ = rc.SetReadDeadline(time.Unix(1, 0))
	}
}

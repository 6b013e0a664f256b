package upstream

import (
	"context"
	"sync"
	"time"
)

// connect is take for a call whose Silence is called when it is due meanwhile.
func (h *Heads) connect(ctx context.Context, call *Call, limit time.Duration, end, used time.Time, fresh bool) (*conn, *Error) {
	if call.Silence == nil {
		return h.take(ctx, call.Endpoint, limit, end, used, fresh)
	}
	next, err := call.Silence()
	if err != nil {
		return nil, &Error{Kind: Canceled, Err: err}
	}
	if next.After(time.Now().Add(limit)) { // not before take returns
		return h.take(ctx, call.Endpoint, limit, end, used, fresh)
	}
	return h.connectAloud(ctx, call, limit, end, used, fresh)
}

func (h *Heads) connectAloud(ctx context.Context, call *Call, limit time.Duration, end, used time.Time, fresh bool) (c *conn, failed *Error) {
	_ = Waiting(ctx, call.Silence, func(ctx context.Context) error {
		c, failed = h.take(ctx, call.Endpoint, limit, end, used, fresh)
		return nil
	})
	return c, failed
}

// Waiting runs f, which waits for something else than bytes of a head, and calls
// silence, of a Call, when that is due meanwhile. It is another goroutine that does,
// which has ended when Waiting returns. An error of silence ends f's context. A nil
// silence is not called.
func Waiting(ctx context.Context, silence func() (next time.Time, err error), f func(context.Context) error) error {
	if silence == nil {
		return f(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-over:
				return
			case <-timer.C:
			}
			next, err := silence()
			if err != nil {
				cancel(err)
				return
			}
			timer.Reset(time.Until(next))
		}
	})
	defer beside.Wait()
	defer close(over)
	return f(ctx)
}

package proxy

import (
	"context"
	"io"
	"sync/atomic"
	"time"
)

// leftEvery is how often a caller whose body is unread is looked after.
const leftEvery = 100 * time.Millisecond

// upload is a body on its way from the caller to a head. While it is unread, net/http
// does not see that its caller leaves, and the request may wait for a place, or for a
// head that takes nothing: a goroutine looks then, until close.
type upload struct {
	x     *exchange
	begun bool          // some of it was asked for: no other head can get it any more
	kept  bool          // it was read before it is sent
	sent  int64         // bytes of it
	waits time.Duration // for the caller
	ended atomic.Bool
	until time.Time

	leave   context.CancelFunc // of the request's context; nil: no goroutine looks
	watched chan struct{}      // closed when the goroutine has ended
}

func newUpload(x *exchange) *upload {
	u := &upload{x: x}
	if left := x.caller.Left; left != nil {
		var ctx context.Context
		ctx, u.leave = context.WithCancel(x.r.Context())
		x.r, u.watched = x.r.WithContext(ctx), make(chan struct{})
		go u.watch(ctx, left)
	}
	return u
}

// watch ends the request's context once the caller has left.
func (u *upload) watch(ctx context.Context, left func() bool) {
	defer close(u.watched)
	every := time.NewTicker(leftEvery)
	defer every.Stop()
	for !u.ended.Load() { // then net/http looks
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		if left() {
			u.leave()
			return
		}
	}
}

// keep reads the body of a request that has to wait, if it is not known to be too long
// for that. What a caller sends that is not read would hide that it left: its end
// comes behind.
func (u *upload) keep() error {
	if u == nil || u.begun || u.kept || u.x.r.ContentLength > u.x.proxy.o.Limits.MaxBody {
		return nil
	}
	err := u.x.proxy.bodies.read(u.x.rc, u.x.r, &u.x.body)
	u.kept = err == nil
	u.ended.Store(u.kept)
	return err
}

func (u *upload) close() {
	if u != nil && u.leave != nil {
		u.leave()
		<-u.watched
	}
}

func (u *upload) Read(p []byte) (int, error) {
	u.begun = true
	limit := u.x.proxy.o.Limits.BodyTime
	now := time.Now()
	if u.until.Sub(now) < limit/2 {
		u.until = now.Add(limit)
		_ = u.x.rc.SetReadDeadline(u.until)
		if err := cutOff(u.x.r.Context()); err != nil { // the deadline may be later than that of stop
			return 0, err
		}
	}
	n, err := u.x.r.Body.Read(p)
	if u.sent += int64(n); err == nil && u.sent == u.x.r.ContentLength {
		err = io.EOF // over HTTP/2 it may come later
	}
	u.waits += time.Since(now)
	if err == io.EOF {
		u.ended.Store(true)
		_ = u.x.rc.SetReadDeadline(time.Time{})
	}
	return n, err //nolint:wrapcheck // upstream makes a kind of it
}

// waitedFor is how long the head waited for the caller.
func (u *upload) waitedFor() time.Duration {
	if u == nil {
		return 0
	}
	return u.waits
}

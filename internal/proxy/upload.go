package proxy

import (
	"bytes"
	"context"
	"errors"
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
	sent  int64         // bytes of it that were not read before
	ahead io.Reader     // what was read of it before; nil: nothing
	waits time.Duration // for the caller
	fault error         // why no more could be read; nil: it was, or its end came
	ended atomic.Bool
	until time.Time

	leave   context.CancelFunc // of the request's context; nil: no goroutine looks
	watched chan struct{}      // closed when the goroutine has ended
}

func newUpload(x *exchange) *upload {
	u := &upload{x: x}
	if left := x.caller.Left; left != nil {
		var ctx context.Context
		ctx, u.leave = context.WithCancel(x.ctx)
		x.ctx, u.watched = ctx, make(chan struct{})
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
// for that: what a caller sends that is not read would hide that it left. Of one that
// turns out to be too long, or for which there is no room, the rest stays unread.
func (u *upload) keep() error {
	if u == nil || u.begun || u.kept || u.ahead != nil || u.x.r.ContentLength > u.x.proxy.o.Limits.MaxBody {
		return nil
	}
	x := u.x
	in := x.incoming()
	switch err := in.read(); {
	case err == nil:
		u.kept = true
		u.ended.Store(true)
	case errors.Is(err, errTooLong), errors.Is(err, errNoRoom):
		in.deaf()
		u.ahead = io.MultiReader(bytes.NewReader(x.body.b), bytes.NewReader(x.body.past[:x.body.over]))
	default:
		return err
	}
	return nil
}

func (u *upload) close() {
	if u != nil && u.leave != nil {
		u.leave()
		<-u.watched
	}
}

// Read reads what was read before, then from the caller, which has time for each part
// of its body while that is waited for, and none passes while the head takes nothing.
func (u *upload) Read(p []byte) (int, error) {
	u.begun = true
	if u.ahead != nil {
		if n, err := u.ahead.Read(p); err == nil {
			return n, nil
		}
		u.ahead = nil
	}
	x := u.x
	now := time.Now()
	if u.until.Sub(now) <= x.proxy.o.Limits.BodyTime {
		u.until = now.Add(x.proxy.o.Limits.silence())
		_ = x.rc.SetReadDeadline(u.until)
		if err := cutOff(x.ctx); err != nil { // the deadline may be later than that of stop
			return 0, err
		}
	}
	n, err := x.r.Body.Read(p)
	if u.sent += int64(n); err == nil && int64(len(x.body.b))+u.sent == x.r.ContentLength {
		err = io.EOF // over HTTP/2 it may come later
	}
	u.waits += time.Since(now)
	switch err {
	case nil:
	case io.EOF:
		u.ended.Store(true)
	default:
		u.fault = err
	}
	if err == io.EOF || x.r.ProtoMajor >= 2 { // where one that passes ends the body, also while nothing is read
		u.until = time.Time{}
		_ = x.rc.SetReadDeadline(time.Time{})
	}
	return n, err //nolint:wrapcheck // upstream makes a kind of it
}

// unread reports whether the head answered before the end of the caller's body.
func (x *exchange) unread() bool { return x.early && x.upload != nil && !x.upload.ended.Load() }

// gone is the end of a request whose caller left, or sends no more of its body.
func (x *exchange) gone() error {
	if x.upload != nil && x.upload.fault != nil {
		return x.proxy.bodies.failed(x.ctx, x.upload.fault)
	}
	return gone(x.ctx)
}

// waitedFor is how long the head waited for the caller.
func (u *upload) waitedFor() time.Duration {
	if u == nil {
		return 0
	}
	return u.waits
}

package proxy

import (
	"time"

	"headway/internal/upstream"
)

// A head has limits of its own: one that waits long for the rest of a request, or until
// its answer is taken, closes or says so. If it was the caller that it waited for, it is
// not to blame.
const (
	slowCaller = time.Second            // of waiting for a caller
	slowPart   = 100 * time.Millisecond // as well, where it is the larger part of the time
)

// waited reports whether an attempt waited so long for its caller that its head may have
// given up.
func (a *attempt) waited(d time.Duration) bool {
	return d >= slowCaller || d >= slowPart && 2*d > a.x.proxy.o.Now().Sub(a.sent)
}

// slowUpload reports whether a head did not wait for the end of a request.
func (a *attempt) slowUpload() bool { return a.early && a.waited(a.x.upload.waitedFor()) }

// gaveUp reports whether a head that failed so gave up on the caller. The second head of
// a hedge waits for no caller as long as the first may write to it.
func (a *attempt) gaveUp(kind upstream.Kind) bool {
	if a != &a.x.attempt {
		return false
	}
	switch kind {
	case upstream.Write, upstream.Reset, upstream.EndOfStream:
		return a.slowUpload() || a.x.begun && a.waited(a.x.reader.waited)
	case upstream.TotalTimeout:
		return 2*(a.x.upload.waitedFor()+a.x.reader.waited) > a.x.proxy.o.Now().Sub(a.x.tried)
	}
	return false
}

package proxy

import (
	"errors"
	"net/http"
	"time"
)

// Bounds of writing to a caller.
const (
	writeStep  = 64 << 10    // bytes that it takes within the time that it has
	buffered   = 2 << 10     // bytes that are written without waiting for it
	writeSlack = time.Second // by which that time may be shorter, since moving a deadline costs a call
)

var errLeft = errors.New("the caller left")

// reader is the caller as the one who takes the answer: it has
// Limits.ReaderStalls for each part of it, and no time is counted while nothing
// is written. The server's own limit for answers does not hold here.
//
// Over HTTP/1 a deadline is only looked at while something is written. Over
// HTTP/2 one that passes ends the stream at any time, so that a timer runs
// during each write instead.
type reader struct {
	lasts time.Time     // HTTP/1: the deadline that is set
	timer *time.Timer   // HTTP/2: ends the stream
	runs  bool          // the timer
	fired chan struct{} // the timer has, and has done its work
	left  bool

	waited time.Duration // until it took what was written
}

func (r *reader) open(x *exchange) {
	if x.r.ProtoMajor < 2 {
		return
	}
	r.fired = make(chan struct{})
	r.timer = time.AfterFunc(time.Hour, func() {
		_ = x.rc.SetWriteDeadline(time.Unix(1, 0))
		close(r.fired)
	})
	r.timer.Stop()
	_ = x.rc.SetWriteDeadline(time.Time{})
}

// begin gives the caller time until end.
func (r *reader) begin(x *exchange) {
	now, stalls := time.Now(), x.proxy.o.Limits.ReaderStalls
	x.spoke = now
	if r.timer != nil {
		if r.runs = !r.left; r.runs {
			r.timer.Reset(stalls)
		}
	} else if r.lasts.Sub(now) < stalls-min(writeSlack, stalls/4) {
		r.lasts = now.Add(stalls)
		_ = x.rc.SetWriteDeadline(r.lasts)
	}
}

// end returns errLeft if the time was over or the write failed.
func (r *reader) end(err error) error {
	if r.runs {
		r.runs = false
		if !r.timer.Stop() {
			<-r.fired // it must not do its work when the request is over
			r.left = true
		}
	}
	if r.left = r.left || err != nil; r.left {
		return errLeft
	}
	return nil
}

// close leaves the caller time for what is written behind the proxy: an error, or
// the end of the answer.
func (r *reader) close(x *exchange) {
	_ = r.end(nil) // after a panic
	r.timer, r.lasts = nil, time.Time{}
	r.begin(x)
}

// write writes bytes to the caller.
func (x *exchange) write(b []byte) error {
	for len(b) > 0 {
		part := b[:min(len(b), writeStep)]
		x.reader.begin(x)
		_, err := x.w.Write(part)
		if len(part) > buffered {
			x.reader.waited += time.Since(x.spoke)
		}
		if err := x.reader.end(err); err != nil {
			return err
		}
		b = b[len(part):]
	}
	return nil
}

// flush sends what was written.
func (x *exchange) flush() error {
	x.reader.begin(x)
	err := x.rc.Flush()
	x.reader.waited += time.Since(x.spoke)
	return x.reader.end(err)
}

// comment is a line that clients of event streams pass over. It keeps their
// connection open, and those of load balancers between.
const comment = ": the model is still working\n\n"

// silent is called while a head is waited for, and returns when to call it again.
// A stream to which nothing was written for a time gets a comment where it stands
// between events; one whose head has not begun to answer begins with it.
func (x *exchange) silent() (next time.Time, err error) {
	now, every := time.Now(), x.proxy.o.Limits.Comment
	if next = x.spoke.Add(every); now.Before(next) {
		return next, nil
	}
	if x.events != nil && !x.events.Between() {
		return now.Add(every), nil
	}
	if !x.begun {
		x.header(http.StatusOK, http.Header{"Content-Type": {"text/event-stream"}, "Cache-Control": {"no-cache"}}, -1)
	}
	x.commented = true
	if x.write([]byte(comment)) != nil || x.flush() != nil {
		return next, errLeft
	}
	return x.spoke.Add(every), nil
}

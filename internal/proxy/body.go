package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/openai"
)

// A buffer for a long body is made once some of it has come, so that who says that
// much will come and sends nothing holds little. That much of it is copied.
const (
	firstRead  = 64 << 10 // bytes of the first buffer; of a body of unknown length a quarter
	leastShare = 64       // of the room of a body, the part that has to come before BodyTime is given again
)

// bodies reads the bodies of requests, and bounds those of all under way.
type bodies struct {
	limits *Limits
	room
	refused *prometheus.CounterVec
	pace    *pace
}

// Reasons of refusals.
const (
	bodyNoRoom   = "no_room"
	bodyTooLarge = "too_large"
	bodyTooSlow  = "too_slow"
)

func newBodies(l *Limits, reg prometheus.Registerer) *bodies {
	b := &bodies{
		limits: l, pace: newPace(), room: newRoom(l),
		refused: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "headway_proxy_bodies_refused_total",
			Help: "Bodies of requests that were not read to their end, by reason: no_room, too_large or too_slow.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{bodyNoRoom, bodyTooLarge, bodyTooSlow} {
		b.refused.WithLabelValues(reason)
	}
	return b
}

// body is a request's body in memory.
type body struct {
	b     []byte
	from  *[]byte // of newMemory; nil: there is none yet
	past  [1]byte // is read into behind the end
	over  int     // bytes of past that belong to it
	paced int64   // of it, as pace has it: bytes of a large buffer
	place
}

func (b *bodies) free(x *body) {
	x.release()
	b.leave(&x.place)
	if x.paced > 0 {
		b.pace.hold(-x.paced)
	}
	*x = body{}
}

// release gives the memory back, without what stood there: prompts.
func (b *body) release() {
	if b.from != nil {
		clear(b.b)
		freeMemory(b.from)
	}
}

// Errors of incoming.read that are not for the caller as they are.
var (
	errTooLong = errors.New("the body is longer than allowed")
	errNoRoom  = errors.New("there is no room for the body")
)

// incoming is a body while it is read.
type incoming struct {
	*bodies
	*body
	ctx   context.Context // of the request
	rc    *http.ResponseController
	r     *http.Request
	of    string    // the caller; "": it has no share of the room of its own
	until time.Time // the deadline that is set; zero: none
	heard int       // bytes when it was set
}

// read reads the body of a request whole. The error is an *openai.Error or
// ErrClientGone.
func (b *bodies) read(in incoming) error {
	switch err := in.read(); {
	case errors.Is(err, errTooLong):
		b.refused.WithLabelValues(bodyTooLarge).Inc()
		return &openai.Error{
			Status: http.StatusRequestEntityTooLarge, Code: "request_too_large",
			Message: fmt.Sprintf("The body has more than %d bytes.", b.limits.MaxBody),
		}
	case errors.Is(err, errNoRoom):
		b.refused.WithLabelValues(bodyNoRoom).Inc()
		return &openai.Error{
			Status: http.StatusServiceUnavailable, Code: "bodies_full", RetryAfter: retryAfter(),
			Message: "The bodies of the requests under way take all the memory that they may. Try again later.",
		}
	default:
		return err
	}
}

func (in *incoming) read() error {
	limit := in.limits.MaxBody
	if in.r.ContentLength > limit {
		return errTooLong
	}
	for {
		if len(in.b) == cap(in.b) {
			if n := int64(len(in.b)); n == in.r.ContentLength || n >= limit {
				// What follows is no part of the body; reading its end lets
				// net/http notice a client that leaves.
				n, err := in.r.Body.Read(in.past[:])
				if n == 0 && err == io.EOF {
					break
				}
				if in.over = n; n > 0 {
					return errTooLong
				}
			}
			if err := in.grow(); err != nil {
				return err
			}
		}
		if err := in.listen(); err != nil {
			return err
		}
		n, err := in.r.Body.Read(in.b[len(in.b):cap(in.b)])
		in.b = in.b[:len(in.b)+n]
		if int64(len(in.b)) > limit {
			return errTooLong
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return in.failed(in.ctx, err)
		}
	}
	in.deaf()
	return nil
}

// silence is the time that a caller has for a part of its body. It may be longer by a
// little, since moving a deadline costs a call.
func (l *Limits) silence() time.Duration { return l.BodyTime + min(time.Second, l.BodyTime/8) }

// listen gives the caller time for the next part of its body, if enough of it came
// since it had that last: who holds much room has to send much, or it ends as if it
// sent nothing.
func (in *incoming) listen() error {
	now := time.Now()
	if !in.until.IsZero() && (in.until.Sub(now) > in.limits.BodyTime || int64(len(in.b)-in.heard) < max(in.took/leastShare, 1)) {
		return nil
	}
	in.until, in.heard = now.Add(in.limits.silence()), len(in.b)
	_ = in.rc.SetReadDeadline(in.until)
	if err := cutOff(in.ctx); err != nil { // the deadline may be later than that of stop
		return err
	}
	return nil
}

// deaf takes the deadline away. Over HTTP/2 one that passes ends the body, also while
// nothing is read.
func (in *incoming) deaf() {
	in.until = time.Time{}
	_ = in.rc.SetReadDeadline(time.Time{})
}

// grow makes the next buffer.
func (in *incoming) grow() error {
	length, most := in.r.ContentLength, in.limits.MaxBody
	size, whole := length, length
	if have := int64(cap(in.b)); length < 0 || have >= length { // or more came than was said
		size = max(firstRead/4, min(2*have, most))
		whole = size
	} else if have == 0 {
		size = min(size, firstRead)
	}
	n, _ := sizeFor(int(size))
	if err := in.take(int64(n), min(max(whole, int64(n)), most)); err != nil {
		return err
	}
	to := newMemory(n)
	b := append(*to, in.b...)
	in.release()
	in.b, in.from = b, to
	if n > firstRead {
		in.pace.hold(int64(n) - in.paced)
		in.paced = int64(n)
	}
	return nil
}

// take has the body hold so much room, of the part for small bodies or else for the
// whole body at once. One of unknown length that holds some of the rest waits for no
// more of it.
func (in *incoming) take(want, whole int64) error {
	switch large := in.place.of == in.rest; {
	case large && in.took >= want:
		return nil
	case large:
		if !in.more(&in.place, whole-in.took) {
			return errNoRoom
		}
		return nil
	case want <= smallBody && in.small.TryAcquire(want-in.took):
		in.place.of, in.took = in.small, want
		return nil
	case in.enter(&in.place, whole, in.of):
		return nil
	}
	in.deaf()
	wait, cancel := context.WithTimeout(in.ctx, in.limits.BodyWait)
	defer cancel()
	if in.await(wait, &in.place, whole, in.of) {
		return nil
	}
	if in.ctx.Err() != nil {
		return gone(in.ctx)
	}
	return errNoRoom
}

// failed is the error of a body that could not be read. net/http ends the request's
// context with any error of its connection, a deadline's too.
func (b *bodies) failed(ctx context.Context, err error) error {
	if err := cutOff(ctx); err != nil {
		return err
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.refused.WithLabelValues(bodyTooSlow).Inc()
		return &openai.Error{Status: http.StatusRequestTimeout, Message: "The body took too long to come."}
	case ctx.Err() != nil || errors.Is(err, io.ErrUnexpectedEOF):
		return ErrClientGone
	}
	return &openai.Error{Status: http.StatusBadRequest, Message: "The body cannot be read: it is not framed as its header says."}
}

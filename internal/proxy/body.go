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
	"golang.org/x/sync/semaphore"

	"headway/internal/openai"
)

// A buffer for a long body is made once some of it has come, so that who says that
// much will come and sends nothing holds little. That much of it is copied.
const (
	firstRead  = 64 << 10 // bytes of the first buffer; of a body of unknown length a quarter
	smallBody  = 1 << 20  // bytes of the longest body that the room kept for small ones is for
	smallShare = 4        // of all room, one part is kept for them
	leastShare = 64       // of a buffer, the part that has to come before BodyTime is given again
)

// bodies bounds the bodies of all requests under way. Who finds no room waits
// before it reads on: the kernel's window holds the client back meanwhile. Large
// bodies leave a part of the room to small ones.
type bodies struct {
	receiving
	limits  *Limits
	small   *semaphore.Weighted // that large bodies do not take
	rest    *semaphore.Weighted
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
	small := min(l.MaxBodies/smallShare, l.MaxBodies-l.MaxBody)
	b := &bodies{
		receiving: receiving{from: map[*http.ResponseController]struct{}{}},
		limits:    l, pace: newPace(), small: semaphore.NewWeighted(small), rest: semaphore.NewWeighted(l.MaxBodies - small),
		refused: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "headway_proxy_bodies_refused_total",
			Help: "Bodies of requests that were not read to their end, by reason: no_room, too_large or too_slow.",
		}, []string{"reason"}),
	}
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_proxy_bodies_awaited", Help: "Requests whose body has not come whole.",
	}, b.awaited)
	for _, reason := range []string{bodyNoRoom, bodyTooLarge, bodyTooSlow} {
		b.refused.WithLabelValues(reason)
	}
	return b
}

// body is a request's body in memory.
type body struct {
	b     []byte
	from  *[]byte             // of newMemory; nil: there is none yet
	past  [1]byte             // is read into behind the end
	took  int64               // of room
	paced int64               // of it, as pace has it: bytes of a large buffer
	room  *semaphore.Weighted // that it took
}

func (b *bodies) free(x *body) {
	if x.from != nil {
		freeMemory(x.from)
	}
	if x.took > 0 {
		x.room.Release(x.took)
	}
	if x.paced > 0 {
		b.pace.hold(-x.paced)
	}
	*x = body{}
}

// read reads the body of a request whole. The error is an *openai.Error or
// ErrClientGone.
func (b *bodies) read(rc *http.ResponseController, r *http.Request, x *body) error {
	limit := b.limits.MaxBody
	if r.ContentLength > limit {
		return b.tooLarge()
	}
	b.begin(rc)
	defer b.end(rc)
	var deadline time.Time
	heard := 0 // bytes when the deadline was moved
	for {
		if int64(len(x.b)) > limit {
			return b.tooLarge()
		}
		if len(x.b) == cap(x.b) {
			if int64(len(x.b)) == r.ContentLength {
				// What follows is no part of the body; reading its end lets
				// net/http notice a client that leaves.
				if n, err := r.Body.Read(x.past[:]); n == 0 && err == io.EOF {
					break
				}
			}
			if err := b.grow(r.Context(), x, r.ContentLength); err != nil {
				return err
			}
		}
		// Who holds much has to send much, or it ends as if it sent nothing.
		if now := time.Now(); deadline.IsZero() || deadline.Sub(now) < b.limits.BodyTime/2 && len(x.b)-heard >= max(cap(x.b)/leastShare, 1) {
			deadline, heard = now.Add(b.limits.BodyTime), len(x.b)
			_ = rc.SetReadDeadline(deadline)
			if err := cutOff(r.Context()); err != nil { // the deadline may be later than that of stop
				return err
			}
		}
		n, err := r.Body.Read(x.b[len(x.b):cap(x.b)])
		x.b = x.b[:len(x.b)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return b.failed(r, err)
		}
	}
	_ = rc.SetReadDeadline(time.Time{})
	if int64(len(x.b)) > limit {
		return b.tooLarge()
	}
	return nil
}

// grow makes the next buffer. length is that of the body, below 0 if it is not known.
func (b *bodies) grow(ctx context.Context, x *body, length int64) error {
	size, whole := int(length), length
	switch have := cap(x.b); {
	case length < 0:
		size, whole = max(firstRead/4, 2*have), b.limits.MaxBody
	case have == 0:
		size = min(size, firstRead)
	case int64(have) >= length: // more came than was said
		size, whole = 2*have, b.limits.MaxBody
	}
	size, _ = sizeFor(size)
	if err := b.take(ctx, x, int64(size), min(max(whole, int64(size)), b.limits.MaxBody)); err != nil {
		return err
	}
	to := newMemory(size)
	x.b = append(*to, x.b...)
	if x.from != nil {
		freeMemory(x.from)
	}
	x.from = to
	if size > firstRead {
		b.pace.hold(int64(size) - x.paced)
		x.paced = int64(size)
	}
	return nil
}

// take has the body hold so much room. What is beyond the room for small bodies is
// taken for the whole body at once: who holds some of the rest never waits for more.
func (b *bodies) take(ctx context.Context, x *body, want, whole int64) error {
	if x.room == b.rest && x.took > 0 {
		return nil
	}
	if want <= smallBody && b.small.TryAcquire(want-x.took) {
		x.room, x.took = b.small, want
		return nil
	}
	if !b.rest.TryAcquire(whole) {
		wait, cancel := context.WithTimeout(ctx, b.limits.BodyWait)
		defer cancel()
		if b.rest.Acquire(wait, whole) != nil {
			if ctx.Err() != nil {
				return gone(ctx)
			}
			b.refused.WithLabelValues(bodyNoRoom).Inc()
			return &openai.Error{
				Status: http.StatusServiceUnavailable, Code: "bodies_full", RetryAfter: retryAfter(),
				Message: "The bodies of the requests under way take all the memory that they may. Try again later.",
			}
		}
	}
	if x.took > 0 {
		b.small.Release(x.took)
	}
	x.room, x.took = b.rest, whole
	return nil
}

func (b *bodies) tooLarge() error {
	b.refused.WithLabelValues(bodyTooLarge).Inc()
	return &openai.Error{
		Status: http.StatusRequestEntityTooLarge, Code: "request_too_large",
		Message: fmt.Sprintf("The body has more than %d bytes.", b.limits.MaxBody),
	}
}

// failed is the error of a body that could not be read. net/http ends the request's
// context with any error of its connection, a deadline's too.
func (b *bodies) failed(r *http.Request, err error) error {
	if err := cutOff(r.Context()); err != nil {
		return err
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.refused.WithLabelValues(bodyTooSlow).Inc()
		return &openai.Error{Status: http.StatusRequestTimeout, Message: "The body took too long to come."}
	case r.Context().Err() != nil || errors.Is(err, io.ErrUnexpectedEOF):
		return ErrClientGone
	}
	return &openai.Error{Status: http.StatusBadRequest, Message: "The body cannot be read: it is not framed as its header says."}
}

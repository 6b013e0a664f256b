package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"headway/internal/openai"
)

// firstRead is how much of a body of unknown length is read first.
const firstRead = 16 << 10

// bodies bounds the bodies of all requests under way. Who finds no room waits
// before it reads on: the kernel's window holds the client back meanwhile.
type bodies struct {
	limits *Limits
	room   *semaphore.Weighted
}

func newBodies(l *Limits) *bodies { return &bodies{l, semaphore.NewWeighted(l.MaxBodies)} }

// body is a request's body in memory.
type body struct {
	b    []byte
	from *[]byte // of newMemory; nil: there is none yet
	took int64   // of the room
}

func (b *bodies) free(x *body) {
	if x.from != nil {
		freeMemory(x.from)
	}
	if x.took > 0 {
		b.room.Release(x.took)
	}
	*x = body{}
}

// read reads the body of a request whole. The error is an *openai.Error or
// ErrClientGone.
func (b *bodies) read(rc *http.ResponseController, r *http.Request, x *body) error {
	limit := b.limits.MaxBody
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	want := r.ContentLength
	if want < 0 {
		want = firstRead
	}
	size, _ := sizeFor(int(want))
	want = int64(size)
	if err := b.grow(r.Context(), x, want); err != nil {
		return err
	}
	x.from = newMemory(size)
	x.b = *x.from
	deadline := time.Now().Add(b.limits.BodyTime)
	_ = rc.SetReadDeadline(deadline)
	for {
		if len(x.b) == cap(x.b) {
			if int64(len(x.b)) == r.ContentLength {
				// What follows is no part of the body; reading its end lets
				// net/http notice a client that leaves.
				var end [1]byte
				if n, err := r.Body.Read(end[:]); n == 0 && err == io.EOF {
					break
				}
			}
			if int64(len(x.b)) > limit {
				return tooLarge(limit)
			}
			more := int64(cap(x.b))
			if err := b.grow(r.Context(), x, more); err != nil {
				return err
			}
			larger := newMemory(2 * cap(x.b))
			x.b = append(*larger, x.b...)
			freeMemory(x.from)
			x.from = larger
		}
		n, err := r.Body.Read(x.b[len(x.b):cap(x.b)])
		x.b = x.b[:len(x.b)+n]
		if n > 0 && time.Until(deadline) < b.limits.BodyTime/2 {
			deadline = time.Now().Add(b.limits.BodyTime)
			_ = rc.SetReadDeadline(deadline)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return bodyError(r, err)
		}
	}
	_ = rc.SetReadDeadline(time.Time{})
	if int64(len(x.b)) > limit {
		return tooLarge(limit)
	}
	return nil
}

// grow takes room for more bytes.
func (b *bodies) grow(ctx context.Context, x *body, more int64) error {
	if !b.room.TryAcquire(more) {
		wait, cancel := context.WithTimeout(ctx, b.limits.BodyWait)
		defer cancel()
		if b.room.Acquire(wait, more) != nil {
			if ctx.Err() != nil {
				return ErrClientGone
			}
			return &openai.Error{
				Status: http.StatusServiceUnavailable, Code: "bodies_full", RetryAfter: retryAfter(),
				Message: "The bodies of the requests under way take all the memory that they may. Try again later.",
			}
		}
	}
	x.took += more
	return nil
}

func tooLarge(limit int64) error {
	return &openai.Error{
		Status: http.StatusRequestEntityTooLarge, Code: "request_too_large",
		Message: fmt.Sprintf("The body has more than %d bytes.", limit),
	}
}

func bodyError(r *http.Request, err error) error {
	var timeout interface{ Timeout() bool }
	switch {
	case r.Context().Err() != nil || errors.Is(err, io.ErrUnexpectedEOF):
		return ErrClientGone
	case errors.As(err, &timeout) && timeout.Timeout():
		return &openai.Error{Status: http.StatusRequestTimeout, Message: "The body took too long to come."}
	}
	return &openai.Error{Status: http.StatusBadRequest, Message: "The body cannot be read: it is not framed as its header says."}
}

package proxy

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"headway/internal/access"
)

// underway are the requests under way, which may have to end before they are answered.
type underway struct {
	mu    sync.Mutex
	first *standing
}

// standing is one of them, and its context. Few requests are ended so, or wait for
// long: a context that can end by itself, which costs as much as a decision, is made
// when it is needed.
type standing struct {
	context.Context // of the request, as the server made it
	principal       *access.Principal
	rc              *http.ResponseController
	awaited         bool // its body, the reading of which no context interrupts; guarded by underway.mu
	before, next    *standing

	making sync.Once
	made   atomic.Pointer[endable] // nil: none is
}

// endable is a context that can be ended with a cause.
type endable struct {
	context.Context
	end context.CancelCauseFunc
}

// endable makes the context if there is none.
func (s *standing) endable() *endable {
	s.making.Do(func() {
		e := new(endable)
		e.Context, e.end = context.WithCancelCause(s.Context) // which ends with the request
		s.made.Store(e)
	})
	return s.made.Load()
}

// end ends the request.
func (s *standing) end(cause error) { s.endable().end(cause) }

// Done implements context.Context.
func (s *standing) Done() <-chan struct{} { return s.endable().Done() }

// Err implements context.Context.
func (s *standing) Err() error { return s.now().Err() }

// Value implements context.Context, and has context.Cause find the cause.
func (s *standing) Value(key any) any { return s.now().Value(key) }

func (s *standing) now() context.Context {
	if e := s.made.Load(); e != nil {
		return e.Context
	}
	return s.Context
}

// interrupt ends the read of the body, if there is one. The caller holds the mutex.
func (s *standing) interrupt() {
	if s.awaited {
		_ = s.rc.SetReadDeadline(time.Unix(1, 0))
	}
}

// enter has a request be found until leave.
func (u *underway) enter(s *standing) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.next = u.first; s.next != nil {
		s.next.before = s
	}
	u.first = s
}

func (u *underway) leave(s *standing) {
	if s == nil { // after a panic
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.next != nil {
		s.next.before = s.before
	}
	if s.before != nil {
		s.before.next = s.next
	} else {
		u.first = s.next
	}
}

// awaits notes whether the body of a request is awaited.
func (u *underway) awaits(s *standing, body bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s.awaited = body
}

// each calls do, which must not block, for each request.
func (u *underway) each(do func(*standing)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for s := u.first; s != nil; s = s.next {
		do(s)
	}
}

// awaited is how many requests' bodies are awaited.
func (u *underway) awaited() (n float64) {
	u.each(func(s *standing) {
		if s.awaited {
			n++
		}
	})
	return n
}

// stop ends every read of a body. One whose deadline is moved meanwhile looks at its
// context after that, which has ended before.
func (u *underway) stop() { u.each((*standing).interrupt) }

//go:build linux || darwin

package upstream

import (
	"errors"
	"io"
	"syscall"
)

// socket looks at a connection without waiting.
type socket struct {
	raw  syscall.RawConn
	look func(fd uintptr) // made once
	b    [1]byte
	idle bool

	take func(fd uintptr) // made once
	p    []byte           // for take
	n    int
	err  error
}

func newSocket(raw syscall.RawConn) *socket {
	s := &socket{raw: raw}
	s.look = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), s.b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		s.idle = notNow(err)
	}
	s.take = func(fd uintptr) {
		if s.n, s.err = syscall.Read(int(fd), s.p); notNow(s.err) {
			s.err = errNotYet
		}
	}
	return s
}

func notNow(err error) bool { return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) }

// read reads what has come already; errNotYet: nothing. The deadline is that of an
// earlier wait, and may have passed since: it does not count here.
func (s *socket) read(p []byte) (int, error) {
	s.p = p
	err := s.raw.Control(s.take)
	s.p = nil
	switch {
	case err != nil:
		return 0, err
	case s.err != nil:
		return 0, s.err
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}

// quiet reports whether the connection is open and has nothing to read. An idle one
// with something to read was closed, or answers what was not asked. A nil socket
// cannot tell.
func (s *socket) quiet() bool {
	if s == nil {
		return true
	}
	failed := s.raw.Control(s.look)
	return failed == nil && s.idle
}

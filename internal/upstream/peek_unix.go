//go:build linux || darwin

package upstream

import "syscall"

// socket looks at a connection without reading from it.
type socket struct {
	raw  syscall.RawConn
	look func(fd uintptr) // made once
	b    [1]byte
	idle bool
}

func newSocket(raw syscall.RawConn) *socket {
	s := &socket{raw: raw}
	s.look = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), s.b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		s.idle = err == syscall.EAGAIN || err == syscall.EINTR
	}
	return s
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

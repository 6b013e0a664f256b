//go:build linux || darwin

package upstream

import "syscall"

// quiet reports whether a socket is open and has nothing to read. An idle
// connection with something to read was closed, or answers what was not asked.
func quiet(raw syscall.RawConn) bool {
	var err error
	failed := raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return failed == nil && (err == syscall.EAGAIN || err == syscall.EINTR)
}

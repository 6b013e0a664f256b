package app

import (
	"syscall"
	"time"
)

// A vanished peer is detected this long after something was sent. The kernel's
// default is a quarter of an hour, during which a stream of events would stay
// open.
const (
	unacknowledged = 30 * time.Second
	tcpUserTimeout = 18 // TCP_USER_TIMEOUT of tcp(7), which package syscall lacks
)

// noticeVanished sets the time on a listening socket, from which connections
// inherit it.
func noticeVanished(_, _ string, c syscall.RawConn) error {
	var err error
	if failed := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(unacknowledged/time.Millisecond))
	}); failed != nil {
		return failed
	}
	return err
}

//go:build !linux && !darwin

package upstream

import "syscall"

// socket cannot tell here whether a connection was closed.
type socket struct{}

func newSocket(syscall.RawConn) *socket { return nil }

func (*socket) quiet() bool { return true }

func (*socket) read([]byte) (int, error) { return 0, errNotYet }

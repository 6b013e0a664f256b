package httpapi

import (
	"encoding/binary"
	"syscall"
)

// established is TCP_ESTABLISHED: neither end has closed the connection.
const established = 1

// leftOf reports whether the other end has closed a connection, though some of what
// it sent before may be unread. The first byte of tcp_info is the state.
func leftOf(raw syscall.RawConn) bool {
	var info [4]byte
	var err error
	failed := raw.Control(func(fd uintptr) {
		var n int
		n, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
		binary.NativeEndian.PutUint32(info[:], uint32(n))
	})
	return failed != nil || err == nil && info[0] != established
}

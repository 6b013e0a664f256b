package httpapi

import (
	"context"
	"net"
	"net/http"
	"syscall"
)

type connKey struct{}

// withConn lets handlers find the connection of a request.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// leaving is how to find out whether the client of a request has closed its
// connection; nil if that cannot be asked. Over HTTP/2 the request's context ends.
func leaving(r *http.Request) func() bool {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	if r.ProtoMajor > 1 {
		return nil
	}
	if secure, is := c.(*secureConn); is {
		c = secure.NetConn()
	}
	if bounded, is := c.(*boundedConn); is {
		c = bounded.Conn
	}
	socket, is := c.(syscall.Conn)
	if !is {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return func() bool { return leftOf(raw) }
}

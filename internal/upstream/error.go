package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"headway/internal/outbound"
)

// Kind says what went wrong in an exchange: a closed list, fit for a label.
type Kind string

// The kinds of error.
const (
	Invalid          Kind = "invalid"            // the call itself; nothing was dialed
	Forbidden        Kind = "forbidden"          // an address that heads may not have
	Limit            Kind = "limit"              // as many connections as allowed are open
	Closed           Kind = "closed"             // the service is stopping
	Resolve          Kind = "resolve"            // the name has no address
	Refused          Kind = "refused"            // no process listens there
	Unreachable      Kind = "unreachable"        // any other failure to connect
	ConnectTimeout   Kind = "connect_timeout"    // includes the TLS handshake
	TLS              Kind = "tls"                // handshake or certificate
	Write            Kind = "write"              // the request could not be sent
	WriteTimeout     Kind = "write_timeout"      // the head takes no more of the request
	EndOfStream      Kind = "end_of_stream"      // closed before the end of the answer
	Reset            Kind = "reset"              // the connection broke
	FirstByteTimeout Kind = "first_byte_timeout" // no complete header of an answer
	IdleTimeout      Kind = "idle_timeout"       // silence within a body
	TotalTimeout     Kind = "total_timeout"      // also a deadline of the caller's context
	Malformed        Kind = "malformed"          // not HTTP/1.1, or ambiguous
	Canceled         Kind = "cancelled"          // the caller's context ended
)

// Kinds are all kinds.
func Kinds() []Kind {
	return []Kind{
		Invalid, Forbidden, Limit, Closed, Resolve, Refused, Unreachable, ConnectTimeout, TLS, Write, WriteTimeout,
		EndOfStream, Reset, FirstByteTimeout, IdleTimeout, TotalTimeout, Malformed, Canceled,
	}
}

// Error is what Do and the Read of a body return, apart from io.EOF. Whether a
// request may be repeated elsewhere depends on Sent and Received.
type Error struct {
	Kind     Kind
	Reused   bool // the connection had served an earlier exchange
	Sent     bool // at least one byte of the request may have reached the head
	Received bool // at least one byte of an answer came back
	Early    bool // the request was not sent to its end
	Err      error
}

func (e *Error) Error() string { return string(e.Kind) + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// dialKind says why there is no connection.
func dialKind(err error) Kind {
	switch {
	case isA[*outbound.ForbiddenError](err):
		return Forbidden
	case errors.Is(err, context.Canceled):
		return Canceled
	case isA[*net.DNSError](err):
		return Resolve
	case isTimeout(err):
		return ConnectTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	}
	return Unreachable
}

// handshakeKind says why TLS failed.
func handshakeKind(err error) Kind {
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case isTimeout(err):
		return ConnectTimeout
	}
	return TLS
}

// readKind says why reading failed; the time-out is the one of the phase.
func readKind(err error, timeout Kind) Kind {
	switch {
	case isTimeout(err):
		return timeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return EndOfStream
	case isA[*net.OpError](err), errors.Is(err, net.ErrClosed), isA[syscall.Errno](err):
		return Reset
	case isA[tls.RecordHeaderError](err), isA[tls.AlertError](err):
		return TLS
	}
	return Malformed
}

func isA[E error](err error) bool {
	_, is := errors.AsType[E](err)
	return is
}

func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	timeout, is := errors.AsType[net.Error](err)
	return is && timeout.Timeout()
}

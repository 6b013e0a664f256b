package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// shakingListener gives connections after their TLS handshake. net/http would do
// that itself with a *tls.Conn only, and what it then writes of its own over
// HTTP/1.1 could not be replaced. So it gets a *tls.Conn for HTTP/2, which it
// needs for that, and a secureConn for HTTP/1.1.
//
// Handshakes are bounded by the limits of the listener below, which counts their
// connections, and by their timeout.
type shakingListener struct {
	net.Listener
	config  *tls.Config
	timeout time.Duration // of one handshake
	clients bool          // it has the routes of the data plane alone
	metrics *metrics
	log     *slog.Logger

	shaken  chan accepted
	closing context.Context // ends the handshakes under way
	close   context.CancelFunc
	running sync.WaitGroup
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

func newShakingListener(l net.Listener, config *tls.Config, timeout time.Duration, clients bool, m *metrics, log *slog.Logger) *shakingListener {
	s := &shakingListener{Listener: l, config: config, timeout: timeout, clients: clients, metrics: m, log: log, shaken: make(chan accepted)}
	s.closing, s.close = context.WithCancel(context.Background())
	s.running.Go(s.run)
	return s
}

// Accept waits for a connection after its handshake.
func (l *shakingListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.shaken:
		return a.conn, a.err
	case <-l.closing.Done():
		return nil, net.ErrClosed
	}
}

// Close ends the listener below and the handshakes under way, and waits for them.
func (l *shakingListener) Close() error {
	l.close()
	err := l.Listener.Close()
	l.running.Wait()
	return err
}

// give hands to Accept, unless the listener is closed.
func (l *shakingListener) give(a accepted) bool {
	select {
	case l.shaken <- a:
		return true
	case <-l.closing.Done():
		return false
	}
}

// run accepts connections until the listener is closed. An error waits for
// Accept, so that the server sets the pace of retries.
func (l *shakingListener) run() {
	for l.closing.Err() == nil {
		c, err := l.Listener.Accept()
		if err != nil {
			l.give(accepted{err: err})
			continue
		}
		l.running.Go(func() {
			ready, err := l.shake(c)
			switch {
			case err != nil:
				l.refuse(c, err)
			case ready == nil || !l.give(accepted{conn: ready}):
				_ = c.Close()
			}
		})
	}
}

// shake returns the connection that the server gets, nil if the handshake was all,
// as for an authority that checks our name.
func (l *shakingListener) shake(c net.Conn) (ready net.Conn, err error) {
	defer func() { // one client's bytes that meet a bug must not end the process
		if p := recover(); p != nil {
			l.metrics.panics.Inc()
			err = fmt.Errorf("panic: %v: %s", p, debug.Stack())
		}
	}()
	secure := tls.Server(c, l.config)
	if err := c.SetDeadline(time.Now().Add(l.timeout)); err != nil {
		return nil, err
	}
	if err := secure.HandshakeContext(l.closing); err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	switch secure.ConnectionState().NegotiatedProtocol {
	case "h2":
		return secure, nil
	case "", "http/1.1":
		return &secureConn{secure, l.metrics, asked{client: l.clients}}, nil
	default:
		return nil, nil
	}
}

// refuse closes a connection whose handshake has failed. HTTP without TLS is
// answered with a problem.
func (l *shakingListener) refuse(c net.Conn, err error) {
	defer func() { _ = c.Close() }()
	if l.closing.Err() != nil {
		return
	}
	l.metrics.handshakesFailed.Inc()
	l.log.Debug("a TLS handshake failed", "from", c.RemoteAddr().String(), "error", err)
	if record, is := errors.AsType[tls.RecordHeaderError](err); is && record.Conn != nil && slices.Contains(methods, string(record.RecordHeader[:])) {
		l.metrics.other(http.StatusBadRequest)
		_, _ = c.Write(answerTo(&asked{client: l.clients}, http.StatusBadRequest, "this port speaks HTTPS, and it came without TLS"))
	}
}

// methods are the first five bytes of requests.
var methods = []string{"GET /", "HEAD ", "POST ", "PUT /", "PATCH", "DELET", "OPTIO"}

// secureConn is a connection of HTTP/1.1 by TLS. net/http finds its state by
// ConnectionState.
type secureConn struct {
	*tls.Conn
	metrics *metrics
	asked   asked
}

// Read reads, and notes what is asked for.
func (c *secureConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.asked.note(b[:n])
	return n, err
}

// Write writes b as writeAnswer does.
func (c *secureConn) Write(b []byte) (int, error) {
	return writeAnswer(c.Conn, c.metrics, &c.asked, b)
}

// writeAnswer writes b or, if b is an answer that net/http has made itself, the
// error that says the same in the form of what was asked for, and counts it.
func writeAnswer(c io.Writer, m *metrics, to *asked, b []byte) (int, error) {
	status, detail, own := answerOfNet(b)
	if !own {
		return c.Write(b)
	}
	m.other(status)
	if _, err := c.Write(answerTo(to, status, detail)); err != nil {
		return 0, err
	}
	return len(b), nil
}

package mockhead

import (
	"bytes"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// door accepts a head's connections, at most maxConnections at once. Accept is
// called by one goroutine.
type door struct {
	net.Listener // limited
	raw          *lastAccepted
	faults       *faults
}

// lastAccepted remembers the connection below what the limit wraps.
type lastAccepted struct {
	net.Listener
	conn net.Conn
}

func (l *lastAccepted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.conn = c
	return c, err
}

func newDoor(l net.Listener, f *faults) *door {
	raw := &lastAccepted{Listener: l}
	return &door{Listener: netutil.LimitListener(raw, maxConnections), raw: raw, faults: f}
}

func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn := &conn{Conn: c, raw: d.raw.conn, faults: d.faults}
		if d.faults.ofConnection(ResetAccept, 0) == nil {
			return conn, nil
		}
		conn.reset()
	}
}

// conn is a connection to a head. It keeps the bytes of a request's head as they
// came.
type conn struct {
	net.Conn
	raw    net.Conn
	faults *faults

	mu     sync.Mutex
	got    []byte // since the last request, at most maxKept
	skip   int64  // bytes of a body to come; -1: the body has no stated length
	idle   time.Time
	timer  *time.Timer // closes an idle connection
	served int
}

const maxKept = 64 << 10

// reset closes the connection so that the peer gets a reset.
func (c *conn) reset() {
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// closeWrite ends this side of the connection.
func (c *conn) closeWrite() {
	if half, ok := c.raw.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	since := c.idle
	if n > 0 {
		c.idle = time.Time{}
	}
	c.keep(p[:n])
	c.mu.Unlock()
	if n > 0 && !since.IsZero() && c.faults.ofConnection(IdleReset, time.Since(since)) != nil {
		c.reset()
		return 0, net.ErrClosed
	}
	return n, err
}

// keep keeps what belongs to no body; the caller holds the mutex.
func (c *conn) keep(p []byte) {
	if c.skip < 0 {
		return
	}
	n := min(c.skip, int64(len(p)))
	c.skip -= n
	if p = p[n:]; len(c.got)+len(p) <= maxKept {
		c.got = append(c.got, p...)
	}
}

// takeHead returns the head of the request that has begun, whose body has a
// stated length, or -1.
func (c *conn) takeHead(length int64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	head, rest, _ := bytes.Cut(c.got, []byte("\r\n\r\n"))
	head = append(bytes.Clone(head), "\r\n\r\n"...)
	rest = bytes.Clone(rest)
	c.got, c.skip = nil, length
	c.keep(rest)
	return head
}

// bodyRead notes that a body without a stated length has come whole.
func (c *conn) bodyRead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.skip < 0 {
		c.skip = 0
	}
}

// changed follows the connection's state, for what is idle.
func (c *conn) changed(s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if s != http.StateIdle {
		return
	}
	c.served++
	c.idle = time.Now()
	if after, ok := c.faults.idleClose(); ok {
		c.timer = time.AfterFunc(after, func() {
			if c.faults.ofConnection(IdleClose, after) != nil {
				_ = c.Close()
			}
		})
	}
}

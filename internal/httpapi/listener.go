package httpapi

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// boundedListener closes connections beyond its limits at once.
type boundedListener struct {
	net.Listener
	limit      int
	perAddress int // 0: no limit
	metrics    *metrics

	mu        sync.Mutex
	open      int
	addresses map[netip.Addr]int // open connections, if there is a limit
}

func newBoundedListener(l net.Listener, limits Limits, m *metrics) *boundedListener {
	return &boundedListener{
		Listener: l, limit: limits.MaxConnections, perAddress: limits.MaxPerAddress, metrics: m,
		addresses: map[netip.Addr]int{},
	}
}

// Accept waits for a connection that is within the limits.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address := remoteAddr(c)
		if l.enter(address) {
			return &boundedConn{Conn: c, listener: l, address: address}, nil
		}
		l.metrics.connectionsRefused.Inc()
		_ = c.Close()
	}
}

// remoteAddr is who a connection counts for: an IPv4 address, or the 64 bits
// of an IPv6 one that a site gets to itself.
func remoteAddr(c net.Conn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	address := tcp.AddrPort().Addr().Unmap()
	if site, err := address.Prefix(64); err == nil && address.Is6() && !address.IsLoopback() {
		return site.Addr()
	}
	return address
}

func (l *boundedListener) enter(address netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	counted := l.perAddress > 0 && !address.IsLoopback()
	if l.open >= l.limit || counted && l.addresses[address] >= l.perAddress {
		return false
	}
	l.open++
	if counted {
		l.addresses[address]++
	}
	l.metrics.connections.Inc()
	return true
}

func (l *boundedListener) leave(address netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if n := l.addresses[address]; n > 1 {
		l.addresses[address] = n - 1
	} else {
		delete(l.addresses, address)
	}
	l.metrics.connections.Dec()
}

type boundedConn struct {
	net.Conn
	listener *boundedListener
	address  netip.Addr
	closed   atomic.Bool
	writeBy  atomic.Int64 // the deadline of writes, Unix nanoseconds; 0: none
}

// writeSlack is how much later than asked a write may fail, so that a busy
// connection sets its deadline once in that time and not for each answer.
const writeSlack = time.Second

// SetWriteDeadline lets writes fail at t or up to writeSlack later.
func (c *boundedConn) SetWriteDeadline(t time.Time) error {
	by := int64(0)
	if !t.IsZero() {
		if ahead := c.writeBy.Load() - t.UnixNano(); ahead >= 0 && ahead <= int64(writeSlack) {
			return nil
		}
		t = t.Add(writeSlack)
		by = t.UnixNano()
	}
	c.writeBy.Store(by)
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both deadlines at t.
func (c *boundedConn) SetDeadline(t time.Time) error {
	c.writeBy.Store(0)
	return c.Conn.SetDeadline(t)
}

// plainError ends the header of the answers that net/http writes without asking
// anybody, for what is no request. All others have a Date.
const plainError = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

// Write writes b or, if b is such an answer, the problem that says the same.
// net/http writes it at once and closes the connection then. Over TLS it is
// encrypted by now and goes out as it is.
func (c *boundedConn) Write(b []byte) (int, error) {
	if len(b) > maxPlainError || len(b) <= len(plainErrorBegin) || b[len(plainErrorBegin)] < '4' || !bytes.HasPrefix(b, plainErrorBegin) {
		return c.Conn.Write(b)
	}
	status, detail, ours := bytes.Cut(b[len(plainErrorBegin):], []byte(plainError))
	if !ours || len(status) < 3 {
		return c.Conn.Write(b)
	}
	if _, err := c.Conn.Write(problemOfNet(string(status[:3]), string(detail))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// maxPlainError is longer than any answer that net/http writes so.
const maxPlainError = 512

var plainErrorBegin = []byte("HTTP/1.1 ")

func (c *boundedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.listener.leave(c.address)
	}
	return c.Conn.Close()
}

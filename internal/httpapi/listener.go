package httpapi

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"headway/internal/address"

	"golang.org/x/time/rate"
)

// boundedListener closes connections beyond its limits at once.
type boundedListener struct {
	net.Listener
	limit      int
	perAddress int  // 0: no limit
	clients    bool // it has the routes of the data plane alone
	metrics    *metrics
	log        *slog.Logger
	failures   rate.Sometimes // logged

	mu        sync.Mutex
	open      int
	addresses map[netip.Addr]int // open connections, if there is a limit
}

func newBoundedListener(l net.Listener, limits Limits, clients bool, m *metrics, log *slog.Logger) *boundedListener {
	return &boundedListener{
		Listener: l, limit: limits.MaxConnections, perAddress: limits.MaxPerAddress, clients: clients, metrics: m, log: log,
		failures:  rate.Sometimes{Interval: 5 * time.Second},
		addresses: map[netip.Addr]int{},
	}
}

// Accept waits for a connection that is within the limits.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			l.failed(err)
			return nil, err
		}
		address := remoteAddr(c)
		if l.enter(address) {
			return l.newConn(c, address), nil
		}
		l.metrics.connectionsRefused.Inc()
		_ = c.Close()
	}
}

// failed counts and logs that no connection could be accepted, as without file
// descriptors. net/http waits then and tries again.
func (l *boundedListener) failed(err error) {
	if errors.Is(err, net.ErrClosed) {
		return
	}
	l.metrics.acceptErrors.Inc()
	l.failures.Do(func() { l.log.Warn("no connection could be accepted; it is tried again", "error", err) })
}

// remoteAddr is the site that a connection counts for.
func remoteAddr(c net.Conn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return address.Site(tcp.AddrPort().Addr())
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
	l.metrics.connections.Add(1)
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
	l.metrics.connections.Add(-1)
}

type boundedConn struct {
	net.Conn
	listener      *boundedListener
	address       netip.Addr
	closed        atomic.Bool
	reads, writes deadline
	asked         asked
}

// writeSlack is how much later than asked a write may fail.
const writeSlack = time.Second

func (l *boundedListener) newConn(c net.Conn, address netip.Addr) *boundedConn {
	return &boundedConn{
		Conn: c, listener: l, address: address, asked: asked{client: l.clients},
		reads: deadline{set: c.SetReadDeadline}, writes: deadline{set: c.SetWriteDeadline, slack: writeSlack},
	}
}

// SetReadDeadline lets reads fail at t.
func (c *boundedConn) SetReadDeadline(t time.Time) error { return c.reads.move(t) }

// SetWriteDeadline lets writes fail at t or up to writeSlack later.
func (c *boundedConn) SetWriteDeadline(t time.Time) error { return c.writes.move(t) }

// SetDeadline is both.
func (c *boundedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.reads.move(t), c.writes.move(t))
}

// Read reads, and notes what is asked for. Below TLS nothing is.
func (c *boundedConn) Read(b []byte) (int, error) {
	if err := c.reads.begin(); err != nil {
		return 0, err
	}
	defer c.reads.end()
	n, err := c.Conn.Read(b)
	c.asked.note(b[:n])
	return n, err
}

// Write writes b as writeAnswer does. Below TLS no b is such an answer.
func (c *boundedConn) Write(b []byte) (int, error) {
	if err := c.writes.begin(); err != nil {
		return 0, err
	}
	defer c.writes.end()
	return writeAnswer(c.Conn, c.listener.metrics, &c.asked, b)
}

// By these the answers are known that net/http writes itself: the end of the
// header of an error, which in a handler's answer has a Date, and the one status
// that no handler here answers with.
var (
	errorOfNet  = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")
	expectation = []byte(" 417 ")
)

// maxOfNet is longer than any answer that net/http writes itself.
const maxOfNet = 512

// answerOfNet reports whether net/http has made an answer itself: for what is no
// request, or for an unknown Expect. net/http has no hook for them, and every
// refusal must be a problem with a request id, and counted. Each is one write, after
// which net/http closes the connection.
func answerOfNet(b []byte) (status int, detail string, own bool) {
	const begin = "HTTP/1.1 "
	if len(b) > maxOfNet || len(b) < len(begin)+len("400") || b[len(begin)] < '4' || string(b[:5]) != begin[:5] {
		return 0, "", false
	}
	if bytes.HasPrefix(b[len(begin)-1:], expectation) {
		return http.StatusExpectationFailed, "", true
	}
	_, text, own := bytes.Cut(b, errorOfNet)
	if !own {
		return 0, "", false
	}
	status, err := strconv.Atoi(string(b[len(begin) : len(begin)+3]))
	return status, string(text), err == nil
}

func (c *boundedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.listener.leave(c.address)
	}
	return c.Conn.Close()
}

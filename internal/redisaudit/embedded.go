package redisaudit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/match"
	"github.com/tidwall/redcon"
)

// EmbeddedOptions are what an Embedded server is made of.
type EmbeddedOptions struct {
	Listen  string              // required: a loopback address
	Channel string              // required
	Log     *slog.Logger        // required
	Counted func(status string) // required; told success for each call of Publish
}

// Bounds of the embedded server.
const (
	maxClients    = 100
	maxChannels   = 16       // that one client subscribes
	maxWaiting    = 1024     // lines that wait for one client; who falls further behind is dropped
	maxPerMinute  = 64 << 10 // bytes that one client sends: it has nothing to say but PING
	writeDeadline = 5 * time.Second
	idleDeadline  = 10 * time.Minute // of clients that subscribe nothing
)

// Embedded is a Redis server that knows publishing and subscribing only, so
// that a first run has the channel without a Redis. Only the process itself
// publishes. It implements audit.Sink.
type Embedded struct {
	o        EmbeddedOptions
	listener net.Listener
	server   *redcon.Server
	served   chan error
	running  sync.WaitGroup

	mu          sync.Mutex
	closed      bool
	subscribers map[*subscriber]bool
	dropped     uint64

	clientsMu sync.Mutex // taken after mu
	clients   map[net.Conn]bool
}

// subscriber is a client that has subscribed something.
type subscriber struct {
	conn   redcon.DetachedConn
	topics atomic.Pointer[map[string]bool] // never changed; true: a pattern
	lines  chan [3]string                  // pattern or "", channel, line
	mu     sync.Mutex                      // of writes, and of changing the topics
	gone   chan struct{}
	once   sync.Once
}

func (s *subscriber) leave() {
	s.once.Do(func() {
		close(s.gone)
		_ = s.conn.NetConn().Close() // its reader ends
	})
}

// Listen begins to serve. The error wraps syscall.EADDRINUSE if another process
// has the address.
func Listen(ctx context.Context, o EmbeddedOptions) (*Embedded, error) {
	if o.Listen == "" || o.Channel == "" || o.Log == nil || o.Counted == nil {
		return nil, errors.New("redisaudit: Listen, Channel, Log and Counted are required")
	}
	host, _, err := net.SplitHostPort(o.Listen)
	if ip, parseErr := netip.ParseAddr(host); err != nil || host != "localhost" && (parseErr != nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("redis.listen %q: want a loopback address, such as 127.0.0.1:6380: the embedded Redis asks for no password; for others use redis.mode: external", o.Listen)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("serve the embedded Redis (redis.listen): %w", err)
	}
	e := &Embedded{
		o: o, listener: listener, served: make(chan error, 1),
		clients: map[net.Conn]bool{}, subscribers: map[*subscriber]bool{},
	}
	e.server = redcon.NewServer(o.Listen, e.command, func(redcon.Conn) bool { return true }, nil)
	e.server.SetIdleClose(idleDeadline)
	go func() { e.served <- e.server.Serve(&boundedListener{Listener: listener, e: e}) }()
	return e, nil
}

// Addr is the address that is served.
func (e *Embedded) Addr() net.Addr { return e.listener.Addr() }

// Dropped is the number of subscribers that were too slow.
func (e *Embedded) Dropped() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dropped
}

// Close ends the connections and waits for them.
func (e *Embedded) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	err := e.listener.Close()
	e.mu.Unlock()
	e.clientsMu.Lock()
	open := slices.Collect(maps.Keys(e.clients))
	e.clientsMu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
	served := <-e.served
	if errors.Is(served, net.ErrClosed) {
		served = nil
	}
	e.running.Wait()
	return errors.Join(err, served)
}

// Publish implements audit.Sink. It never waits for a subscriber.
func (e *Embedded) Publish(_ context.Context, lines [][]byte) (arrived, receivers int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subscribers {
		received := false
		for pattern, isPattern := range *s.topics.Load() {
			if isPattern && !match.Match(e.o.Channel, pattern) || !isPattern && pattern != e.o.Channel {
				continue
			}
			received = true
			if !isPattern {
				pattern = ""
			}
			for _, line := range lines {
				select {
				case s.lines <- [3]string{pattern, e.o.Channel, string(line)}:
				default:
					received = false
				}
			}
			if !received {
				e.dropped++
				e.o.Log.Warn("a subscriber of the audit trail is too slow and was dropped", "address", s.conn.RemoteAddr())
				s.leave()
				break
			}
		}
		if received {
			receivers++
		}
	}
	e.o.Counted("success")
	return len(lines), receivers, nil
}

// command answers a client that has subscribed nothing yet.
func (e *Embedded) command(conn redcon.Conn, cmd redcon.Command) {
	switch name := strings.ToLower(string(cmd.Args[0])); name {
	case "ping":
		if len(cmd.Args) > 1 {
			conn.WriteBulk(cmd.Args[1])
			return
		}
		conn.WriteString("PONG")
	case "echo":
		if len(cmd.Args) != 2 {
			conn.WriteError("ERR wrong number of arguments for 'echo' command")
			return
		}
		conn.WriteBulk(cmd.Args[1])
	case "quit":
		conn.WriteString("OK")
		_ = conn.Close()
	case "select", "client":
		conn.WriteString("OK")
	case "command":
		conn.WriteArray(0)
	case "subscribe", "psubscribe":
		e.subscribe(conn.Detach(), cmd)
	case "publish":
		conn.WriteError("NOPERM only the service itself publishes here")
	default:
		conn.WriteError("ERR unknown command '" + printable(name) + "': this Redis is embedded in headway and knows PING, SUBSCRIBE, PSUBSCRIBE and QUIT; for another see redis.mode")
	}
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 32)])
}

// subscribe makes a client a subscriber and serves it from now on.
func (e *Embedded) subscribe(conn redcon.DetachedConn, first redcon.Command) {
	s := &subscriber{conn: conn, lines: make(chan [3]string, maxWaiting), gone: make(chan struct{})}
	s.topics.Store(&map[string]bool{})
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		_ = conn.NetConn().Close()
		return
	}
	e.subscribers[s] = true
	e.running.Add(2)
	e.mu.Unlock()
	_ = conn.NetConn().SetReadDeadline(time.Time{}) // a subscriber may be silent
	go func() {
		defer e.running.Done()
		for {
			select {
			case <-s.gone:
				return
			case l := <-s.lines:
				if s.send(l) != nil {
					s.leave()
				}
			}
		}
	}()
	go func() {
		defer e.running.Done()
		defer func() {
			s.leave()
			e.mu.Lock()
			delete(e.subscribers, s)
			e.mu.Unlock()
		}()
		for cmd, err := first, error(nil); err == nil; cmd, err = conn.ReadCommand() {
			if len(cmd.Args) > 0 && s.obey(cmd) != nil {
				return
			}
		}
	}()
}

// send writes a line and those that wait behind it.
func (s *subscriber) send(l [3]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range maxWaiting {
		if l[0] != "" {
			s.conn.WriteArray(4)
			s.conn.WriteBulkString("pmessage")
			s.conn.WriteBulkString(l[0])
		} else {
			s.conn.WriteArray(3)
			s.conn.WriteBulkString("message")
		}
		s.conn.WriteBulkString(l[1])
		s.conn.WriteBulkString(l[2])
		select {
		case l = <-s.lines:
			continue
		default:
		}
		break
	}
	return s.conn.Flush()
}

// errQuit ends a subscriber that asked for it.
var errQuit = errors.New("quit")

// obey does what a subscriber asks for.
func (s *subscriber) obey(cmd redcon.Command) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.ToLower(string(cmd.Args[0]))
	switch name {
	case "subscribe", "psubscribe", "unsubscribe", "punsubscribe":
		s.change(name, cmd.Args[1:])
	case "ping":
		s.conn.WriteArray(2)
		s.conn.WriteBulkString("pong")
		if len(cmd.Args) > 1 {
			s.conn.WriteBulk(cmd.Args[1])
		} else {
			s.conn.WriteBulkString("")
		}
	case "quit":
		s.conn.WriteString("OK")
		_ = s.conn.Flush()
		return errQuit
	default:
		s.conn.WriteError("ERR Can't execute '" + printable(name) + "': only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT are allowed in this context")
	}
	return s.conn.Flush()
}

func (s *subscriber) change(name string, channels [][]byte) {
	pattern := name[0] == 'p'
	topics := maps.Clone(*s.topics.Load())
	defer func() { s.topics.Store(&topics) }()
	if strings.HasSuffix(name, "unsubscribe") && len(channels) == 0 {
		for c, p := range topics {
			if p == pattern {
				channels = append(channels, []byte(c))
			}
		}
	}
	if len(channels) == 0 && !strings.HasSuffix(name, "unsubscribe") {
		s.conn.WriteError("ERR wrong number of arguments for '" + name + "' command")
		return
	}
	for _, c := range channels {
		channel := string(c)
		switch {
		case strings.HasSuffix(name, "unsubscribe"):
			if topics[channel] == pattern {
				delete(topics, channel)
			}
		case len(topics) >= maxChannels || len(channel) > 256:
			s.conn.WriteError(fmt.Sprintf("ERR at most %d channels, of at most 256 bytes", maxChannels))
			continue
		default:
			topics[channel] = pattern
		}
		s.conn.WriteArray(3)
		s.conn.WriteBulkString(name)
		s.conn.WriteBulkString(channel)
		s.conn.WriteInt(len(topics))
	}
	if len(channels) == 0 { // unsubscribed nothing
		s.conn.WriteArray(3)
		s.conn.WriteBulkString(name)
		s.conn.WriteNull()
		s.conn.WriteInt(len(topics))
	}
}

// boundedListener accepts as many clients as there may be.
type boundedListener struct {
	net.Listener
	e *Embedded
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		bounded := &boundedConn{Conn: c, e: l.e}
		l.e.clientsMu.Lock()
		full := len(l.e.clients) >= maxClients
		if !full {
			l.e.clients[bounded] = true
		}
		l.e.clientsMu.Unlock()
		if !full {
			return bounded, nil
		}
		_ = c.Close()
	}
}

// boundedConn has deadlines for writing and a bound on what it reads.
type boundedConn struct {
	net.Conn
	e      *Embedded
	since  time.Time
	read   int
	closed sync.Once
}

// errTalkative ends a client that sends more than a subscriber has to say.
var errTalkative = errors.New("too much was sent")

func (c *boundedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if now := time.Now(); now.Sub(c.since) > time.Minute {
		c.since, c.read = now, 0
	}
	if c.read += n; c.read > maxPerMinute {
		return 0, errTalkative
	}
	return n, err
}

func (c *boundedConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeDeadline)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *boundedConn) Close() error {
	c.closed.Do(func() {
		c.e.clientsMu.Lock()
		defer c.e.clientsMu.Unlock()
		delete(c.e.clients, c)
	})
	return c.Conn.Close()
}

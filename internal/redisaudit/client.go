package redisaudit

import (
	"bufio"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

type client struct {
	e    *Embedded
	conn net.Conn
	id   int
	from netip.Addr
	gone chan struct{} // closed by end
	once sync.Once

	spoke    atomic.Int64         // when its last command came, in nanoseconds after Embedded.began
	receives atomic.Pointer[[]by] // never changed: what of its subscriptions matches the channel
	lines    chan string          // that wait for it; made before receives first has something

	read      int // bytes since readSince; both are of the reading goroutine
	readSince time.Time

	mu     sync.Mutex // of writing, and of what commands change
	out    []byte     // answers and messages that are not written yet
	resp3  bool
	quit   bool
	name   string
	topics map[by]bool
}

// by is a subscription: a channel, or a pattern of channels.
type by struct {
	pattern bool
	name    string
}

func newClient(e *Embedded, conn net.Conn) *client {
	c := &client{e: e, conn: conn, gone: make(chan struct{}), topics: map[by]bool{}}
	if a, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		c.from = a.Addr().Unmap()
	}
	c.spoke.Store(int64(time.Since(e.began)))
	c.receives.Store(&[]by{})
	return c
}

// end ends the connection and both goroutines. It counts the first reason;
// without one the client left by itself.
func (c *client) end(reason string, cause any) {
	c.once.Do(func() {
		if reason != "" {
			c.e.ended(c, reason, cause)
		}
		close(c.gone)
		_ = c.conn.Close()
	})
}

// recovered ends the client if its goroutine panicked.
func (c *client) recovered(cause any) {
	if cause != nil {
		c.end(reasonPanic, cause)
	}
}

func (c *client) serve() {
	defer func() {
		c.e.mu.Lock()
		defer c.e.mu.Unlock()
		delete(c.e.clients, c)
	}()
	defer func() { c.recovered(recover()) }()
	r := bufio.NewReaderSize(c, 2*maxInline)
	for {
		cmd, err := c.next(r)
		if err == nil {
			c.spoke.Store(int64(time.Since(c.e.began)))
			err = c.obey(cmd)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *client) fail(err error) {
	ending, ok := errors.AsType[*endingError](err)
	if !ok {
		c.end("", nil) // it left, or asked for the end
		return
	}
	if ending.reason == reasonProtocol {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.add(fault("ERR " + ending.text))
		_ = c.flush()
	}
	c.end(ending.reason, err)
}

// endingError ends a client, and is counted.
type endingError struct{ reason, text string }

func (e *endingError) Error() string { return e.text }

var (
	errHTTP       = &endingError{reasonHTTP, "HTTP on the port of the embedded Redis"}
	errTalkative  = &endingError{reasonTalkative, "too much was sent"}
	errSlow       = &endingError{reasonSlow, "nothing was read for too long"}
	errIdle       = &endingError{reasonIdle, "nothing was subscribed or sent for too long"}
	errUnfinished = &endingError{reasonUnfinished, "the rest of a command did not come"}
)

// next waits for a command, without limit if the client is subscribed.
func (c *client) next(r *bufio.Reader) (command, error) {
	// A deadline that cannot be set is that of a connection which cannot be read.
	if r.Buffered() == 0 {
		deadline := time.Now().Add(idleDeadline)
		if len(c.topics) > 0 { // only this goroutine changes them
			deadline = time.Time{}
		}
		_ = c.conn.SetReadDeadline(deadline)
		if _, err := r.Peek(1); err != nil {
			return command{}, orTimeout(err, errIdle)
		}
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(commandDeadline))
	cmd, err := readCommand(r)
	return cmd, orTimeout(err, errUnfinished)
}

func orTimeout(err, meaning error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return meaning
	}
	return err
}

// Read is what the client's reader reads from: its connection, up to
// maxPerMinute.
func (c *client) Read(b []byte) (int, error) {
	n, err := c.conn.Read(b)
	if now := time.Now(); now.Sub(c.readSince) > time.Minute {
		c.readSince, c.read = now, 0
	}
	if c.read += n; c.read > maxPerMinute {
		return 0, errTalkative
	}
	return n, err
}

var errQuit = errors.New("quit")

func (c *client) obey(cmd command) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer, err := c.answer(cmd)
	if err == nil {
		c.add(answer)
		err = c.flush()
	}
	if err == nil && c.quit {
		err = errQuit
	}
	return err
}

// add encodes what flush writes. The caller holds mu.
func (c *client) add(value any) { c.out = appendValue(c.out, c.resp3, value) }

func (c *client) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeDeadline))
	_, err := c.conn.Write(c.out)
	if c.out = c.out[:0]; cap(c.out) > 2*maxReply {
		c.out = nil
	}
	return orTimeout(err, errSlow)
}

// offer queues lines for a client, or drops a client that is too slow, so that
// others do not wait.
func (c *client) offer(lines []string) bool {
	for _, line := range lines {
		select {
		case c.lines <- line:
		default:
			c.end(reasonSlow, errSlow)
			return false
		}
	}
	return true
}

func (c *client) deliver() {
	defer func() { c.recovered(recover()) }()
	for {
		select {
		case <-c.gone:
			return
		case line := <-c.lines:
			if err := c.send(line); err != nil {
				c.fail(err)
				return
			}
		}
	}
}

// maxReply is about how many bytes are written at once.
const maxReply = 64 << 10

// send writes a line, and those queued behind it, for each subscription that
// still exists. An unsubscribed line must not arrive between other answers.
func (c *client) send(line string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for _, topic := range *c.receives.Load() {
			if topic.pattern {
				c.add(push{"pmessage", topic.name, c.e.o.Channel, line})
			} else {
				c.add(push{"message", c.e.o.Channel, line})
			}
		}
		if len(c.out) < maxReply {
			select {
			case line = <-c.lines:
				continue
			default:
			}
		}
		return c.flush()
	}
}

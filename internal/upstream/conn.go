package upstream

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	bufferSize = 4 << 10
	maxHeader  = 64 << 10 // of an answer
	smallBody  = 8 << 10  // is sent in one write with the header
	writeStep  = time.Second
	// lateAnswer is how long an answer may take after the request could not be
	// sent to its end.
	lateAnswer = time.Second
	// slackShare is the share of a limit by which a time-out may come late, up to
	// maxSlack: a deadline is then moved once in that time and not for each call.
	slackShare = 64
	maxSlack   = time.Second
)

// conn is one connection. It has no goroutine: the caller of the exchange
// writes and reads.
type conn struct {
	heads           *Heads
	pool            *pool
	tcp             net.Conn
	stream          net.Conn // tcp, or TLS over it
	socket          *socket  // of tcp; nil: it has none
	r               *bufio.Reader
	out             []byte      // the header of a request
	pieces          [][]byte    // of the request
	rest            net.Buffers // that is not written yet
	since           time.Time
	reused          bool
	readBy, writeBy time.Time // the deadlines that are set
	onEnd           func()    // interrupt, made once

	interrupted atomic.Bool // never taken back: the connection is closed

	// of the exchange
	ctx      context.Context
	now      time.Time                 // when the step under way began
	stop     func() bool               // of onEnd; nil: the context is not watched
	silence  func() (time.Time, error) // of the call
	end      time.Time                 // of the whole exchange
	until    time.Time                 // of the answer's header; zero: each read has the limit idle
	idle     time.Duration             //
	timeout  Kind                      // of the deadline that was set last
	sent     bool
	received bool
	left     bool // silence ended the exchange
	filled   bool // the last read had as much as it asked for
	noWait   bool // reads return errNotYet where nothing has come
	cut      bool // the request was not sent to its end, or may be read as two
}

// unwatched is how long a small request waits before its context is watched: to
// watch one costs as much as to read an answer, and most answers that come at once
// need it not. A context that ends meanwhile is noticed after at most twice the time.
const unwatched = 20 * time.Millisecond

// watch has interrupt called when the caller's context ends.
func (c *conn) watch() {
	if c.stop == nil {
		c.stop = context.AfterFunc(c.ctx, c.onEnd)
	}
}

// unwatch reports whether interrupt was not called.
func (c *conn) unwatch() bool {
	stop := c.stop
	c.stop = nil
	return stop == nil || stop()
}

// interrupt runs when the caller's context ends.
func (c *conn) interrupt() {
	c.interrupted.Store(true)
	_ = c.tcp.Close()
}

// alive reports whether an unused connection can be used again.
func (c *conn) alive() bool {
	if !c.socket.quiet() {
		return false
	}
	if c.stream == c.tcp {
		return true
	}
	// With the deadline past, TLS returns only what it has decrypted already.
	var b [1]byte
	c.readBy = time.Unix(1, 0)
	_ = c.tcp.SetReadDeadline(c.readBy)
	n, err := c.stream.Read(b[:])
	return n == 0 && isTimeout(err)
}

// Read reads from the head within the limits of the phase.
func (c *conn) Read(p []byte) (int, error) {
	if c.noWait {
		n, err := c.socket.read(p)
		c.filled = n == len(p)
		return n, err
	}
	now := c.now
	until, kind := c.until, FirstByteTimeout
	if until.IsZero() {
		now = time.Now()
		until, kind = now.Add(c.idle), IdleTimeout
	}
	if c.end.Before(until) {
		until, kind = c.end, TotalTimeout
	}
	c.timeout = kind
	for {
		if c.stop == nil && c.ctx.Err() != nil {
			c.interrupt()
		}
		step, err := c.silent(until)
		if err != nil {
			return 0, err
		}
		step, slack := c.limit(now, step)
		if by := deadline(step, slack, c.readBy); by != c.readBy {
			if err := c.tcp.SetReadDeadline(by); err != nil {
				return 0, err
			}
			c.readBy = by
		}
		n, err := c.stream.Read(p)
		c.received, c.filled = c.received || n > 0, n == len(p)
		if n > 0 || !isTimeout(err) || !step.Before(until) {
			return n, err
		}
		c.watch()
		now = time.Now()
	}
}

// hasMore reports whether more may have come than was read.
func (c *conn) hasMore() bool { return c.filled && c.socket != nil && c.stream == c.tcp }

var errNotYet = errors.New("nothing has come yet")

// limit is until when to wait from now on, and how much longer that may be: until a
// time, or until the context has to be watched.
func (c *conn) limit(now, until time.Time) (step time.Time, slack time.Duration) {
	if step = now.Add(unwatched); c.stop == nil && step.Before(until) {
		return step, unwatched
	}
	return until, min(until.Sub(now)/slackShare, maxSlack)
}

// deadline is the time to set for a time-out at until: the one that is set, if it
// is late enough and not too late.
func deadline(until time.Time, slack time.Duration, set time.Time) time.Time {
	if late := set.Sub(until); late >= 0 && late <= slack {
		return set
	}
	return until.Add(slack)
}

// silent calls what the call has for times of silence, and returns how long the
// head is waited for until the next time.
func (c *conn) silent(until time.Time) (time.Time, error) {
	if c.silence == nil {
		return until, nil
	}
	next, err := c.silence()
	if err != nil {
		c.left = true
		return until, err
	}
	return earlier(until, next), nil
}

// fail makes the error of an exchange.
func (c *conn) fail(kind Kind, err error) *Error {
	if c.left {
		kind = Canceled
	}
	if c.interrupted.Load() {
		kind, err = Canceled, context.Cause(c.ctx)
		if errors.Is(c.ctx.Err(), context.DeadlineExceeded) {
			kind = TotalTimeout
		}
	}
	return &Error{Kind: kind, Reused: c.reused, Sent: c.sent, Received: c.received, Err: err}
}

// exchange sends the request and reads the header of the answer. After an error
// the connection is closed.
func (c *conn) exchange(ctx context.Context, call *Call, limits Limits, now, end time.Time) (*Response, *Error) {
	c.ctx, c.now, c.end, c.idle, c.silence, c.left = ctx, now, end, limits.Idle, call.Silence, false
	c.sent, c.received, c.cut = false, false, call.strayBody()
	if ctx.Err() != nil {
		c.interrupt()
	}
	if call.Silence != nil || call.Stream != nil || c.stream != c.tcp {
		c.watch()
	}
	wrote := c.send(call, limits.Write)
	if wrote == nil && call.Stream != nil {
		wrote = c.sendStream(call, limits.Write)
	}
	c.until = c.now.Add(limits.FirstByte)
	if wrote != nil {
		// The head may have answered without reading the body.
		c.cut = true
		c.until = time.Now().Add(min(lateAnswer, limits.FirstByte))
	}
	failed := wrote
	if wrote == nil || wrote.Kind != Canceled {
		var answer *Response
		answer, failed = c.answer(call.Method)
		c.until = time.Time{}
		if failed == nil {
			answer.Early = wrote != nil
			return answer, nil
		}
	}
	if wrote != nil && !c.received {
		failed = wrote
	}
	failed.Early = wrote != nil
	c.unwatch()
	c.heads.close([]*conn{c})
	return nil, failed
}

// strayBody reports whether the request has a body that its method gives no meaning.
// A head that does not read it takes it for the next request, and the answer to that
// would be the next caller's: the connection is not used again.
func (call *Call) strayBody() bool {
	switch call.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return false
	}
	return call.Stream != nil || slices.ContainsFunc(call.Body, func(piece []byte) bool { return len(piece) > 0 })
}

// send writes the request: one write, or with a large body one for as many
// pieces as the system takes.
func (c *conn) send(call *Call, limit time.Duration) *Error {
	size := 0
	for _, piece := range call.Body {
		size += len(piece)
	}
	c.out = call.appendHeader(c.out[:0], c.pool.host, size)
	pieces := append(c.pieces[:0], nil)
	if size <= smallBody {
		for _, piece := range call.Body {
			c.out = append(c.out, piece...)
		}
	} else {
		pieces = append(pieces, call.Body...)
		c.watch()
	}
	pieces[0] = c.out
	c.pieces = pieces
	c.rest = pieces
	err := c.write(limit)
	clear(pieces)
	if cap(c.out) > maxHeader {
		c.out = nil
	}
	return err
}

// streamStep is how much of a stream is sent at a time.
const streamStep = 32 << 10

// sendStream sends Call.Stream, in chunks where its length is not known. It stops
// when the head answers meanwhile.
func (c *conn) sendStream(call *Call, limit time.Duration) *Error {
	buffer, left, chunked := make([]byte, streamStep), call.Length, call.Length < 0
	for ended := false; !ended; {
		n, err := call.Stream.Read(buffer)
		c.now = time.Now()
		ended = err != nil
		switch {
		case err != nil && err != io.EOF, !chunked && (int64(n) > left || ended && int64(n) < left):
			c.left = true // the caller did
			return c.fail(Canceled, cmp.Or(err, io.ErrUnexpectedEOF))
		case c.stream == c.tcp && !c.socket.quiet():
			return c.fail(Write, errEarly)
		}
		left -= int64(n)
		c.rest = append(c.pieces[:0], buffer[:n])
		if chunked {
			c.rest = c.pieces[:0]
			if n > 0 {
				c.out = append(strconv.AppendInt(c.out[:0], int64(n), 16), "\r\n"...)
				c.rest = append(c.rest, c.out, buffer[:n], []byte("\r\n"))
			}
			if ended {
				c.rest = append(c.rest, []byte("0\r\n\r\n"))
			}
		}
		if failed := c.write(limit); failed != nil {
			return failed
		}
	}
	return nil
}

var errEarly = errors.New("the head answered or closed before the request's end")

// write writes the rest. The head has the limit to take some more of it. Where
// it takes no more of a large body and has answered, there is an error in time
// to read the answer.
func (c *conn) write(limit time.Duration) *Error {
	secured, large := c.stream != c.tcp, len(c.rest) > 1
	for last := c.now; len(c.rest) > 0; {
		until, kind := last.Add(limit), WriteTimeout
		if c.end.Before(until) {
			until, kind = c.end, TotalTimeout
		}
		step := until
		if large && !secured { // TLS cannot go on after a time-out
			if _, err := c.silent(until); err != nil {
				return c.fail(Write, err)
			}
			step = earlier(until, c.now.Add(writeStep))
		}
		step, slack := c.limit(c.now, step)
		if by := deadline(step, slack, c.writeBy); by != c.writeBy {
			if err := c.tcp.SetWriteDeadline(by); err != nil {
				return c.fail(Write, err)
			}
			c.writeBy = by
		}
		n, err := c.writeSome(secured)
		c.sent = c.sent || n > 0 || secured
		if err == nil && !large && len(c.rest) == 0 {
			return nil // the system took it at once
		}
		c.watch()
		if c.now = time.Now(); n > 0 {
			last = c.now
		}
		switch {
		case err == nil || n > 0 && isTimeout(err) && !secured && last.Before(c.end):
		case !isTimeout(err):
			return c.fail(Write, err)
		case !c.now.Before(until) || secured:
			return c.fail(kind, err)
		case !c.socket.quiet():
			return c.fail(Write, errEarly)
		}
	}
	return nil
}

// writeSome writes what the system takes; over TLS at most a part of a piece,
// so that a head that takes it slowly makes progress.
func (c *conn) writeSome(secured bool) (int64, error) {
	if !secured && len(c.rest) > 1 {
		return c.rest.WriteTo(c.tcp)
	}
	first := c.rest[0]
	part := first
	if secured {
		part = first[:min(len(first), 64<<10)]
	}
	n, err := c.stream.Write(part)
	if c.rest[0] = first[n:]; n == len(first) {
		c.rest = c.rest[1:]
	}
	return int64(n), err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// done ends the exchange: the connection is kept if it is usable.
func (c *conn) done(usable bool) {
	if c.unwatch() && usable && !c.cut && c.r.Buffered() == 0 {
		if c.r.Size() != bufferSize {
			c.r = bufio.NewReaderSize(c, bufferSize)
		}
		c.ctx, c.silence = nil, nil
		c.heads.put(c)
		return
	}
	c.heads.close([]*conn{c})
}

// appendHeader writes the request line and the header.
func (call *Call) appendHeader(to []byte, host string, size int) []byte {
	to = append(to, call.Method...)
	to = append(to, ' ')
	to = append(to, call.Path...)
	to = append(to, " HTTP/1.1\r\nHost: "...)
	to = append(to, host...)
	if call.Stream != nil && call.Length < 0 {
		to = append(to, "\r\nTransfer-Encoding: chunked"...)
	} else if size += int(call.Length); size > 0 || call.Method != http.MethodGet && call.Method != http.MethodHead {
		to = append(to, "\r\nContent-Length: "...)
		to = strconv.AppendInt(to, int64(size), 10)
	}
	for _, f := range call.Header {
		to = append(to, '\r', '\n')
		to = append(to, f.Name...)
		to = append(to, ": "...)
		to = append(to, f.Value...)
	}
	return append(to, "\r\n\r\n"...)
}

package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"syscall"
	"time"

	"headway/internal/address"
)

// pool is the connections to one endpoint; Heads.mu guards what changes.
type pool struct {
	host   string // of the header Host
	dialAt string
	tls    *tls.Config // nil: plain

	endpoint  string
	open      int
	forgotten bool
	idle      []*conn // by the time of their last use
}

var (
	errLimit  = errors.New("as many connections to heads as allowed are open")
	errClosed = errors.New("the service is stopping")
)

// newPool reads the endpoint of a head, scheme://host[:port].
func (h *Heads) newPool(endpoint string) (*pool, *Error) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return nil, &Error{Kind: Invalid, Err: err}
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.User != nil, u.RawQuery != "", u.Fragment != "", u.Path != "" && u.Path != "/":
		return nil, &Error{Kind: Invalid, Err: errors.New("the endpoint is not of the form http[s]://host[:port]")}
	}
	if wrong := address.CheckHost(u.Hostname(), h.o.AllowLinkLocal, h.o.Setting); wrong != "" {
		return nil, &Error{Kind: Forbidden, Err: errors.New("the host " + wrong)}
	}
	p := &pool{endpoint: endpoint, host: u.Host}
	port := u.Port()
	if u.Scheme == "https" {
		p.tls = &tls.Config{ServerName: u.Hostname(), RootCAs: h.o.RootCAs, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	p.dialAt = net.JoinHostPort(u.Hostname(), port)
	return p, nil
}

// take returns an unused connection, the last used first and none that was not used
// since that time, or a new one. Fresh asks for a new one.
func (h *Heads) take(ctx context.Context, endpoint string, connect time.Duration, end, used time.Time, fresh bool) (*conn, *Error) {
	for !fresh {
		c := h.lastUsed(endpoint, used)
		if c == nil {
			break
		}
		if c.alive() {
			h.reused.Inc()
			c.reused = true
			return c, nil
		}
		h.stale.Inc()
		h.close([]*conn{c})
	}
	p, failed := h.reserve(endpoint)
	if failed != nil {
		return nil, failed
	}
	h.dialed.Inc()
	c, failed := h.dial(ctx, p, connect, end)
	if failed != nil {
		h.released(p)
	}
	return c, failed
}

func (h *Heads) lastUsed(endpoint string, used time.Time) *conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pools[endpoint]
	if p == nil || len(p.idle) == 0 {
		return nil
	}
	last := len(p.idle) - 1
	c := p.idle[last]
	if c.since.Before(used) {
		return nil
	}
	p.idle[last] = nil
	p.idle = p.idle[:last]
	h.idle--
	return c
}

// reserve makes room for one more connection within the limits. An unused one,
// of this head or of another, makes way.
func (h *Heads) reserve(endpoint string) (*pool, *Error) {
	h.mu.Lock()
	p := h.pools[endpoint]
	if p == nil {
		h.mu.Unlock()
		made, failed := h.newPool(endpoint)
		if failed != nil {
			return nil, failed
		}
		h.mu.Lock()
		if p = h.pools[endpoint]; p == nil {
			p = made
		}
	}
	var unused []*conn
	defer func() { h.close(unused) }() // after the mutex is unlocked
	defer h.mu.Unlock()
	if h.closed {
		return nil, &Error{Kind: Closed, Err: errClosed}
	}
	if p.open >= h.o.MaxOpenPerHead {
		unused = h.takeIdle(p, 1)
	} else if h.open >= h.o.MaxOpen {
		for _, other := range h.pools {
			if unused = h.takeIdle(other, 1); unused != nil {
				break
			}
		}
	}
	// What makes way is counted until it is closed, which is at once.
	if room := len(unused); p.open-room >= h.o.MaxOpenPerHead || h.open-room >= h.o.MaxOpen {
		h.refused.Inc()
		return nil, &Error{Kind: Limit, Err: errLimit}
	}
	h.pools[endpoint] = p
	h.open++
	p.open++
	return p, nil
}

// takeIdle removes the n unused connections that were unused the longest. The
// caller holds the mutex, and closes them without it.
func (h *Heads) takeIdle(p *pool, n int) []*conn {
	if n == 0 || len(p.idle) == 0 {
		return nil
	}
	taken := append([]*conn{}, p.idle[:n]...)
	rest := copy(p.idle, p.idle[n:])
	clear(p.idle[rest:])
	p.idle = p.idle[:rest]
	h.idle -= n
	return taken
}

// put keeps a connection for the next exchange.
func (h *Heads) put(c *conn) {
	h.mu.Lock()
	kept := !h.closed && !c.pool.forgotten && len(c.pool.idle) < h.o.MaxIdlePerHead
	if kept {
		c.since = time.Now()
		c.pool.idle = append(c.pool.idle, c)
		h.idle++
	}
	h.mu.Unlock()
	if !kept {
		h.close([]*conn{c})
	}
}

// close closes connections that are no longer in a pool.
func (h *Heads) close(list []*conn) {
	for _, c := range list {
		_ = c.tcp.Close()
		h.released(c.pool)
	}
}

// released gives back the room of a connection; a pool without any is dropped.
func (h *Heads) released(p *pool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open--
	p.open--
	if p.open == 0 && h.pools[p.endpoint] == p {
		delete(h.pools, p.endpoint)
	}
	if h.closed && h.open == 0 {
		close(h.drained)
	}
}

// dial connects. Each address of the name is checked before it is tried.
func (h *Heads) dial(ctx context.Context, p *pool, connect time.Duration, end time.Time) (*conn, *Error) {
	until, timeout := time.Now().Add(connect), ConnectTimeout
	if end.Before(until) {
		until, timeout = end, TotalTimeout
	}
	limited, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	fail := func(kind Kind, err error) (*conn, *Error) {
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			kind = TotalTimeout
		case ctx.Err() != nil:
			kind = Canceled
		case kind == ConnectTimeout:
			kind = timeout
		}
		return nil, &Error{Kind: kind, Err: err}
	}
	tcp, err := h.o.Dial(limited, "tcp", p.dialAt)
	if err != nil {
		return fail(dialKind(err), err)
	}
	c := h.newConn(p, tcp)
	if p.tls != nil {
		secured := tls.Client(tcp, p.tls)
		if err := secured.HandshakeContext(limited); err != nil {
			_ = tcp.Close()
			return fail(handshakeKind(err), err)
		}
		c.stream = secured
	}
	if socket, is := tcp.(syscall.Conn); is {
		raw, err := socket.SyscallConn()
		if err != nil {
			_ = tcp.Close()
			return fail(Unreachable, err)
		}
		c.socket = newSocket(raw)
	}
	return c, nil
}

func (h *Heads) newConn(p *pool, tcp net.Conn) *conn {
	c := &conn{heads: h, pool: p, tcp: tcp, stream: tcp}
	c.r, c.onEnd = bufio.NewReaderSize(c, bufferSize), c.interrupt
	return c
}

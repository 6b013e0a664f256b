// Package upstream holds the connections to heads: it sends one request over
// HTTP/1.1, limits each phase, and returns the answer as it comes.
//
// Connections are pooled here and not by http.Transport, whose two goroutines
// for each connection cost half as much again (BenchmarkExchange). Answers are
// read here too: that costs less than http.ReadResponse, and nothing is accepted that
// it refuses (FuzzAnswers). Redirects are returned, not followed, and a proxy of the
// environment is never used.
package upstream

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/outbound"
)

// staleWindow is how soon after the request a reused connection has to break
// for the head to have closed it as idle. A head that worked on the request for
// longer and then broke is not asked again here.
const staleWindow = 5 * time.Second

// recently is within which time a connection was used that a call of Once may take:
// heads close those as idle that were unused for longer.
const recently = 500 * time.Millisecond

// Limits are the longest times of the phases of an exchange.
type Limits struct {
	Connect   time.Duration // name, TCP and TLS
	Write     time.Duration // without the head taking any of the request
	FirstByte time.Duration // from the request's end to the end of the answer's header
	Idle      time.Duration // of silence within the body
	Total     time.Duration // from Do, or Call.Since, to the end of the body
}

// Options are what the connections may be.
type Options struct {
	Metrics        prometheus.Registerer
	Limits         Limits         // of calls that set none
	IdleTimeout    time.Duration  // after which an unused connection is closed
	MaxOpen        int            // connections in all
	MaxOpenPerHead int            //
	MaxIdlePerHead int            // unused ones that are kept
	AllowLinkLocal bool           // heads at link-local and cloud metadata addresses
	Setting        string         // that allows them, for the error
	RootCAs        *x509.CertPool // of heads' certificates; nil: those of the system
	Dial           Dial           // nil: to addresses that heads may have
}

// Dial connects, as net.Dialer does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Heads are the connections to all heads. Its methods may be called at once.
type Heads struct {
	o     Options
	ended chan struct{} // the sweep has
	stop  context.CancelFunc

	dialed, reused, stale, refused, repeated prometheus.Counter

	mu      sync.Mutex
	pools   map[string]*pool // each has an open connection, or one being dialed
	open    int              // connections, including those being dialed
	idle    int
	closed  bool
	drained chan struct{} // closed when the last connection is, after Close began
}

// New makes an empty set of connections. Close ends it.
func New(o Options) (*Heads, error) {
	l := o.Limits
	switch {
	case o.Metrics == nil:
		return nil, errors.New("upstream: Metrics is missing")
	case min(l.Connect, l.Write, l.FirstByte, l.Idle, l.Total) <= 0:
		return nil, errors.New("upstream: each of Limits must be above zero")
	case o.IdleTimeout <= 0:
		return nil, errors.New("upstream: IdleTimeout must be above zero")
	case min(o.MaxOpen, o.MaxOpenPerHead, o.MaxIdlePerHead) <= 0:
		return nil, errors.New("upstream: MaxOpen, MaxOpenPerHead and MaxIdlePerHead must be above zero")
	}
	ctx, stop := context.WithCancel(context.Background())
	if o.Dial == nil {
		o.Dial = outbound.NewDialer(outbound.Options{AllowLinkLocal: o.AllowLinkLocal, Setting: o.Setting}).DialContext
	}
	h := &Heads{o: o, stop: stop, ended: make(chan struct{}), drained: make(chan struct{}), pools: map[string]*pool{}}
	h.register()
	go h.sweep(ctx)
	return h, nil
}

func (h *Heads) register() {
	metrics := promauto.With(h.o.Metrics)
	events := metrics.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_upstream_connection_events_total",
		Help: "Connections to heads, by event: dialed; reused; stale (closed by the head while unused); refused (as many as allowed were open); repeated (a request sent again since a reused connection had been closed).",
	}, []string{"event"})
	h.dialed, h.reused, h.stale = events.WithLabelValues("dialed"), events.WithLabelValues("reused"), events.WithLabelValues("stale")
	h.refused, h.repeated = events.WithLabelValues("refused"), events.WithLabelValues("repeated")
	gauge := func(name, help string, of *int) {
		metrics.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			h.mu.Lock()
			defer h.mu.Unlock()
			return float64(*of)
		})
	}
	gauge("headway_upstream_connections_open", "Connections to heads that are open or being made.", &h.open)
	gauge("headway_upstream_connections_idle", "Connections to heads that are open and unused.", &h.idle)
}

// Do sends a request and returns when the header of the answer is complete. The
// caller closes the body. When the context ends, the connection is closed at
// once. Errors are of the type *Error.
//
// A request is sent a second time, on a new connection to the same head, if it
// went out on a reused connection that broke within staleWindow and before a
// byte came back: the head had closed it as idle. There is no third time. One of
// Once is so only if not a byte of it went out.
func (h *Heads) Do(ctx context.Context, call *Call) (*Response, error) {
	start := time.Now()
	limits := call.Limits
	limits.Connect = cmp.Or(limits.Connect, h.o.Limits.Connect)
	limits.Write = cmp.Or(limits.Write, h.o.Limits.Write)
	limits.FirstByte = cmp.Or(limits.FirstByte, h.o.Limits.FirstByte)
	limits.Idle = cmp.Or(limits.Idle, h.o.Limits.Idle)
	since := call.Since
	if since.IsZero() {
		since = start
	}
	end := since.Add(cmp.Or(limits.Total, h.o.Limits.Total))
	if err := call.check(); err != nil {
		return nil, &Error{Kind: Invalid, Err: err}
	}
	used := time.Time{}
	if call.Once {
		used = start.Add(-recently)
	}
	c, err := h.connect(ctx, call, limits.Connect, end, used, call.Stream != nil)
	if err != nil {
		return nil, err
	}
	now := start
	if !c.reused {
		now = time.Now()
	}
	answer, failed := c.exchange(ctx, call, limits, now, end)
	if failed == nil {
		return answer, nil
	}
	if call.Stream != nil || call.Once && failed.Sent || !failed.wasStale() || time.Since(start) > staleWindow || ctx.Err() != nil {
		return nil, failed
	}
	h.repeated.Inc()
	if c, err = h.connect(ctx, call, limits.Connect, end, time.Time{}, true); err != nil {
		err.Sent = failed.Sent
		return nil, err
	}
	answer, again := c.exchange(ctx, call, limits, time.Now(), end)
	if again != nil {
		again.Sent = again.Sent || failed.Sent
		return nil, again
	}
	return answer, nil
}

// wasStale reports whether the head closed the connection before it saw the
// request.
func (e *Error) wasStale() bool {
	return e.Reused && !e.Received && (e.Kind == Write || e.Kind == EndOfStream || e.Kind == Reset)
}

// Forget closes the unused connections of a head that left the fleet. Those in
// use are closed after their exchange.
func (h *Heads) Forget(endpoint string) {
	h.mu.Lock()
	p := h.pools[endpoint]
	var unused []*conn
	if p != nil {
		delete(h.pools, endpoint)
		p.forgotten = true
		unused = h.takeIdle(p, len(p.idle))
	}
	h.mu.Unlock()
	h.close(unused)
}

// Close closes the unused connections, refuses new exchanges and waits for those
// under way until the context ends.
func (h *Heads) Close(ctx context.Context) error {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		if h.open == 0 {
			close(h.drained)
		}
	}
	var unused []*conn
	for _, p := range h.pools {
		unused = append(unused, h.takeIdle(p, len(p.idle))...)
	}
	h.mu.Unlock()
	h.close(unused)
	h.stop()
	<-h.ended
	select {
	case <-h.drained:
		return nil
	case <-ctx.Done():
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.open == 0 {
			return nil
		}
		return fmt.Errorf("%d connections to heads are still in use: %w", h.open, ctx.Err())
	}
}

// sweep closes connections that were unused for too long.
func (h *Heads) sweep(ctx context.Context) {
	defer close(h.ended)
	every := time.NewTicker(max(h.o.IdleTimeout/4, time.Millisecond))
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		before := time.Now().Add(-h.o.IdleTimeout)
		var old []*conn
		h.mu.Lock()
		for _, p := range h.pools {
			n := 0
			for n < len(p.idle) && p.idle[n].since.Before(before) { // the oldest come first
				n++
			}
			old = append(old, h.takeIdle(p, n)...)
		}
		h.mu.Unlock()
		h.close(old)
	}
}

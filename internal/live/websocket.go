package live

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/time/rate"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
)

// Peer is the client of a WebSocket.
type Peer struct {
	Principal *access.Principal // nil: the first message must authenticate
	Identity  audit.Identity    // for the audit trail
	Address   netip.Addr        // whose attempts to authenticate are limited
}

// session is one WebSocket. The goroutine of its handler reads and answers.
// Another one sends events and pings, and ends the session when the client loses
// its access.
type session struct {
	hub       *Hub
	peer      Peer
	conn      *websocket.Conn
	wire      wire
	ctx       context.Context // of the request, with the author of changes
	principal atomic.Pointer[access.Principal]
	closing   sync.Once
	running   sync.WaitGroup // of the other goroutines
	rate      *rate.Limiter
	message   bytes.Buffer // the message that is read
	answer    []byte       // the answer that is written
	data      []byte       // the data of an answer to decide
	after     func()       // called once the answer is queued, or nil

	mu      sync.Mutex
	sub     *subscriber       // nil: no subscription
	first   []byte            // what to send first of a new subscription
	heads   map[string]string // admin states of the heads registered here
	noticed place             // up to which heads has the admin states
}

// ServeWebSocket upgrades the request and serves the connection until it ends. An
// error is about the request; nothing was sent then.
func (h *Hub) ServeWebSocket(w http.ResponseWriter, r *http.Request, peer Peer) error {
	if !upgrades(r) {
		w.Header()["Upgrade"] = []string{"websocket"}
		return &apiv1.Problem{Code: api.CodeUpgradeRequired, Detail: "This path is for WebSocket (RFC 6455, version 13) over HTTP/1.1."}
	}
	leave, err := h.enter(overWebSocket)
	if err != nil {
		return err
	}
	defer leave()
	unlimited(w)
	s := &session{hub: h, peer: peer, rate: rate.NewLimiter(rate.Limit(h.o.MaxRate), max(1, int(h.o.MaxRate)))}
	s.wire.timeout, s.wire.withdraw = h.o.Timing.Write, h.o.Verbs.Withdraw
	conn, err := websocket.Accept(&hijacker{w, &s.wire}, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // httpapi refuses the pages of other sites on every route
		CompressionMode:    websocket.CompressionDisabled,
		// The goroutine that reads calls both.
		OnPingReceived: func(context.Context, []byte) bool { s.limit(); return true },
		OnPongReceived: func(context.Context, []byte) { s.limit() },
	})
	if err != nil {
		return nil // the library has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(h.o.MaxMessage)
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	s.conn, s.ctx = conn, ctx
	if peer.Principal != nil {
		s.authenticated(peer.Principal)
	}
	s.running.Go(func() { s.watch(ctx) })
	s.read() //nolint:contextcheck // a read ends with its connection
	cancel()
	s.running.Wait()
	if s.sub != nil {
		s.sub.close()
	}
	return nil
}

// upgrades reports whether a request asks for what Accept takes.
func upgrades(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.Header.Get("Sec-Websocket-Version") == "13" && r.Header.Get("Sec-Websocket-Key") != "" &&
		httpguts.HeaderValuesContainsToken(r.Header["Upgrade"], "websocket") && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade")
}

// authenticated sets the client's principal.
func (s *session) authenticated(p *access.Principal) {
	s.principal.Store(p)
	s.ctx = audit.WithIdentity(s.ctx, s.identity(p))
}

// identity is the client's with a principal, which may be nil.
func (s *session) identity(p *access.Principal) *audit.Identity {
	id := s.peer.Identity
	if p != nil {
		id.Actor.Type, id.Actor.ID = p.Type, p.ID
	}
	return &id
}

// read handles messages until the connection ends.
func (s *session) read() {
	if s.principal.Load() == nil {
		late := time.AfterFunc(s.hub.o.Timing.Auth, func() {
			if s.principal.Load() == nil {
				s.end(websocket.StatusPolicyViolation, endInvalid, "authenticate first: {\"type\":\"auth\",\"data\":{\"token\":…}}")
			}
		})
		defer late.Stop()
	}
	for {
		// The context is never cancelled: what ends the connection ends the read.
		kind, reader, err := s.conn.Reader(context.Background())
		if err == nil && kind == websocket.MessageText {
			s.message.Reset()
			s.wire.left.Store(maxOverhead * (s.hub.o.MaxMessage + maxOverhead))
			_, err = s.message.ReadFrom(reader)
			s.wire.left.Store(0)
		}
		switch {
		case err != nil:
			s.readFailed(err)
			return
		case kind != websocket.MessageText:
			s.end(websocket.StatusUnsupportedData, endInvalid, "messages are JSON, as text")
			return
		}
		if !s.handle(s.message.Bytes()) {
			return
		}
		if s.message.Cap() > maxKept {
			s.message = bytes.Buffer{}
		}
		s.limit()
	}
}

// limit counts a message, a ping or a pong against the client's rate, and waits
// when that is exceeded, so that the client waits as well. Only the goroutine that
// reads calls it.
func (s *session) limit() {
	wait := s.rate.Reserve().Delay()
	if wait <= 0 {
		return
	}
	s.hub.metrics.throttled.Inc()
	select {
	case <-time.After(wait):
	case <-s.hub.stop:
	}
	s.wire.touch() // the service did not read
}

// readFailed ends a connection after a failed read.
func (s *session) readFailed(err error) {
	closed, isClosed := errors.AsType[websocket.CloseError](err)
	switch {
	case errors.Is(err, errFragments):
		s.end(websocket.StatusPolicyViolation, endInvalid, "a message has too many fragments")
	case errors.Is(err, websocket.ErrMessageTooBig), isClosed && !utf8.ValidString(closed.Reason):
		s.hub.metrics.dropped.WithLabelValues(overWebSocket, endInvalid).Inc() // the close frame was sent
	case s.wire.failure() != nil:
		s.hub.metrics.countSlow(overWebSocket, s.wire.failure())
	case !isClosed && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !isNetwork(err):
		s.end(websocket.StatusProtocolError, endInvalid, "not a frame of a client (RFC 6455, section 5)")
	}
}

// isNetwork reports whether the connection failed, rather than the client.
func isNetwork(err error) bool {
	_, is := errors.AsType[net.Error](err)
	return is || errors.Is(err, io.ErrUnexpectedEOF)
}

// end closes the connection with a code and a text, once.
func (s *session) end(code websocket.StatusCode, reason, text string) {
	s.closing.Do(func() {
		s.hub.metrics.dropped.WithLabelValues(overWebSocket, reason).Inc()
		_ = s.conn.Close(code, text)
	})
}

// watch sends events and pings until the connection ends.
func (s *session) watch(ctx context.Context) {
	var pinging atomic.Bool
	turn := s.hub.takeTurn()
	for {
		wake := *turn.Load() // before Ended is called, so that no change is missed
		if p := s.principal.Load(); p != nil && s.hub.o.Guard.Ended(p) != nil {
			s.end(websocket.StatusPolicyViolation, endRevoked, "the credential is no longer valid")
			return
		}
		if b := s.next(); len(b) > 0 && s.wire.send(b) != nil {
			_ = s.conn.CloseNow()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-s.hub.stop:
			_ = s.wire.send(bye().ws)
			s.end(websocket.StatusGoingAway, endStopped, "the service stops; connect again")
			return
		case <-wake:
		}
		if s.wire.silence() > s.hub.o.Timing.Heartbeat && pinging.CompareAndSwap(false, true) {
			s.running.Go(func() {
				defer pinging.Store(false)
				s.ping(ctx)
			})
		}
	}
}

// next returns what to send now.
func (s *session) next() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.first
	s.first = nil
	if s.sub != nil && len(b) == 0 {
		b = s.sub.next()
	}
	if notices := s.adminNotices(); len(notices) > 0 {
		b = append(notices, b...)
	}
	return b
}

// ping ends the connection if the client does not answer.
func (s *session) ping(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.hub.o.Timing.Pong)
	defer cancel()
	if err := s.conn.Ping(ctx); err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		s.closing.Do(func() {
			s.hub.metrics.dropped.WithLabelValues(overWebSocket, endSilent).Inc()
			_ = s.conn.CloseNow()
		})
	}
}

// adminNotices returns the changed admin states of the heads registered here;
// s.mu must be held.
func (s *session) adminNotices() (b []byte) {
	if len(s.heads) == 0 {
		return nil
	}
	s.noticed, _ = s.hub.log.after(s.noticed, false, func(f *frame) {
		if state, here := s.heads[f.head]; here && f.admin != "" && f.admin != state {
			s.heads[f.head] = f.admin
			b = append(b, notice(api.MessageAdmin, api.AdminNotice{Head: f.head, AdminState: f.admin}).ws...)
		}
	})
	return b
}

package live

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
)

// Peer is who is at the other end of a WebSocket.
type Peer struct {
	Principal    *access.Principal                                                  // nil: not said yet, the first message must
	Authenticate func(ctx context.Context, token string) (*access.Principal, error) // required
	Context      func(ctx context.Context, p *access.Principal) context.Context     // required; gives changes who made them, for the audit trail
	Denied       func(p *access.Principal, action string, err error)                // required; records an attempt that was refused
}

// session is one WebSocket. Its handler's goroutine reads and answers; another
// watches: it sends events, pings, and looks whether the peer may stay.
type session struct {
	hub       *Hub
	peer      Peer
	conn      *websocket.Conn
	wire      *wire
	ctx       context.Context // of the request, with who changes what
	principal atomic.Pointer[access.Principal]
	closing   sync.Once
	rate      allowance
	buf       []byte // the message that is read
	answer    []byte // the answer that is written
	after     func() // what is done once the answer was queued, or nil

	mu    sync.Mutex
	sub   *subscriber       // nil: no events are wanted
	first []byte            // what to send first, of a new subscription
	heads map[string]string // the admin states of those registered here
	told  uint64            // place of the last event that was looked at for them
}

// ServeWebSocket upgrades the request and serves the connection until it ends.
// The error is for what is wrong with the request; nothing was sent then.
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
	hijack := &hijacked{ResponseWriter: w, timeout: h.o.Timing.Write, lost: h.o.Verbs.Withdraw}
	s := &session{hub: h, peer: peer, rate: allowance{perSecond: h.o.MaxRate}}
	conn, err := websocket.Accept(hijack, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // httpapi refuses other sites' pages on every route
		CompressionMode:    websocket.CompressionDisabled,
		// Both are called by the goroutine that reads.
		OnPingReceived: func(context.Context, []byte) bool { s.spend(); return true },
		OnPongReceived: func(context.Context, []byte) { s.spend() },
	})
	if err != nil {
		return nil // the library has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(h.o.MaxMessage)
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	s.conn, s.wire, s.ctx = conn, hijack.wire, ctx
	if peer.Principal != nil {
		s.become(peer.Principal)
	}
	var watch sync.WaitGroup
	watch.Go(func() { s.watch(ctx) })
	s.read() //nolint:contextcheck // a read ends with its connection
	cancel()
	watch.Wait()
	if s.sub != nil {
		s.sub.close()
	}
	return nil
}

// upgrades reports whether a request asks for what Accept takes.
func upgrades(r *http.Request) bool {
	return r.ProtoMajor == 1 && headerHas(r.Header["Upgrade"], "websocket") && headerHas(r.Header["Connection"], "upgrade") &&
		r.Header.Get("Sec-Websocket-Version") == "13" && r.Header.Get("Sec-Websocket-Key") != ""
}

// become sets who is at the other end.
func (s *session) become(p *access.Principal) {
	s.principal.Store(p)
	s.ctx = s.peer.Context(s.ctx, p)
}

// read takes messages until the connection ends.
func (s *session) read() {
	if s.principal.Load() == nil {
		late := time.AfterFunc(s.hub.o.Timing.Auth, func() {
			if s.principal.Load() == nil {
				s.end(websocket.StatusPolicyViolation, droppedInvalid, "say who you are first: {\"type\":\"auth\",\"data\":{\"token\":…}}")
			}
		})
		defer late.Stop()
	}
	for {
		// The context is never cancelled: what ends the connection ends the read.
		kind, reader, err := s.conn.Reader(context.Background())
		if err == nil && kind == websocket.MessageText {
			s.wire.most = maxFraming * (s.hub.o.MaxMessage + maxFraming)
			s.buf, err = readAll(s.buf[:0], reader)
			s.wire.most = 0
		}
		switch {
		case err != nil:
			s.broken(err)
			return
		case kind != websocket.MessageText:
			s.end(websocket.StatusUnsupportedData, droppedInvalid, "messages are JSON, as text")
			return
		}
		if !s.handle(s.buf) {
			return
		}
		if cap(s.buf) > maxKept {
			s.buf = nil
		}
		s.spend()
	}
}

// spend takes a message, a ping or a pong from what the client may send, and
// waits where nothing is left. Only the goroutine that reads calls it.
func (s *session) spend() {
	if wait := s.rate.take(time.Now()); wait > 0 {
		s.hub.metrics.throttled.Inc()
		s.pause(wait)
		s.wire.hear() // its silence is ours
	}
}

// pause stops reading for a while, so that the client has to wait as well.
func (s *session) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.hub.stop:
	}
}

// broken ends a connection that cannot be read from any more.
func (s *session) broken(err error) {
	switch {
	case errors.Is(err, errFragments):
		s.end(websocket.StatusPolicyViolation, droppedInvalid, "a message has too many fragments")
	case errors.Is(err, websocket.ErrMessageTooBig), s.wire.rude.Load():
		s.hub.metrics.dropped[overWebSocket][droppedInvalid].Inc() // the library has said so
	case s.wire.failure() != nil:
		s.hub.failed(overWebSocket, s.wire.failure())
	case websocket.CloseStatus(err) == -1 && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !isNetwork(err):
		s.end(websocket.StatusProtocolError, droppedInvalid, "this is no frame of a client (RFC 6455, section 5)")
	}
}

// isNetwork reports whether the connection failed rather than who is at its
// other end.
func isNetwork(err error) bool {
	_, is := errors.AsType[net.Error](err)
	return is || errors.Is(err, io.ErrUnexpectedEOF)
}

// readAll appends the rest of a reader.
func readAll(b []byte, r io.Reader) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// headerHas reports whether a header lists a word.
func headerHas(values []string, word string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), word) {
				return true
			}
		}
	}
	return false
}

// end says why and closes, once. It does not wait for the client's goodbye
// longer than the library does.
func (s *session) end(code websocket.StatusCode, reason, text string) {
	s.closing.Do(func() {
		s.hub.metrics.dropped[overWebSocket][reason].Inc()
		_ = s.conn.Close(code, text)
	})
}

// watch sends what happens until the connection ends.
func (s *session) watch(ctx context.Context) {
	var pinged atomic.Bool
	turn := s.hub.takeTurn()
	for {
		wake := *turn.Load() // before Ended is asked, so that no change is missed
		if p := s.principal.Load(); p != nil && s.hub.o.Guard.Ended(p) != nil {
			s.end(websocket.StatusPolicyViolation, droppedRevoked, "the credential is not good any more")
			return
		}
		s.mu.Lock()
		b := s.first
		s.first = nil
		if s.sub != nil && len(b) == 0 {
			b = s.sub.next()
		}
		if notices := s.adminNotices(); len(notices) > 0 {
			b = append(notices, b...)
		}
		s.mu.Unlock()
		if len(b) > 0 {
			if err := s.wire.send(b); err != nil {
				_ = s.conn.CloseNow()
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.hub.stop:
			_ = s.wire.send(bye().ws)
			s.end(websocket.StatusGoingAway, droppedStopped, "the service stops; connect again")
			return
		case <-wake:
		}
		if s.wire.silent() > s.hub.o.Timing.Heartbeat && pinged.CompareAndSwap(false, true) {
			go func() {
				defer pinged.Store(false)
				s.ping(ctx)
			}()
		}
	}
}

// ping asks whether the peer is there, and ends the connection if it is not.
func (s *session) ping(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.hub.o.Timing.Pong)
	defer cancel()
	if err := s.conn.Ping(ctx); err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		s.closing.Do(func() {
			s.hub.metrics.dropped[overWebSocket][droppedSilent].Inc()
			_ = s.conn.CloseNow()
		})
	}
}

// adminNotices returns what the operator wants of the heads that were registered
// here, if that has changed; s.mu must be held.
func (s *session) adminNotices() (b []byte) {
	if len(s.heads) == 0 {
		return nil
	}
	s.told, _ = s.hub.rings.eventsAfter(s.told, func(f *frame) {
		if state, here := s.heads[f.head]; here && f.admin != "" && f.admin != state {
			s.heads[f.head] = f.admin
			notice := frame{kind: api.MessageAdmin}
			notice.encode(api.MessageAdmin, "", api.AdminNotice{Head: f.head, AdminState: f.admin})
			b = append(b, notice.ws...)
		}
	})
	return b
}

// failed counts a stream that did not take what was sent; those that left are no
// fault of anybody's.
func (h *Hub) failed(transport string, err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		h.metrics.dropped[transport][droppedSlow].Inc()
	}
}

// allowance is a bucket of a second's worth of messages.
type allowance struct {
	perSecond float64
	left      float64
	at        time.Time
}

// take takes one, and returns how long to wait when there is none.
func (a *allowance) take(now time.Time) time.Duration {
	if a.at.IsZero() {
		a.left = a.perSecond
	} else {
		a.left = min(a.perSecond, a.left+now.Sub(a.at).Seconds()*a.perSecond)
	}
	a.at = now
	if a.left--; a.left >= 0 {
		return 0
	}
	return time.Duration(-a.left / a.perSecond * float64(time.Second))
}

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"headway/api"
)

const socketPath = "/api/v1/ws"

// Bounds of a Socket.
const (
	maxSocketMessage = 4 << 20
	maxRefusal       = 4 << 10          // of an answer that is no upgrade
	socketNotices    = 256              // that wait to be taken
	socketGoodbye    = 2 * time.Second  // to write what is under way when it is closed
	maxSocketQuiet   = 45 * time.Second // without a message before the router is asked whether it is there
)

// ErrSocketClosed reports that this side closed the Socket.
var ErrSocketClosed = errors.New("the socket is closed")

// Socket is one WebSocket. Any number of calls may run concurrently, and none
// waits for another. Decisions cost the router a fraction of those over HTTP.
// It is safe for concurrent use.
//
// A Socket neither retries nor reconnects. Once Done is closed every call fails
// with the cause, ErrUnavailable unless the router sent another. Then open a
// new one, and subscribe with LastEventID.
type Socket struct {
	client  *Client
	conn    *websocket.Conn
	ctx     context.Context // ends with the connection
	cancel  context.CancelCauseFunc
	notices chan Notice
	done    chan struct{}
	asking  sync.Mutex // held while the router is asked, and for good once read has ended

	mu      sync.Mutex
	last    uint64 // id of the last request
	pending map[uint64]chan<- api.Envelope
}

// OpenSocket connects. ctx bounds only that. The caller closes the Socket.
func (c *Client) OpenSocket(ctx context.Context) (*Socket, error) {
	const what = "open a socket"
	header := http.Header{"User-Agent": {c.agent}}
	if err := c.authorize(ctx, header); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, resp, err := websocket.Dial(limited, c.base.String()+socketPath, &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: header}) //nolint:bodyclose // the library closes it
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			text, _ := readAll(resp.Body, maxRefusal)
			return nil, fmt.Errorf("%s: %w", what, newError(resp, text))
		}
		return nil, fmt.Errorf("%s: %w", what, noAnswer(ctx, err))
	}
	conn.SetReadLimit(maxSocketMessage)
	s := &Socket{
		client: c, conn: conn, notices: make(chan Notice, socketNotices), done: make(chan struct{}),
		pending: map[uint64]chan<- api.Envelope{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	go s.read() //nolint:contextcheck,gosec // a read ends with its connection
	return s, nil
}

// Notices receives the events of the subscription and the notices for heads
// registered here. It is closed with the connection. While 256 are unread,
// answers wait as well.
func (s *Socket) Notices() <-chan Notice { return s.notices }

// Done is closed when the connection has ended.
func (s *Socket) Done() <-chan struct{} { return s.done }

// Err is the cause of the end; nil before.
func (s *Socket) Err() error { return context.Cause(s.ctx) }

// Close ends the connection and pending calls with ErrSocketClosed, and waits.
// Later calls do nothing.
func (s *Socket) Close() {
	if s.ctx.Err() == nil {
		s.cancel(ErrSocketClosed)
		_ = s.conn.Close(websocket.StatusNormalClosure, "")
	}
	<-s.done
}

func (s *Socket) read() {
	defer close(s.done)
	defer close(s.notices)
	defer func() { _ = s.conn.CloseNow() }()
	quiet := time.AfterFunc(maxSocketQuiet, s.ask)
	defer s.asking.Lock() // no ping outlives the connection
	defer quiet.Stop()
	for {
		_, raw, err := s.conn.Read(context.Background())
		if err != nil {
			s.cancel(endOf(err))
			return
		}
		quiet.Reset(maxSocketQuiet)
		var m api.Envelope
		err = decode(raw, &m)
		switch {
		case err != nil:
		case m.Type == api.MessageAnswer, m.Type == api.MessageError:
			s.answered(m)
		default:
			err = s.notified(m)
		}
		if err != nil {
			s.cancel(err)
			return
		}
	}
}

// ask closes a connection whose peer is gone.
func (s *Socket) ask() {
	if !s.asking.TryLock() {
		return
	}
	defer s.asking.Unlock()
	ctx, cancel := context.WithTimeout(s.ctx, s.client.timeout)
	defer cancel()
	if err := s.conn.Ping(ctx); err != nil {
		s.cancel(fmt.Errorf("%w: no answer to a ping: %w", ErrUnavailable, err))
		_ = s.conn.CloseNow()
	}
}

// endOf maps the end of a connection to an error.
func endOf(err error) error {
	said, ok := errors.AsType[websocket.CloseError](err)
	switch {
	case !ok:
		return fmt.Errorf("%w: the connection broke: %w", ErrUnavailable, err)
	case said.Code == websocket.StatusPolicyViolation:
		return fmt.Errorf("%w: %s", ErrUnauthorized, said.Reason)
	case said.Code == websocket.StatusMessageTooBig:
		return fmt.Errorf("%w: %s", ErrTooLarge, said.Reason)
	}
	return fmt.Errorf("%w: the router closed the connection: %s", ErrUnavailable, said.Reason)
}

// answered delivers an answer to its call.
func (s *Socket) answered(m api.Envelope) {
	id, err := strconv.ParseUint(string(m.ID), 10, 64)
	if err != nil {
		return // we ask for none without an id
	}
	s.mu.Lock()
	waiting := s.pending[id]
	delete(s.pending, id)
	s.mu.Unlock()
	if waiting != nil {
		waiting <- m
	}
}

// notified queues a notice. Unknown ones are ignored.
func (s *Socket) notified(m api.Envelope) error {
	var n Notice
	var known bool
	var err error
	switch m.Type {
	case api.MessageAdmin:
		n.Admin, known = new(api.AdminNotice), true
		err = decode(m.Data, n.Admin)
	case api.MessageSnapshot, api.MessageLost, api.MessageEvent:
		n, known, err = noticeOf(m.Type, m.Data)
	}
	if err != nil || !known {
		return err
	}
	select {
	case s.notices <- n:
	case <-s.ctx.Done():
	}
	return nil
}

func (s *Socket) call(ctx context.Context, what, kind string, in, out any) error {
	err := s.exchange(ctx, kind, in, out)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (s *Socket) exchange(ctx context.Context, kind string, in, out any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	answer := make(chan api.Envelope, 1)
	s.mu.Lock()
	s.last++
	id := s.last
	s.pending[id] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.pending, id)
		s.mu.Unlock()
	}()
	// The router parses this order without white space fastest.
	raw := append(strconv.AppendUint([]byte(`{"id":`), id, 10), `,"type":"`+kind+`","data":`...)
	raw = append(append(raw, data...), '}')
	if err := s.write(ctx, raw); err != nil {
		return err
	}
	limit := time.NewTimer(s.client.timeout)
	defer limit.Stop()
	select {
	case m := <-answer:
		return readAnswer(m, out)
	case <-s.ctx.Done():
		return s.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return fmt.Errorf("%w: no answer within %s", ErrUnavailable, s.client.timeout)
	}
}

// write sends a message. An interrupted write would break the connection, so
// ctx is checked before it only.
func (s *Socket) write(ctx context.Context, raw []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.ctx.Err() != nil {
		return s.Err()
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.client.timeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, func() { time.AfterFunc(socketGoodbye, cancel) })() //nolint:contextcheck // the connection's
	if err := s.conn.Write(limited, websocket.MessageText, raw); err != nil {
		s.cancel(fmt.Errorf("%w: %w", ErrUnavailable, err))
		return s.Err()
	}
	return nil
}

func readAnswer(m api.Envelope, out any) error {
	if m.Type == api.MessageError {
		var p api.Problem
		if err := decode(m.Data, &p); err != nil {
			return err
		}
		return &Error{Problem: p, Status: p.Status}
	}
	if out == nil {
		return nil
	}
	return decode(m.Data, out)
}

// Decide is [Client.Decide] on this connection. The decision's own methods use
// HTTP; use ReportFirstToken and ReportOutcome of the Socket.
func (s *Socket) Decide(ctx context.Context, r api.DecisionRequest) (*Decision, error) {
	d := &Decision{client: s.client}
	return d.checked(s.call(ctx, "decide", api.MessageDecide, &r, &d.Decision))
}

// ReportFirstToken is [Client.ReportFirstToken] on this connection.
func (s *Socket) ReportFirstToken(ctx context.Context, id string) error {
	return s.call(ctx, "report the first token of decision "+id, api.MessageProgress, struct {
		DecisionID string `json:"decision_id"`
		api.Progress
	}{id, api.Progress{Event: "first_token"}}, nil)
}

// ReportOutcome is [Client.ReportOutcome] on this connection.
func (s *Socket) ReportOutcome(ctx context.Context, id string, o api.Outcome) error {
	return s.call(ctx, "report the outcome of decision "+id, api.MessageOutcome, struct {
		DecisionID string `json:"decision_id"`
		api.Outcome
	}{id, o}, nil)
}

// Register is [Client.Register] on this connection, which then receives the
// operator's changes of the head as Notices. The lease outlives the connection
// until it expires.
func (s *Socket) Register(ctx context.Context, r api.Registration) (api.RegistrationAnswer, error) {
	var out api.RegistrationAnswer
	err := s.call(ctx, "register head "+r.ID, api.MessageRegister, &r, &out)
	return out, err
}

// Report is [Client.Report] on this connection.
func (s *Socket) Report(ctx context.Context, id string, r api.StatusReport) (api.StatusAnswer, error) {
	var out api.StatusAnswer
	err := s.call(ctx, "report head "+id, api.MessageStatus, struct {
		ID string `json:"id"`
		api.StatusReport
	}{id, r}, &out)
	return out, err
}

// Deregister is [Client.DeleteHead] on this connection.
func (s *Socket) Deregister(ctx context.Context, id string) error {
	return s.call(ctx, "deregister head "+id, api.MessageDeregister, struct {
		ID string `json:"id"`
	}{id}, nil)
}

// Subscribe replaces the subscription of Notices. First come snapshots of the
// fleet or, with LastEventID, the events since then.
func (s *Socket) Subscribe(ctx context.Context, want api.Subscription) error {
	return s.call(ctx, "subscribe", api.MessageSubscribe, &want, nil)
}

// Unsubscribe ends the subscription.
func (s *Socket) Unsubscribe(ctx context.Context) error {
	return s.call(ctx, "unsubscribe", api.MessageUnsubscribe, struct{}{}, nil)
}

package live

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/strict"
)

// request is one kind of message that clients send.
type request struct {
	needs  access.Permission // Open: no credential
	action string            // in the audit trail, "" if it is not sensitive
	serve  func(s *session, data []byte) ([]byte, error)
}

// requests are the kinds, by the type of the envelope.
var requests map[string]*request

func init() { //nolint:gochecknoinits // the table and what it calls name each other
	requests = map[string]*request{
		api.MessageAuth:        {needs: access.Open, serve: (*session).auth},
		api.MessagePing:        {needs: access.Open, serve: func(*session, []byte) ([]byte, error) { return nil, nil }},
		api.MessageSubscribe:   {needs: access.Read, serve: (*session).subscribe},
		api.MessageUnsubscribe: {needs: access.Read, serve: (*session).unsubscribe},
		api.MessageRegister:    {needs: access.BeHead, action: "head.register", serve: (*session).register},
		api.MessageDeregister:  {needs: access.BeHead, action: "head.deregister", serve: (*session).deregister},
		api.MessageStatus:      {needs: access.BeHead, serve: (*session).status},
		api.MessageDecide:      {needs: access.Decide, serve: (*session).decide},
		api.MessageProgress: {needs: access.Decide, serve: func(s *session, data []byte) ([]byte, error) {
			return nil, s.hub.o.Verbs.Progress("", data)
		}},
		api.MessageOutcome: {needs: access.Decide, serve: func(s *session, data []byte) ([]byte, error) {
			return nil, s.hub.o.Verbs.Outcome("", data)
		}},
	}
}

// message is an envelope that was read. id and data are part of what was read.
type message struct {
	id   []byte
	kind string
	data []byte
}

// maxID is the longest id of a message, in bytes.
const maxID = 128

// readMessage reads an envelope strictly.
func readMessage(b []byte) (m message, err error) {
	if !utf8.Valid(b) {
		return m, errNotUTF8
	}
	faults, err := strict.ReadObject(b, apiv1.MaxFaults, func(r *strict.Reader, name string) bool {
		switch kind := r.Kind(); name {
		case "id":
			id, _ := r.Raw()
			switch {
			case kind == strict.Null:
			case (kind == strict.String || kind == strict.Number) && len(id) <= maxID:
				m.id = id
			default:
				r.Fault("want a string or a number of at most %d bytes", maxID)
			}
		case "type":
			if r.Text(&m.kind) && requests[m.kind] == nil {
				r.Fault("is not a known type of message; known are %s", knownRequests)
			}
		case "data":
			if data, _ := r.Raw(); kind != strict.Null {
				m.data = data
			}
		default:
			return false
		}
		return true
	})
	if err == nil && m.kind == "" {
		faults = strict.Merge(faults, []strict.Fault{{Pointer: "/type", Reason: "is not a known type of message; known are " + knownRequests}})
	}
	return m, cmp.Or(err, strict.Invalid(faults))
}

const knownRequests = "auth, subscribe, unsubscribe, register, status, deregister, decide, progress, outcome and ping"

// errNotUTF8 ends a connection.
var errNotUTF8 = errors.New("the message is not UTF-8")

// handle answers a message, and reports whether the connection goes on.
func (s *session) handle(b []byte) bool {
	m, err := readMessage(b)
	if errors.Is(err, errNotUTF8) {
		s.end(websocket.StatusInvalidFramePayloadData, endInvalid, err.Error())
		return false
	}
	if err == nil {
		var data []byte
		if data, err = s.serve(requests[m.kind], m.data); err == nil {
			s.hub.metrics.messages[m.kind][true].Inc()
			s.answer = envelope(s.answer[:0], m.id, api.MessageAnswer, bytes.TrimSuffix(data, newline))
			return s.answered()
		}
	}
	kind := m.kind
	if requests[kind] == nil {
		kind = ""
	}
	s.refuse(kind, m.id, err)
	return s.answered()
}

// refuse answers a request that failed. Attempts that are refused for their caller
// are recorded in the audit trail.
func (s *session) refuse(kind string, id []byte, err error) {
	s.hub.metrics.messages[kind][false].Inc()
	problem := apiv1.ProblemOf(err)
	switch {
	case problem.Code == api.CodeInternal:
		s.hub.o.Log.Error("request over WebSocket failed", "type", kind, "error", err)
	case problem.RefusesCaller():
		action := cmp.Or(requests[kind].action, "access")
		s.hub.o.Audit.Note(s.identity(s.principal.Load()).Denied(action, "GET /api/v1/ws", problem.Detail))
	}
	s.answer = envelope(s.answer[:0], id, api.MessageError, apiv1.Encode(problem.Answer()))
}

var newline = []byte("\n")

// answered queues the answer, and reports whether the connection goes on.
func (s *session) answered() bool {
	err := s.wire.answer(s.answer)
	if cap(s.answer)+cap(s.data) > maxKept {
		s.answer, s.data = nil, nil
	}
	if s.after != nil {
		s.after()
		s.after = nil
	}
	return err == nil
}

// serve carries out a request that the client has the permission for.
func (s *session) serve(q *request, data []byte) (answer []byte, err error) {
	defer func() {
		if r := recover(); r != nil { // a bug must not end the process
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	if err := s.may(q); err != nil {
		return nil, err
	}
	if len(data) == 0 {
		data = []byte("{}")
	}
	return q.serve(s, data)
}

// may returns an error if the client has no permission for a request, has lost
// it, or exceeds its rate.
func (s *session) may(q *request) error {
	p := s.principal.Load()
	switch {
	case q.needs == access.Open:
		return nil
	case p == nil:
		return access.ErrNoCredential
	case s.hub.o.Guard.Ended(p) != nil:
		return access.ErrRevoked
	}
	if err := p.Require(q.needs); err != nil {
		return err
	}
	return s.hub.o.Guard.Spend(p)
}

func (s *session) decide(data []byte) (answer []byte, err error) {
	s.data, err = s.hub.o.Verbs.Decide(s.principal.Load(), data, s.data[:0])
	return s.data, err
}

func (s *session) status(data []byte) ([]byte, error) {
	lease, err := s.hub.o.Verbs.Report(s.principal.Load(), "", data)
	if err != nil {
		return nil, err
	}
	return json.Marshal(lease)
}

// maxHeadsPerSession bounds the heads of a session that admin states are sent of.
const maxHeadsPerSession = 1000

func (s *session) register(data []byte) ([]byte, error) {
	newest := s.hub.log.newest()
	answer, _, err := s.hub.o.Verbs.Register(s.ctx, s.principal.Load(), data)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if len(s.heads) == 0 {
		s.heads, s.noticed = map[string]string{}, newest
	}
	if len(s.heads) < maxHeadsPerSession {
		s.heads[answer.Head.ID] = answer.Head.AdminState
	}
	s.mu.Unlock()
	return json.Marshal(answer)
}

// text reads data that has one field, a string.
func text(data []byte, field string) (text string, err error) {
	err = within(strict.ReadObject(data, apiv1.MaxFaults, func(r *strict.Reader, name string) bool {
		if name != field {
			return false
		}
		r.Text(&text)
		return true
	}))
	return text, err
}

// within returns the faults of data with pointers into its message. The message
// is JSON, so that an error means that data is not an object.
func within(faults []strict.Fault, err error) error {
	if err != nil {
		faults = []strict.Fault{{Reason: "want an object"}}
	}
	for i := range faults {
		faults[i].Pointer = "/data" + faults[i].Pointer
	}
	return strict.Invalid(faults)
}

func (s *session) deregister(data []byte) ([]byte, error) {
	id, err := text(data, "id")
	if err != nil {
		return nil, err
	}
	if err := s.hub.o.Verbs.Deregister(s.ctx, s.principal.Load(), id); err != nil {
		return nil, err
	}
	s.mu.Lock()
	delete(s.heads, id)
	s.mu.Unlock()
	return nil, nil
}

func (s *session) auth(data []byte) ([]byte, error) {
	token, err := text(data, "token")
	if err != nil {
		return nil, err
	}
	p, err := s.hub.o.Guard.AuthenticateToken(context.WithoutCancel(s.ctx), token, s.peer.Address)
	if err != nil {
		s.after = func() { // each guess costs a connection, which are limited by address
			s.end(websocket.StatusPolicyViolation, endInvalid, "the credential is not valid")
		}
		return nil, err
	}
	s.authenticated(p)
	return json.Marshal(struct {
		Type string `json:"type"`
		ID   string `json:"id,omitempty"`
		Role string `json:"role"`
	}{p.Type, p.ID, string(p.Role)})
}

// maxTypes bounds the types and patterns of a subscription.
const maxTypes = 100

func (s *session) subscribe(data []byte) ([]byte, error) {
	var want api.Subscription
	if err := within(strict.ReadObject(data, apiv1.MaxFaults, func(r *strict.Reader, name string) bool {
		switch name {
		case "types":
			r.Texts(maxTypes, &want.Types)
		case "head":
			r.Text(&want.Head)
		case "model_type":
			r.Text(&want.ModelType)
		case "region":
			r.Text(&want.Region)
		case "last_event_id":
			r.Text(&want.LastEventID)
		default:
			return false
		}
		return true
	})); err != nil {
		return nil, err
	}
	f, err := newFilter(want, "/data/")
	if err != nil {
		return nil, err
	}
	s.after = func() {
		sub, first := s.hub.subscribe(overWebSocket, want.LastEventID, f)
		s.mu.Lock()
		if s.sub != nil {
			s.sub.close()
		}
		s.sub, s.first = sub, first
		s.mu.Unlock()
		s.hub.notify()
	}
	return nil, nil
}

func (s *session) unsubscribe([]byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sub != nil {
		s.sub.close()
	}
	s.sub, s.first = nil, nil
	return nil, nil
}

package natsmq

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/strict"
)

// store puts a command into the embedded server's stream and acknowledges it.
// If the stream took the subject itself, it would acknowledge to any reply
// subject, also where the sender may not publish.
func (q *Queue) store(m *nats.Msg) {
	p, command, err := q.accept(m)
	if err != nil {
		q.notStored(m, p, err, refusalOf(err))
		return
	}
	q.storing <- struct{}{}
	q.working.Go(func() {
		defer func() { <-q.storing }()
		ctx, cancel := context.WithTimeout(context.Background(), changeTimeout)
		defer cancel()
		done, err := q.js.PublishMsg(ctx, command)
		if err != nil || done.Duplicate {
			q.room.give(charge(command.Subject, command.Header, command.Data))
		}
		if err == nil {
			q.acknowledge(m, p, &server.JSPubAckResponse{PubAck: &server.PubAck{Stream: done.Stream, Sequence: done.Sequence, Duplicate: done.Duplicate}}, nil)
			return
		}
		q.noticeFailure(err)
		no := refusalOf(unavailable(err))
		if e, ok := errors.AsType[*jetstream.APIError](err); ok {
			no = &server.ApiError{Code: e.Code, ErrCode: uint16(e.ErrorCode), Description: e.Description}
		}
		q.notStored(m, p, unavailable(err), no)
	})
}

// accept checks a command, and takes room for its stored form.
func (q *Queue) accept(m *nats.Msg) (p *access.Principal, command *nats.Msg, err error) {
	defer func() { q.recovered(recover(), &err) }()
	if p, err = q.admit(m.Subject, m.Data); err == nil && q.broken() {
		err = errBroken
	}
	if err == nil {
		command, err = q.command(m, p)
	}
	if err == nil {
		err = q.room.take(charge(command.Subject, command.Header, command.Data))
	}
	return p, command, err
}

// command is the stored form of a message: its body, an id, and the sender.
// Other headers are dropped, since the stream obeys some.
func (q *Queue) command(m *nats.Msg, p *access.Principal) (*nats.Msg, error) {
	command := nats.NewMsg(q.inStream(m.Subject))
	command.Data = m.Data
	if stream := m.Header.Get(nats.ExpectedStreamHdr); stream != "" {
		command.Header.Set(nats.ExpectedStreamHdr, stream)
	}
	if given := m.Header.Get(nats.MsgIdHdr); given != "" {
		command.Header.Set(nats.MsgIdHdr, commandID(m.Subject, given, m.Data))
		command.Header.Set(headerMessageID, strict.Clip(given))
	}
	if senderOf(m.Subject) == "" {
		return command, nil
	}
	who, err := senderHeader(p)
	if err == nil && len(who) > maxSender {
		err = &apiv1.Problem{Code: api.CodeTooLarge, Detail: "The credential names too many heads and regions for a command; make the call itself, or use a credential with fewer."}
	}
	command.Header.Set(headerSender, who)
	return command, err
}

// notStored ends the only delivery of a command that was not stored.
func (q *Queue) notStored(m *nats.Msg, p *access.Principal, err error, no *server.ApiError) {
	q.o.Messages.add(queueOf(m.Subject), received, 1)
	q.counted(m.Subject, p, err)
	q.acknowledge(m, p, &server.JSPubAckResponse{Error: no}, err)
}

func refusalOf(err error) *server.ApiError {
	problem := apiv1.ProblemOf(err)
	return &server.ApiError{Code: problem.Status(), Description: problem.Detail}
}

// acknowledge answers in the form of a stream, for its clients.
func (q *Queue) acknowledge(m *nats.Msg, p *access.Principal, a *server.JSPubAckResponse, err error) {
	if body, e := json.Marshal(a); e == nil {
		q.answer(m, p, body, err)
	}
}

// inStream is a command's subject in the stream. An external stream takes
// commands itself.
func (q *Queue) inStream(subject string) string {
	if q.server == nil || strings.HasPrefix(subject, stored) {
		return subject
	}
	return stored + tail(subject)
}

// commandOf is the original subject of a stored command, "" if it is none.
func commandOf(subject string) string {
	if strings.ContainsAny(senderOf(subject), ".*> \t\r\n") {
		return ""
	}
	switch queue := queueOf(subject); {
	case queue == queueOutcome && !strings.HasPrefix(subject, commands):
		return prefix + tail(subject)
	case queue == queueRegister && !strings.HasPrefix(subject, prefix+queueRegister):
		return commands + tail(subject)
	}
	return ""
}

// errCut refuses to retry a letter with a truncated command.
var errCut = &apiv1.Problem{
	Code: api.CodeInvalid, Detail: "The letter has only the beginning of a command that could never be applied, so it cannot be put back; see its reason, send the command again as it should be, and purge the letter.",
}

// errNotACommand refuses to retry a letter that is no command.
var errNotACommand = &apiv1.Problem{
	Code: api.CodeInvalid, Detail: "The letter is of no command that this service has, so it cannot be put back; look at it with headway queue peek, and purge it.",
}

package natsmq

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
)

// pendingBytes bounds the pending messages of a subscription, beside their
// number.
const pendingBytes = 64 << 20

// changeTimeout bounds the wait of a change for the disk.
const changeTimeout = 10 * time.Second

// semantic is the form of a version in the service's description.
var semantic = regexp.MustCompile(`^v?((0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*))`)

// serve subscribes to core subjects. Decisions and registrations are a micro
// service, for discovery; status reports need no answer. Instances share the
// work.
func (q *Queue) serve() (err error) {
	version := "0.0.0"
	if m := semantic.FindStringSubmatch(q.o.Version); m != nil {
		version = m[1]
	}
	q.service, err = micro.AddService(q.voice, micro.Config{
		Name: "headway", Version: version, QueueGroup: "headway",
		Description: "decides which head takes a request, and registers heads",
		Metadata:    map[string]string{"version": q.o.Version, "instance": q.o.Instance},
	})
	if err != nil {
		return err
	}
	for _, e := range []struct {
		name, named, queue, request, answer string
		handle                              micro.HandlerFunc
	}{
		{"decisions-request", "decisions-request-by-id", queueRequest, "DecisionRequest", "Decision", q.decide},
		{"heads-register", "heads-register-by-owner", queueRegister, "Registration", "RegistrationAnswer", q.register},
	} {
		for name, subject := range map[string]string{e.name: prefix + e.queue, e.named: prefix + e.queue + ".*"} {
			err := q.service.AddEndpoint(name, e.handle, micro.WithEndpointSubject(subject),
				micro.WithEndpointMetadata(map[string]string{"request": e.request, "answer": e.answer}), micro.WithEndpointPendingLimits(q.o.Pending, pendingBytes))
			if err != nil {
				return err
			}
		}
	}
	take := map[string]nats.MsgHandler{prefix + queueStatus: q.report}
	if q.server != nil {
		take[prefix+queueOutcome], take[commands+queueRegister] = q.store, q.store
	}
	for subject, handle := range take {
		for _, subject := range []string{subject, subject + ".*"} {
			sub, err := q.voice.QueueSubscribe(subject, "headway", handle)
			if err == nil {
				err = sub.SetPendingLimits(q.o.Pending, pendingBytes)
			}
			if err != nil {
				return err
			}
			q.lost.watch(sub)
		}
	}
	if q.server == nil {
		return nil // it may be away
	}
	return q.voice.Flush() // callers that come now find the service
}

// trusted is the sender on a subject without an id if none is required: on an
// open service, or an external server with accounts of its own.
var trusted = &access.Principal{Type: "system", ID: "nats", Role: access.RoleOperator}

func (q *Queue) sender(subject string) (*access.Principal, error) {
	id := senderOf(subject)
	if id == "" {
		if p := q.o.Guard.Unnamed(); p != nil && q.auth != nil {
			return p, nil
		}
		return trusted, nil
	}
	if q.auth != nil {
		if p := q.auth.named(id); p != nil {
			return p, q.o.Guard.Ended(p)
		}
	}
	return q.holder(id)
}

// holder is the principal for an id alone: the holder of a key or, while no
// credential is required, the anonymous caller. Other credentials need a
// connection.
func (q *Queue) holder(id string) (*access.Principal, error) {
	if p := q.o.Guard.Known(id); p != nil && p.Type == "key" {
		return p, nil
	}
	if p := q.o.Guard.Anonymous(); p != nil && id == p.Type {
		return p, nil
	}
	return nil, access.ErrUnknown
}

// needs is the permission for each queue.
var needs = map[string]access.Permission{
	queueRegister: access.BeHead, queueStatus: access.BeHead, queueRequest: access.Decide, queueOutcome: access.Decide,
}

// admit identifies the sender of a message and checks its permission, its rate
// limit and the length of the body.
func (q *Queue) admit(subject string, body []byte) (*access.Principal, error) {
	p, err := q.sender(subject)
	if err == nil {
		err = cmp.Or(q.o.Guard.Spend(p), p.Require(needs[queueOf(subject)]), tooLong(body))
	}
	return p, err
}

// call carries out a verb for the sender of a message, and counts how that
// ended.
func (q *Queue) call(subject string, body []byte, verb func(*access.Principal) ([]byte, error)) (p *access.Principal, answer []byte, err error) {
	q.o.Messages.add(queueOf(subject), received, 1)
	defer func() { q.counted(subject, p, err) }()
	defer func() { q.recovered(recover(), &err) }()
	if p, err = q.admit(subject, body); err == nil {
		answer, err = verb(p)
	}
	return p, answer, err
}

// recovered turns a panic into an error, so that one message cannot end the
// process.
func (q *Queue) recovered(cause any, err *error) {
	if cause != nil {
		*err = fmt.Errorf("panic: %v", cause)
		q.o.Log.Error("a message met a bug", "error", *err, "stack", string(debug.Stack()))
	}
}

// denied audits a refused attempt, except for rate limits.
func (q *Queue) denied(subject string, p *access.Principal, err error) {
	problem := apiv1.ProblemOf(err)
	if !problem.RefusesCaller() {
		return
	}
	queue := queueOf(subject)
	e := refused(prefix+queue, problem)
	if queue == queueRegister {
		e.Action = "head.register"
	}
	if p != nil {
		e.Actor.Type, e.Actor.ID = p.Type, p.ID
	}
	q.o.Audit.Note(e)
}

// refused is the audit record of an attempt of an unknown sender.
func refused(what string, problem *apiv1.Problem) audit.Entry {
	return audit.Entry{
		Category: audit.Auth, Action: "access", Outcome: audit.Denied, Reason: problem.Detail,
		Actor: audit.Actor{Type: "anonymous", Via: "nats"}, Target: audit.Target{Type: "route", ID: "NATS " + what},
	}
}

func (q *Queue) decide(r micro.Request) {
	p, answer, err := q.call(r.Subject(), r.Data(), func(p *access.Principal) ([]byte, error) { return q.o.Verbs.Decide(p, r.Data(), nil) })
	q.reply(r, p, answer, err)
}

// register answers a registration. It waits for the disk, together with others.
func (q *Queue) register(r micro.Request) {
	m := &nats.Msg{Subject: r.Subject(), Reply: r.Reply(), Data: r.Data()}
	q.workers <- struct{}{}
	q.working.Go(func() {
		defer func() { <-q.workers }()
		p, answer, err := q.call(m.Subject, m.Data, func(p *access.Principal) ([]byte, error) { return q.registerHead(p, m.Data) })
		q.answer(m, p, answer, err) // not by r, with which the micro service has finished
	})
}

func (q *Queue) registerHead(p *access.Principal, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(audit.WithIdentity(context.Background(), &audit.Identity{
		Actor: audit.Actor{Type: p.Type, ID: p.ID, Via: "nats"},
	}), changeTimeout)
	defer cancel()
	answer, _, err := q.o.Verbs.Register(ctx, p, body)
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// report handles a status report, with an answer if one is requested.
func (q *Queue) report(m *nats.Msg) {
	p, answer, err := q.call(m.Subject, m.Data, func(p *access.Principal) ([]byte, error) {
		lease, err := q.o.Verbs.Report(p, "", m.Data)
		if err != nil || m.Reply == "" {
			return nil, err
		}
		return json.Marshal(lease)
	})
	q.answer(m, p, answer, err)
}

// answer answers a message, with a problem if there is an error.
func (q *Queue) answer(m *nats.Msg, p *access.Principal, body []byte, err error) {
	if !q.mayAnswer(p, m.Subject, m.Reply) {
		return
	}
	answer := nats.NewMsg(m.Reply)
	answer.Data = body
	if err != nil {
		problem := apiv1.ProblemOf(err)
		if body == nil {
			answer.Data = apiv1.Encode(problem.Answer())
		}
		answer.Header.Set(micro.ErrorCodeHeader, strconv.Itoa(problem.Status()))
		answer.Header.Set(micro.ErrorHeader, problem.Code)
	}
	_ = q.voice.PublishMsg(answer) // it fails only while the server is away, and so is who asked
}

// counted counts how a delivery ended, and audits a refusal.
func (q *Queue) counted(subject string, p *access.Principal, err error) {
	q.denied(subject, p, err)
	if err != nil && apiv1.ProblemOf(err).Code == api.CodeInternal {
		q.o.Log.Error("message failed", "subject", subject, "error", err)
	}
	status := processed
	switch {
	case err == nil:
	case final(err):
		status = invalid
	default:
		status = failed
	}
	q.o.Messages.add(queueOf(subject), status, 1)
}

// final reports whether a repetition would fail again.
func final(err error) bool {
	status := apiv1.ProblemOf(err).Status()
	return status < 500 && status != 429 && status != 409
}

func (q *Queue) reply(r micro.Request, p *access.Principal, answer []byte, err error) {
	if !q.mayAnswer(p, r.Subject(), r.Reply()) {
		q.o.Verbs.Withdraw(answer)
		return
	}
	if err == nil {
		if err = r.Respond(answer); err != nil {
			q.o.Verbs.Withdraw(answer)
		}
		return
	}
	problem := apiv1.ProblemOf(err)
	_ = r.Error(strconv.Itoa(problem.Status()), problem.Code, apiv1.Encode(problem.Answer()))
}

// mayAnswer reports whether the reply subject is an inbox of the sender, so
// that we do not publish where the sender may not. With an id in the subject it
// must be that credential's inbox; otherwise one that only its owner can have
// named.
func (q *Queue) mayAnswer(p *access.Principal, subject, reply string) bool {
	whose, ok := strings.CutPrefix(reply, inbox)
	if !ok {
		return false
	}
	switch id := senderOf(subject); {
	case q.auth == nil || p != nil && p.May(access.Admin):
		return true
	case id == "":
		return q.unguessed(whose)
	default:
		return strings.HasPrefix(whose, id+".")
	}
}

// minSecret is the length of a random part of an inbox. NATS libraries use 22
// characters.
const minSecret = 20

// unguessed reports whether only the owner can have named an inbox: it names no
// known credential, or its rest is random and the credential subscribes to
// exactly that part. A subscriber of all its inboxes would get answers that it
// did not request.
func (q *Queue) unguessed(inboxOf string) bool {
	id, rest, _ := strings.Cut(inboxOf, ".")
	if q.auth.named(id) == nil {
		return true
	}
	secret, _, _ := strings.Cut(rest, ".")
	if len(secret) < minSecret {
		return false
	}
	// A subscriber where nothing was requested listens to more than that part.
	nowhere := inbox + id + "." + q.unasked + rest[len(secret):]
	return !q.server.GlobalAccount().SubscriptionInterest(nowhere) || // an administrator may listen there, too
		!q.auth.listens(q.server, id, nowhere)
}

// tooLong refuses bodies beyond the limit of the contract.
func tooLong(body []byte) error {
	if len(body) <= maxPayload {
		return nil
	}
	return &apiv1.Problem{Code: api.CodeTooLarge, Detail: fmt.Sprintf("The message has more than %d bytes.", maxPayload)}
}

package natsmq

import (
	"context"
	"fmt"
	"regexp"
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

// pendingBytes bounds what waits for us of each subject, beside the number of
// messages.
const pendingBytes = 64 << 20

// changeTimeout is how long a change may wait for the disk.
const changeTimeout = 10 * time.Second

// semantic is what a version must look like for the service's description.
var semantic = regexp.MustCompile(`^v?((0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*))`)

// serve takes calls on core subjects: deciding and registering as a micro
// service, so that it can be found, and status reports by a plain subscription,
// since they need no answer. Instances share the work.
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
		return fmt.Errorf("message queue: %w", err)
	}
	for name, e := range map[string]struct {
		subject string
		handle  micro.HandlerFunc
		about   map[string]string
	}{
		"decisions-request":       {prefix + queueRequest, q.decide, map[string]string{"request": "DecisionRequest", "answer": "Decision"}},
		"decisions-request-by-id": {prefix + queueRequest + ".*", q.decide, map[string]string{"request": "DecisionRequest", "answer": "Decision"}},
		"heads-register":          {prefix + queueRegister, q.register, map[string]string{"request": "Registration", "answer": "RegistrationAnswer"}},
		"heads-register-by-owner": {prefix + queueRegister + ".*", q.register, map[string]string{"request": "Registration", "answer": "RegistrationAnswer"}},
	} {
		err := q.service.AddEndpoint(name, e.handle, micro.WithEndpointSubject(e.subject),
			micro.WithEndpointMetadata(e.about), micro.WithEndpointPendingLimits(q.o.Pending, pendingBytes))
		if err != nil {
			return fmt.Errorf("message queue: %w", err)
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
				return fmt.Errorf("message queue: %w", err)
			}
			q.lost.watch(sub)
		}
	}
	if q.server == nil {
		return nil // it may be away
	}
	if err := q.voice.Flush(); err != nil { // callers that come now find the service
		return fmt.Errorf("message queue: %w", err)
	}
	return nil
}

// trusted is who speaks on a subject without an id where the sender need not say
// who it is: an open service, or an external server, whose accounts say who may
// publish there.
var trusted = &access.Principal{Type: "system", ID: "nats", Role: access.RoleOperator}

// sender finds out who speaks on a subject.
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

// holder is the principal that an id alone names, wherever it comes from: the
// holder of a key or, while no credential is needed, who comes without one. No
// other credential is known by its id without a connection.
func (q *Queue) holder(id string) (*access.Principal, error) {
	if p := q.o.Guard.Known(id); p != nil && p.Type == "key" {
		return p, nil
	}
	if p := q.o.Guard.Anonymous(); p != nil && id == p.Type {
		return p, nil
	}
	return nil, access.ErrUnknown
}

// admit finds out who speaks on a subject, and refuses those who send too much
// or may not do what the subject is for.
func (q *Queue) admit(subject string, needs access.Permission) (*access.Principal, error) {
	p, err := q.sender(subject)
	if err == nil {
		err = q.o.Guard.Spend(p)
	}
	if err == nil {
		err = p.Require(needs)
	}
	return p, err
}

// denied records an attempt that was refused for who made it, as over HTTP:
// those who ask too often are too many to write down.
func (q *Queue) denied(subject string, p *access.Principal, err error) {
	problem := apiv1.AccessProblem(err)
	if problem == nil || problem.Code == api.CodeRateLimited {
		return
	}
	queue := queueOf(subject)
	e := audit.Entry{
		Category: audit.Auth, Action: "access", Outcome: audit.Denied, Reason: problem.Detail,
		Actor: audit.Actor{Type: "anonymous", Via: "nats"}, Target: audit.Target{Type: "route", ID: "NATS " + prefix + queue},
	}
	if queue == queueRegister {
		e.Action = "head.register"
	}
	if p != nil {
		e.Actor.Type, e.Actor.ID = p.Type, p.ID
	}
	q.o.Note(e)
}

// decide answers a request for a decision.
func (q *Queue) decide(r micro.Request) {
	q.o.Messages.add(queueRequest, received, 1)
	body := r.Data()
	var p *access.Principal
	var answer []byte
	err := q.caught(func() (err error) {
		if p, err = q.admit(r.Subject(), access.Decide); err == nil {
			err = tooLong(body)
		}
		if err == nil {
			answer, err = q.o.Verbs.Decide(body, nil)
		}
		return err
	})
	q.counted(r.Subject(), p, err)
	q.reply(r, p, answer, err)
}

// register answers a registration. It waits for the disk, together with others.
func (q *Queue) register(r micro.Request) {
	q.o.Messages.add(queueRegister, received, 1)
	var p *access.Principal
	err := q.caught(func() (err error) {
		p, err = q.admit(r.Subject(), access.BeHead)
		return err
	})
	if err != nil {
		q.counted(r.Subject(), p, err)
		q.reply(r, p, nil, err)
		return
	}
	q.workers <- struct{}{}
	q.working.Go(func() {
		defer func() { <-q.workers }()
		var answer []byte
		err := q.caught(func() (err error) {
			answer, err = q.registerHead(p, r.Data())
			return err
		})
		q.counted(r.Subject(), p, err)
		// The service is done with the request, and looks at what Error notes in it.
		q.answer(&nats.Msg{Subject: r.Subject(), Reply: r.Reply()}, p, answer, err)
	})
}

func (q *Queue) registerHead(p *access.Principal, body []byte) ([]byte, error) {
	if err := tooLong(body); err != nil {
		return nil, err
	}
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

// report takes a status report. It needs no answer, and gets one if it asks.
func (q *Queue) report(m *nats.Msg) {
	q.o.Messages.add(queueStatus, received, 1)
	var p *access.Principal
	var lease api.StatusAnswer
	err := q.caught(func() (err error) {
		if p, err = q.admit(m.Subject, access.BeHead); err == nil {
			err = tooLong(m.Data)
		}
		if err == nil {
			lease, err = q.o.Verbs.Report(p, "", m.Data)
		}
		return err
	})
	q.counted(m.Subject, p, err)
	if m.Reply == "" {
		return
	}
	var body []byte
	if err == nil {
		body, err = json.Marshal(lease)
	}
	q.answer(m, p, body, err)
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
			answer.Data = bodyOf(problem)
		}
		answer.Header.Set(micro.ErrorCodeHeader, strconv.Itoa(problem.Status()))
		answer.Header.Set(micro.ErrorHeader, problem.Code)
	}
	_ = q.voice.PublishMsg(answer) // it fails only while the server is away, and so is who asked
}

// counted counts how a delivery ended, and records it if it was refused for who
// sent it.
func (q *Queue) counted(subject string, p *access.Principal, err error) {
	q.denied(subject, p, err)
	if err != nil && apiv1.ProblemOf(err).Code == api.CodeInternal {
		q.o.Log.Error("message failed", "subject", subject, "error", err)
	}
	queue := queueOf(subject)
	switch {
	case err == nil:
		q.o.Messages.add(queue, processed, 1)
	case final(err):
		q.o.Messages.add(queue, invalid, 1)
	default:
		q.o.Messages.add(queue, failed, 1)
	}
}

// final reports whether repeating the same message would fail again.
func final(err error) bool {
	status := apiv1.ProblemOf(err).Status()
	return status < 500 && status != 429 && status != 409
}

// reply answers a request of the micro service.
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
	_ = r.Error(strconv.Itoa(problem.Status()), problem.Code, bodyOf(problem))
}

// mayAnswer reports whether an answer is asked for, in an inbox: a caller that
// names another subject wants us to publish where it may not. Where the subject
// names a credential it must be the inbox of that one, since none but an
// administrator's may read another. Where it does not, it must be an inbox whose
// holder alone can have named it.
func (q *Queue) mayAnswer(p *access.Principal, subject, reply string) bool {
	whose, ok := strings.CutPrefix(reply, inbox)
	id := senderOf(subject)
	switch {
	case !ok:
		return false
	case q.auth == nil || p != nil && p.May(access.Admin):
		return true
	case id == "":
		return q.unguessed(whose)
	}
	return strings.HasPrefix(whose, id+".")
}

// minSecret is the length from which a part of an inbox is taken as random: the
// libraries of NATS make it of 22 characters.
const minSecret = 20

// unguessed reports whether none but the holder of an inbox can have named it:
// the inbox names no credential that is known, or what follows is random and the
// credential receives there by a subscription of that very part. One that listens
// to all of its inboxes would also receive what it has not asked for.
func (q *Queue) unguessed(inboxOf string) bool {
	id, rest, _ := strings.Cut(inboxOf, ".")
	if q.auth.named(id) == nil {
		return true
	}
	secret, _, _ := strings.Cut(rest, ".")
	if len(secret) < minSecret {
		return false
	}
	// Who listens where nothing is ever asked for listens to more than that part.
	nowhere := inbox + id + "." + q.unasked + rest[len(secret):]
	return !q.server.GlobalAccount().SubscriptionInterest(nowhere) || // an administrator may listen there, too
		!q.auth.listens(q.server, id, nowhere)
}

func bodyOf(p *apiv1.Problem) []byte {
	body, err := json.Marshal(p.Answer(), json.Deterministic(true))
	if err != nil {
		return nil
	}
	return body
}

// tooLong refuses bodies over the limit that the contract names.
func tooLong(body []byte) error {
	if len(body) <= maxPayload {
		return nil
	}
	return &apiv1.Problem{Code: api.CodeTooLarge, Detail: fmt.Sprintf("The message has more than %d bytes.", maxPayload)}
}

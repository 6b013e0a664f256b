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
	"headway/internal/audit"
	"headway/internal/calls"
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
	q.service, err = micro.AddService(q.nc, micro.Config{
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
		"heads-register":          {prefix + queueRegister, q.register, map[string]string{"request": "Registration", "answer": "RegistrationAnswer"}},
		"heads-register-by-owner": {prefix + queueRegister + ".*", q.register, map[string]string{"request": "Registration", "answer": "RegistrationAnswer"}},
	} {
		err := q.service.AddEndpoint(name, e.handle, micro.WithEndpointSubject(e.subject),
			micro.WithEndpointMetadata(e.about), micro.WithEndpointPendingLimits(q.o.Pending, pendingBytes))
		if err != nil {
			return fmt.Errorf("message queue: %w", err)
		}
	}
	for _, subject := range []string{prefix + queueStatus, prefix + queueStatus + ".*"} {
		sub, err := q.nc.QueueSubscribe(subject, "headway", q.report)
		if err == nil {
			err = sub.SetPendingLimits(q.o.Pending, pendingBytes)
		}
		if err != nil {
			return fmt.Errorf("message queue: %w", err)
		}
		q.lost.watch(sub)
	}
	return nil
}

// trusted is who speaks on a subject without an id: a server lets only those
// publish there who may speak for all.
var trusted = &access.Principal{Type: "system", ID: "nats", Role: access.RoleOperator}

// sender finds out who speaks on a subject.
func (q *Queue) sender(subject string) (*access.Principal, error) {
	id := senderOf(subject)
	if id == "" {
		return trusted, nil
	}
	if q.guests != nil {
		if p := q.guests.known(id); p != nil {
			return p, nil
		}
	}
	if p := q.o.Access.Known(id); p != nil {
		return p, nil
	}
	if p := q.o.Access.Anonymous(); p != nil && id == subjectID(p) {
		return p, nil
	}
	return nil, access.ErrUnknown
}

// decide answers a request for a decision.
func (q *Queue) decide(r micro.Request) {
	q.o.Count(queueRequest, received, 1)
	body := r.Data()
	err := tooLong(body)
	var answer []byte
	if err == nil {
		answer, err = q.o.Desk.Decide(body, nil)
	}
	q.counted(queueRequest, err)
	q.reply(r, answer, err)
}

// register answers a registration. It waits for the disk, together with others.
func (q *Queue) register(r micro.Request) {
	q.o.Count(queueRegister, received, 1)
	q.workers <- struct{}{}
	q.working.Go(func() {
		defer func() { <-q.workers }()
		answer, err := q.registerHead(r.Subject(), r.Data())
		q.counted(queueRegister, err)
		q.reply(r, answer, err)
	})
}

func (q *Queue) registerHead(subject string, body []byte) ([]byte, error) {
	if err := tooLong(body); err != nil {
		return nil, err
	}
	p, err := q.sender(subject)
	if err == nil {
		err = calls.Allow(p, access.BeHead)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(audit.WithIdentity(context.Background(), &audit.Identity{
		Actor: audit.Actor{Type: p.Type, ID: p.ID, Via: "nats"},
	}), changeTimeout)
	defer cancel()
	answer, _, err := q.o.Desk.Register(ctx, p, body)
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// report takes a status report. It needs no answer, and gets one if it asks.
func (q *Queue) report(m *nats.Msg) {
	q.o.Count(queueStatus, received, 1)
	err := tooLong(m.Data)
	var lease api.StatusAnswer
	if err == nil {
		var p *access.Principal
		if p, err = q.sender(m.Subject); err == nil {
			if err = calls.Allow(p, access.BeHead); err == nil {
				lease, err = q.o.Desk.Report(p, "", m.Data)
			}
		}
	}
	q.counted(queueStatus, err)
	if !mayAnswer(m.Reply) {
		return
	}
	answer := nats.NewMsg(m.Reply)
	if err == nil {
		answer.Data, err = json.Marshal(lease)
	}
	if err != nil {
		problem := calls.ProblemOf(err)
		answer.Data = bodyOf(problem)
		answer.Header.Set(micro.ErrorCodeHeader, strconv.Itoa(problem.Status()))
		answer.Header.Set(micro.ErrorHeader, problem.Code)
	}
	_ = q.nc.PublishMsg(answer) // it fails only while the server is away, and so is who asked
}

// counted counts how a delivery ended.
func (q *Queue) counted(queue string, err error) {
	switch {
	case err == nil:
		q.o.Count(queue, processed, 1)
	case final(err):
		q.o.Count(queue, invalid, 1)
	default:
		q.o.Count(queue, failed, 1)
	}
}

// final reports whether repeating the same message would fail again.
func final(err error) bool {
	status := calls.ProblemOf(err).Status()
	return status < 500 && status != 429 && status != 409
}

// reply answers a request of the micro service.
func (q *Queue) reply(r micro.Request, answer []byte, err error) {
	if !mayAnswer(r.Reply()) {
		return
	}
	if err == nil {
		_ = r.Respond(answer)
		return
	}
	problem := calls.ProblemOf(err)
	if problem.Code == api.CodeInternal {
		q.o.Log.Error("message failed", "subject", r.Subject(), "error", err)
	}
	_ = r.Error(strconv.Itoa(problem.Status()), problem.Code, bodyOf(problem))
}

// mayAnswer reports whether somebody waits for an answer, in an inbox: whoever
// names another subject wants us to write where they may not.
func mayAnswer(reply string) bool { return strings.HasPrefix(reply, "_INBOX") }

func bodyOf(p *calls.Problem) []byte {
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
	return &calls.Problem{Code: api.CodeTooLarge, Detail: fmt.Sprintf("The message has more than %d bytes.", maxPayload)}
}

package natsmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/strict"
)

const (
	headerReason     = "Headway-Reason"     // a sentence
	headerCode       = "Headway-Code"       // of the problem
	headerSubject    = "Headway-Subject"    // of the command
	headerDeliveries = "Headway-Deliveries" // attempts
	headerMessageID  = "Headway-Message-Id" // the Nats-Msg-Id that the command was sent with; of commands in the stream as well
	headerBytes      = "Headway-Bytes"      // of the command's body, where the letter has only its beginning
)

type deadLetter struct {
	subject    string
	header     nats.Header // of the command
	data       []byte
	sequence   uint64 // in the stream of commands
	deliveries uint64
	problem    *apiv1.Problem
	final      bool // it can never be applied
}

// maxKept is how much of an invalid command's body is kept, in bytes.
const maxKept = 4096

// reason is what is wrong in one sentence, or each fault of several: a dead
// letter has no list of them.
func reason(p *apiv1.Problem) string {
	if len(p.Faults) < 2 {
		return p.Detail
	}
	var b strings.Builder
	for i, f := range p.Faults {
		text := strings.TrimPrefix(f.Pointer+": "+f.Reason, ": ")
		if b.Len()+len(text) > maxKept {
			fmt.Fprintf(&b, "; and %d more", len(p.Faults)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(text)
	}
	return b.String()
}

// writeDeadLetter stores a dead letter. It is idempotent.
func (q *Queue) writeDeadLetter(ctx context.Context, l *deadLetter) error {
	if q.broken() {
		q.o.Messages.add(queueDead, publishFailed, 1)
		return errBroken
	}
	subject := cmp.Or(commandOf(l.subject), l.subject)
	m := nats.NewMsg(prefix + queueDead + "." + tail(subject))
	m.Data = l.data
	if l.final && len(l.data) > maxKept {
		m.Data = l.data[:maxKept]
		m.Header.Set(headerBytes, strconv.Itoa(len(l.data)))
	}
	m.Header.Set(headerReason, reason(l.problem))
	m.Header.Set(headerCode, l.problem.Code)
	m.Header.Set(headerSubject, subject)
	m.Header.Set(headerDeliveries, strconv.FormatUint(l.deliveries, 10))
	given, id := l.header.Get(headerMessageID), l.header.Get(nats.MsgIdHdr)
	if given == "" || q.server == nil {
		given = strict.Clip(id)
	}
	if given != "" {
		m.Header.Set(headerMessageID, given)
	}
	if who := l.header.Get(headerSender); who != "" && q.server != nil {
		m.Header.Set(headerSender, who)
	}
	ack, err := q.js.PublishMsg(ctx, m, jetstream.WithMsgID(commandID(l.subject, strconv.FormatUint(l.sequence, 10)+"-"+id, nil)))
	if err != nil {
		q.noticeFailure(err)
		q.o.Messages.add(queueDead, publishFailed, 1)
		return err
	}
	if !ack.Duplicate {
		q.o.Messages.add(queueDead, published, 1)
	}
	return nil
}

// DeadLetters returns up to limit dead letters after a number, oldest first,
// and their total.
func (q *Queue) DeadLetters(ctx context.Context, after uint64, limit int) (letters []api.DeadLetter, total uint64, err error) {
	stream, err := q.js.Stream(ctx, deadStream)
	if err != nil {
		return nil, 0, unavailable(err)
	}
	info := stream.CachedInfo()
	for n := max(after+1, info.State.FirstSeq); n <= info.State.LastSeq && len(letters) < limit; n++ {
		raw, err := stream.GetMsg(ctx, n)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, 0, unavailable(err)
		}
		letters = append(letters, letterOf(raw))
	}
	return letters, info.State.Msgs, nil
}

// DeadLetter returns the dead letter with the number.
func (q *Queue) DeadLetter(ctx context.Context, number uint64) (api.DeadLetter, error) {
	_, raw, err := q.letter(ctx, number)
	if err != nil {
		return api.DeadLetter{}, err
	}
	return letterOf(raw), nil
}

func (q *Queue) letter(ctx context.Context, number uint64) (jetstream.Stream, *jetstream.RawStreamMsg, error) {
	stream, err := q.js.Stream(ctx, deadStream)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	raw, err := stream.GetMsg(ctx, number)
	return stream, raw, unavailable(err)
}

// maxShown is how much of a dead letter's body is shown, in bytes.
const maxShown = 4096

func letterOf(raw *jetstream.RawStreamMsg) api.DeadLetter {
	deliveries, _ := strconv.ParseUint(raw.Header.Get(headerDeliveries), 10, 64)
	body := string(raw.Data[:min(len(raw.Data), maxShown)])
	size := len(raw.Data)
	if n, err := strconv.Atoi(raw.Header.Get(headerBytes)); err == nil {
		size = n
	}
	return api.DeadLetter{
		Number: raw.Sequence, Time: raw.Time.UTC(), Queue: queueOf(raw.Header.Get(headerSubject)), Subject: raw.Header.Get(headerSubject),
		Code: raw.Header.Get(headerCode), Reason: raw.Header.Get(headerReason), Deliveries: deliveries,
		MessageID: raw.Header.Get(headerMessageID), Body: strings.ToValidUTF8(body, "\uFFFD"), Bytes: size,
	}
}

// RetryDeadLetter queues the command again and deletes the letter.
func (q *Queue) RetryDeadLetter(ctx context.Context, number uint64) error {
	return q.withLetter(ctx, "queue.retry", number, func(raw *jetstream.RawStreamMsg) error {
		subject := raw.Header.Get(headerSubject)
		switch {
		case commandOf(subject) != subject || subject == "": // the letter was not written by this service
			return errNotACommand
		case raw.Header.Get(headerBytes) != "":
			return errCut
		}
		// The id is its own, and the same for a second try.
		m := &nats.Msg{Subject: q.inStream(subject), Data: raw.Data, Header: nats.Header{}}
		for _, name := range []string{headerSender, headerMessageID} {
			if value := raw.Header.Get(name); value != "" && q.server != nil {
				m.Header.Set(name, value)
			}
		}
		_, err := q.js.PublishMsg(ctx, m, jetstream.WithMsgID("retry-"+strconv.FormatUint(number, 10)+"-"+strconv.FormatInt(raw.Time.UnixNano(), 36)))
		if err == nil && q.server != nil {
			q.room.add(charge(m.Subject, m.Header, m.Data))
		}
		return err
	})
}

// PurgeDeadLetter deletes a dead letter.
func (q *Queue) PurgeDeadLetter(ctx context.Context, number uint64) error {
	return q.withLetter(ctx, "queue.purge", number, func(*jetstream.RawStreamMsg) error { return nil })
}

// withLetter changes a dead letter and deletes it, with an audit record.
func (q *Queue) withLetter(ctx context.Context, action string, number uint64, do func(*jetstream.RawStreamMsg) error) error {
	stream, raw, err := q.letter(ctx, number)
	if err != nil {
		return err
	}
	var failed error
	err = audit.Do(ctx, q.o.Audit, audit.Entry{
		Category: audit.Admin, Action: action, Target: audit.Target{Type: "dead_letter", ID: strconv.FormatUint(number, 10)},
	}, func() error {
		if failed = do(raw); failed == nil {
			q.letters.ours.Add(1)
			if failed = stream.DeleteMsg(ctx, number); failed != nil {
				q.letters.ours.Add(^uint64(0))
			}
		}
		return failed
	})
	if failed != nil {
		return unavailable(failed)
	}
	return err
}

// unavailable wraps the error of a server that did not carry out a request.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*apiv1.Problem](err); ok {
		return p
	}
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return apiv1.ErrNoLetter
	}
	return &apiv1.Problem{Code: api.CodeQueueUnavailable, Detail: "The message queue did not answer as it should; see GET /readyz.", RetryAfter: 5 * time.Second}
}

// sighted is a candidate that a sweep found.
type sighted struct {
	since time.Time // it was first seen
	stuck time.Time // it has looked stuck since then; zero: it does not
}

// sweep makes dead letters of commands whose deliveries are used up without an
// end, as when each one crashed the service. The server announces these only
// once, so the sweep looks for commands still in the stream although delivered,
// with no delivery under way or none within the longest time. A fresh
// acknowledgement looks the same until it is stored, so two looks are needed.
func (q *Queue) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	stream, err := q.js.Stream(ctx, commandStream)
	if err != nil {
		return // consume says so
	}
	q.regress(stream.CachedInfo().State.LastSeq)
	consumer, err := stream.Consumer(ctx, consumerName)
	if err != nil {
		return
	}
	info := consumer.CachedInfo()
	var delivered []uint64
	for n := uint64(1); n <= info.Delivered.Stream && len(delivered) < maxSwept; {
		raw, err := stream.GetMsg(ctx, n, jetstream.WithGetMsgSubject(">")) // the next that there is
		if err != nil || raw.Sequence > info.Delivered.Stream {
			break
		}
		delivered = append(delivered, raw.Sequence)
		n = raw.Sequence + 1
	}
	if info, err = consumer.Info(ctx); err != nil {
		return
	}
	now := time.Now()
	seen := map[uint64]sighted{}
	for _, n := range delivered {
		s, known := q.delivered[n]
		if !known {
			s.since = now
		}
		switch stuck := info.NumAckPending == 0 || now.Sub(s.since) >= q.o.Timing.longest(); {
		case !stuck:
			s.stuck = time.Time{}
		case s.stuck.IsZero():
			s.stuck = now
		}
		seen[n] = s
		if s.stuck.IsZero() || now.Sub(s.stuck) < q.o.Timing.AckWait/2 {
			continue
		}
		raw, err := stream.GetMsg(ctx, n)
		if err == nil {
			err = q.endStuck(ctx, stream, raw)
		}
		if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) {
			delete(seen, n)
		}
	}
	q.delivered = seen
}

func (q *Queue) endStuck(ctx context.Context, stream jetstream.Stream, raw *jetstream.RawStreamMsg) error {
	err := q.writeDeadLetter(ctx, &deadLetter{
		subject: raw.Subject, header: raw.Header, data: raw.Data, sequence: raw.Sequence, deliveries: maxDeliver,
		problem: &apiv1.Problem{Code: api.CodeTimeout, Detail: "It was delivered as often as it may be, and never carried out."},
	})
	if err != nil {
		return err
	}
	q.metrics.swept.Inc()
	if err := stream.DeleteMsg(ctx, raw.Sequence); err != nil {
		return err
	}
	q.room.give(charge(raw.Subject, raw.Header, raw.Data))
	return nil
}

const maxSwept = 10_000

// longest bounds all deliveries of a command.
func (t *Timing) longest() time.Duration {
	sum := time.Minute + maxDeliver*t.AckWait
	for _, d := range t.BackOff {
		sum += 2 * d
	}
	return sum
}

// regress logs an error if the stream has lost messages: a damaged file is
// truncated without another sign.
func (q *Queue) regress(last uint64) {
	if was := q.metrics.last.Swap(last); last < was {
		q.metrics.regressions.Inc()
		q.o.Log.Error("the stream of commands lost messages that were acknowledged: its last number went back", "from", was, "to", last)
	}
}

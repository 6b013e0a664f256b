package natsmq

import (
	"container/list"
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"headway/internal/access"
	"headway/internal/apiv1"
)

// consume takes commands until ctx ends. A consumer that has ended is made again,
// for any reason: after a restart of the server it may be silent without an error.
func (q *Queue) consume(ctx context.Context) {
	for failures := 0; ; failures++ {
		consumer, err := q.ensure(ctx)
		if err == nil {
			failures = 0
			q.measured.Do(func() { q.room.add(earlier, q.waiting(ctx)) })
			q.ready.Store(true)
			err = q.take(ctx, consumer)
		}
		if ctx.Err() != nil {
			return
		}
		q.ready.Store(q.nc.IsConnected() && q.ready.Load())
		q.o.Log.Warn("commands are not taken from the queue; it is tried again", "error", err)
		if !q.pause(ctx, failures) {
			return
		}
	}
}

// waiting is how many bytes of commands are in the stream.
func (q *Queue) waiting(ctx context.Context) int64 {
	stream, err := q.js.Stream(ctx, commandStream)
	if err != nil {
		return 0
	}
	return int64(stream.CachedInfo().State.Bytes)
}

// take hands commands on until the consumer ends.
func (q *Queue) take(ctx context.Context, consumer jetstream.Consumer) error {
	messages, err := consumer.Messages(jetstream.PullMaxMessages(2*maxWorkers), jetstream.PullExpiry(10*time.Second), jetstream.PullHeartbeat(2*time.Second))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, messages.Stop)()
	defer messages.Stop()
	for {
		m, err := messages.Next()
		if err != nil {
			return err
		}
		if queueOf(m.Subject()) == queueRegister {
			q.workers <- struct{}{}
			q.working.Go(func() { //nolint:contextcheck // what was begun ends, also at a stop
				defer func() { <-q.workers }()
				defer q.hold(m)()
				q.apply(m)
			})
			continue
		}
		q.apply(m) //nolint:contextcheck // as above
	}
}

// hold lets the server know, until release is called, that a command is being
// carried out: else another instance would get it as well.
func (q *Queue) hold(m jetstream.Msg) (release func()) {
	every := q.o.Timing.AckWait / 3
	released, done := make(chan struct{}), make(chan struct{})
	timer := time.AfterFunc(every, func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			_ = m.InProgress() // it fails once the command is acknowledged
			select {
			case <-released:
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		if !timer.Stop() {
			close(released)
			<-done
		}
	}
}

// apply carries a command out and says so to the server.
func (q *Queue) apply(m jetstream.Msg) {
	queue := queueOf(m.Subject())
	meta, err := m.Metadata()
	if err != nil || commandOf(m.Subject()) == "" { // of another subject of the stream
		q.done(m, m.TermWithReason("no such command"))
		return
	}
	q.o.Messages.add(queue, received, 1)
	id := m.Headers().Get(nats.MsgIdHdr)
	if id == "" {
		id = strconv.FormatUint(meta.Sequence.Stream, 10) + "@" + strconv.FormatInt(meta.Timestamp.UnixNano(), 10)
	}
	id = commandID(m.Subject(), id, m.Data())
	if fresh, applied := q.seen.claim(id, meta.Timestamp, time.Duration(q.window.Load())); !fresh {
		q.o.Messages.add(queue, duplicate, 1)
		if applied { // else it is being applied, and what comes of that counts for this delivery as well
			q.done(m, m.Ack())
		}
		return
	}
	err = q.caught(func() error { return q.carryOut(m.Subject(), m.Headers(), m.Data()) })
	if err == nil {
		q.seen.applied(id)
		q.o.Messages.add(queue, processed, 1)
		q.done(m, m.Ack())
		return
	}
	q.seen.release(id)
	q.end(m, meta, err)
}

// done gives back the room of a command that leaves the stream, unless the server
// could not be asked to remove it.
func (q *Queue) done(m jetstream.Msg, err error) {
	if err == nil {
		q.room.give(accountOf(m.Headers()), sizeOf(m.Subject(), m.Headers(), m.Data()))
	}
}

// carryOut does what a command says.
func (q *Queue) carryOut(subject string, header nats.Header, body []byte) error {
	p, err := q.senderOfCommand(subject, header)
	if queueOf(subject) == queueRegister {
		if err == nil {
			err = p.Require(access.BeHead)
		}
		if err == nil {
			_, err = q.registerHead(p, body)
		}
	} else {
		if err == nil {
			err = p.Require(access.Decide)
		}
		if err == nil {
			err = tooLong(body)
		}
		if err == nil {
			err = q.o.Verbs.Outcome("", body)
		}
	}
	q.denied(subject, p, err)
	return err
}

// end ends the delivery of a command that was not carried out: it comes again
// later, or becomes a dead letter.
func (q *Queue) end(m jetstream.Msg, meta *jetstream.MsgMetadata, err error) {
	queue := queueOf(m.Subject())
	last := meta.NumDelivered >= maxDeliver
	if !final(err) && !last {
		q.o.Messages.add(queue, failed, 1)
		q.o.Messages.add(queue, retried, 1)
		_ = m.NakWithDelay(q.o.Timing.BackOff[min(int(meta.NumDelivered)-1, len(q.o.Timing.BackOff)-1)])
		return
	}
	letter := deadLetter{
		subject: m.Subject(), header: m.Headers(), data: m.Data(), sequence: meta.Sequence.Stream, deliveries: meta.NumDelivered,
		problem: apiv1.ProblemOf(err), final: final(err),
	}
	ctx, cancel := context.WithTimeout(context.Background(), changeTimeout)
	defer cancel()
	if err := q.write(ctx, &letter); err != nil {
		q.o.Messages.add(queue, failed, 1) // it stays in the stream; the sweep finds it
		q.o.Log.Warn("a dead letter could not be written; it is tried again", "error", err)
		return
	}
	if final(err) {
		q.o.Messages.add(queue, invalid, 1)
	} else {
		q.o.Messages.add(queue, deadLettered, 1)
	}
	q.done(m, m.TermWithReason(letter.problem.Code))
}

// seen remembers the commands that were applied last, or are being applied.
type seen struct {
	mu    sync.Mutex
	ids   map[string]*list.Element
	order *list.List // of *sighting
}

type sighting struct {
	id   string
	at   time.Time // when the stream got it
	done bool
}

// maxSeen bounds what is remembered of commands.
const maxSeen = 64 << 10

func newSeen() *seen { return &seen{ids: map[string]*list.Element{}, order: list.New()} }

// claim reports whether the command is new, and then remembers it, or else
// whether it was applied. Another one with the same id is new if the stream got
// it later than the window, in which it recognises an id itself, since then its
// acknowledgement did not say that it was there already.
func (s *seen) claim(id string, at time.Time, window time.Duration) (fresh, applied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.ids[id]; e != nil {
		sight, _ := e.Value.(*sighting)
		if at.Sub(sight.at).Abs() < window {
			return false, sight.done
		}
		s.order.Remove(e)
	}
	s.ids[id] = s.order.PushBack(&sighting{id: id, at: at})
	if s.order.Len() > maxSeen {
		oldest, _ := s.order.Remove(s.order.Front()).(*sighting)
		delete(s.ids, oldest.id)
	}
	return true, false
}

// applied remembers that a command was applied.
func (s *seen) applied(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.ids[id]; e != nil {
		sight, _ := e.Value.(*sighting)
		sight.done = true
	}
}

// release forgets a command that was not applied.
func (s *seen) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.ids[id]; e != nil {
		s.order.Remove(e)
		delete(s.ids, id)
	}
}

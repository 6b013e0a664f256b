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

// consume takes commands until ctx ends. An ended consumer is recreated for any
// reason, since after a restart of the server it may stay silent.
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

// waiting counts the bytes of commands in the stream.
func (q *Queue) waiting(ctx context.Context) int64 {
	stream, err := q.js.Stream(ctx, commandStream)
	if err != nil {
		return 0
	}
	return int64(stream.CachedInfo().State.Bytes)
}

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

// hold extends the delivery until release is called, so that no other instance
// gets the command.
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

// apply carries out a command and acknowledges it.
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

// done releases the room of a removed command, unless its removal failed.
func (q *Queue) done(m jetstream.Msg, err error) {
	if err == nil {
		q.room.give(accountOf(m.Headers()), sizeOf(m.Subject(), m.Headers(), m.Data()))
	}
}

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

// end redelivers a failed command later, or makes it a dead letter.
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

// seen holds the commands that were applied recently, or are being applied.
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

const maxSeen = 64 << 10

func newSeen() *seen { return &seen{ids: map[string]*list.Element{}, order: list.New()} }

// claim remembers a new command and reports it, or else whether it was applied.
// A known id counts as new if it was stored after the window in which the
// stream itself finds duplicates, since then its acknowledgement did not say
// duplicate.
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

func (s *seen) applied(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.ids[id]; e != nil {
		sight, _ := e.Value.(*sighting)
		sight.done = true
	}
}

func (s *seen) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.ids[id]; e != nil {
		s.order.Remove(e)
		delete(s.ids, id)
	}
}

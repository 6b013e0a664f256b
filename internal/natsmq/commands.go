package natsmq

import (
	"cmp"
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

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
			q.measured.Do(func() { q.measure(ctx) })
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

// measure accounts for the commands that are in the stream already.
func (q *Queue) measure(ctx context.Context) {
	if stream, err := q.js.Stream(ctx, commandStream); err == nil {
		q.room.add(earlier, int64(stream.CachedInfo().State.Bytes))
	}
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
	released := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(q.o.Timing.AckWait / 3)
		defer tick.Stop()
		for {
			select {
			case <-released:
				return
			case <-tick.C:
				_ = m.InProgress() // it fails once the command is acknowledged
			}
		}
	})
	return func() {
		close(released)
		wait.Wait()
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
	if err = q.carryOut(m.Subject(), m.Headers(), m.Data()); err == nil {
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
		q.room.give(charge(m.Subject(), m.Headers(), m.Data()))
	}
}

func (q *Queue) carryOut(subject string, header nats.Header, body []byte) (err error) {
	var p *access.Principal
	defer func() { q.denied(subject, p, err) }()
	defer func() { q.recovered(recover(), &err) }()
	if p, err = q.senderOfCommand(subject, header); err == nil {
		err = cmp.Or(p.Require(needs[queueOf(subject)]), tooLong(body))
	}
	switch {
	case err != nil:
	case queueOf(subject) == queueRegister:
		_, err = q.registerHead(p, body)
	default:
		err = q.o.Verbs.Outcome("", body)
	}
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
	if err := q.writeDeadLetter(ctx, &letter); err != nil {
		q.o.Messages.add(queue, failed, 1) // it stays in the stream; the sweep finds it
		q.o.Log.Warn("a dead letter could not be written; it is tried again", "error", err)
		return
	}
	status := deadLettered
	if letter.final {
		status = invalid
	}
	q.o.Messages.add(queue, status, 1)
	q.done(m, m.TermWithReason(letter.problem.Code))
}

// seen holds the commands that were applied recently, or are being applied. It
// has room for maxSeen in two halves, of which the older is forgotten once the
// newer is full: at least the last half of maxSeen are known. It is safe for
// concurrent use.
type seen struct {
	forgotten prometheus.Counter // those that came within the last keep
	keep      time.Duration

	mu           sync.Mutex
	newer, older map[string]*sighting
}

type sighting struct {
	at   time.Time // when the stream got it
	done bool
}

const maxSeen = 128 << 10

// claim remembers a new command and reports it, or else whether it was applied.
// A known id counts as new if it was stored after the window in which the
// stream itself finds duplicates, since then its acknowledgement did not say
// duplicate.
func (s *seen) claim(id string, at time.Time, window time.Duration) (fresh, applied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.find(id); known != nil && at.Sub(known.at).Abs() < window {
		return false, known.done
	}
	if len(s.newer) >= maxSeen/2 {
		for _, old := range s.older {
			if time.Since(old.at) < s.keep {
				s.forgotten.Inc()
			}
		}
		s.older, s.newer = s.newer, nil
	}
	if s.newer == nil {
		s.newer = map[string]*sighting{}
	}
	delete(s.older, id)
	s.newer[id] = &sighting{at: at}
	return true, false
}

// find returns what is known of a command, nil if nothing. The lock is held.
func (s *seen) find(id string) *sighting { return cmp.Or(s.newer[id], s.older[id]) }

func (s *seen) applied(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.find(id); known != nil {
		known.done = true
	}
}

func (s *seen) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.newer, id)
	delete(s.older, id)
}

package natsmq

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"headway/internal/calls"
)

// The streams, and the consumer that all instances share.
const (
	commandStream = "HEADWAY_COMMANDS"
	deadStream    = "HEADWAY_DEAD_LETTERS"
	consumerName  = "headway"
)

// duplicateWindow is how long the server itself recognises a message by its
// Nats-Msg-Id.
const duplicateWindow = 2 * time.Minute

// ensure makes the streams and the consumer, or brings them up to date. With our
// own server what was begun ends, also at a stop: a stream that is being made
// while the server shuts down would be missed by it and stay open.
func (q *Queue) ensure(ctx context.Context) (jetstream.Consumer, error) {
	if q.server != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
		defer cancel()
	}
	commandsConfig := jetstream.StreamConfig{
		Name: commandStream, Description: "Commands to Headway that must not be lost.",
		Subjects:  []string{prefix + queueOutcome, commands + ">"},
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, Storage: jetstream.FileStorage,
		MaxBytes: q.o.MaxBytes, MaxMsgSize: maxPayload, Duplicates: duplicateWindow, Replicas: q.replicas(),
	}
	deadConfig := jetstream.StreamConfig{
		Name: deadStream, Description: "Commands that could not be applied, with the reason.",
		Subjects: []string{prefix + queueDead + ".>"},
		Discard:  jetstream.DiscardNew, Storage: jetstream.FileStorage,
		MaxBytes: q.o.MaxBytes, MaxAge: q.o.Timing.Age, Duplicates: duplicateWindow, Replicas: q.replicas(),
	}
	for _, config := range []jetstream.StreamConfig{deadConfig, commandsConfig} {
		if err := q.makeStream(ctx, config); err != nil {
			return nil, fmt.Errorf("stream %s: %w", config.Name, err)
		}
	}
	return q.js.CreateOrUpdateConsumer(ctx, commandStream, jetstream.ConsumerConfig{
		Durable: consumerName, AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: maxDeliver,
		AckWait: 30 * time.Second, BackOff: q.o.Timing.BackOff, MaxAckPending: 4096,
	})
}

// replicas of a stream: three where there are that many servers to hold them.
func (q *Queue) replicas() int {
	if q.server == nil && len(q.nc.DiscoveredServers())+1 >= 3 {
		return 3
	}
	return 1
}

// makeStream makes a stream, or leaves one as the operator of the cluster has
// set it up.
func (q *Queue) makeStream(ctx context.Context, config jetstream.StreamConfig) error {
	if q.server != nil {
		_, err := q.js.CreateOrUpdateStream(ctx, config)
		return err
	}
	_, err := q.js.Stream(ctx, config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = q.js.CreateStream(ctx, config)
	}
	return err
}

// consume takes commands until ctx ends. Whatever ends a consumer, it is made
// anew: after a restart of the server it may be silent without an error.
func (q *Queue) consume(ctx context.Context) {
	for failures := 0; ; failures++ {
		consumer, err := q.ensure(ctx)
		if err == nil {
			failures = 0
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

// take hands commands on until the consumer ends.
func (q *Queue) take(ctx context.Context, consumer jetstream.Consumer) error {
	messages, err := consumer.Messages(jetstream.PullMaxMessages(512), jetstream.PullExpiry(10*time.Second), jetstream.PullHeartbeat(2*time.Second))
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
				q.apply(m)
			})
			continue
		}
		q.apply(m) //nolint:contextcheck // as above
	}
}

// apply carries a command out and says so to the server.
func (q *Queue) apply(m jetstream.Msg) {
	queue := queueOf(m.Subject())
	meta, err := m.Metadata()
	if err != nil || queue == "" { // of another subject of the stream
		_ = m.TermWithReason("no such command")
		return
	}
	q.o.Count(queue, received, 1)
	id := m.Headers().Get(nats.MsgIdHdr)
	if id == "" {
		id = strconv.FormatUint(meta.Sequence.Stream, 10) + "@" + strconv.FormatInt(meta.Timestamp.UnixNano(), 10)
	}
	if fresh, applied := q.seen.claim(id); !fresh {
		q.o.Count(queue, duplicate, 1)
		if applied { // else it is being applied, and what comes of that counts for this delivery as well
			_ = m.Ack()
		}
		return
	}
	if queue == queueRegister {
		_, err = q.registerHead(m.Subject(), m.Data())
	} else if err = tooLong(m.Data()); err == nil {
		err = q.o.Desk.Outcome("", m.Data())
	}
	if err == nil {
		q.seen.applied(id)
		q.o.Count(queue, processed, 1)
		_ = m.Ack()
		return
	}
	q.seen.release(id)
	last := meta.NumDelivered >= maxDeliver
	if !final(err) && !last {
		q.o.Count(queue, failed, 1)
		q.o.Count(queue, retried, 1)
		_ = m.NakWithDelay(q.o.Timing.BackOff[min(int(meta.NumDelivered)-1, len(q.o.Timing.BackOff)-1)])
		return
	}
	letter := deadLetter{
		subject: m.Subject(), data: m.Data(), sequence: meta.Sequence.Stream, deliveries: meta.NumDelivered,
		id: m.Headers().Get(nats.MsgIdHdr), problem: calls.ProblemOf(err),
	}
	ctx, cancel := context.WithTimeout(context.Background(), changeTimeout)
	defer cancel()
	if err := q.bury(ctx, &letter); err != nil {
		q.o.Count(queue, failed, 1) // it stays in the stream; the sweep finds it
		q.o.Log.Warn("a dead letter could not be written; it is tried again", "error", err)
		return
	}
	if final(err) {
		q.o.Count(queue, invalid, 1)
	} else {
		q.o.Count(queue, deadLettered, 1)
	}
	_ = m.TermWithReason(letter.problem.Code)
}

// seen remembers the commands that were applied last, or are being applied.
type seen struct {
	mu    sync.Mutex
	ids   map[string]*list.Element
	order *list.List // of *sighting
}

type sighting struct {
	id   string
	done bool
}

// maxSeen bounds what is remembered of commands.
const maxSeen = 64 << 10

func newSeen() *seen { return &seen{ids: map[string]*list.Element{}, order: list.New()} }

// claim reports whether the command is new, and then remembers it, or else
// whether it was applied.
func (s *seen) claim(id string) (fresh, applied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.ids[id]; e != nil {
		sight, _ := e.Value.(*sighting)
		return false, sight.done
	}
	s.ids[id] = s.order.PushBack(&sighting{id: id})
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

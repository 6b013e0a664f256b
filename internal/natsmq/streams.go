package natsmq

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// The streams, and the consumer that all instances share.
const (
	commandStream = "HEADWAY_COMMANDS"
	deadStream    = "HEADWAY_DEAD_LETTERS"
	consumerName  = "headway"
)

// ensure makes or updates the streams and the consumer. On the embedded server
// it finishes what it began, even at a stop: shutdown would miss a stream that
// is being made.
func (q *Queue) ensure(ctx context.Context) (jetstream.Consumer, error) {
	// An external stream takes commands itself, without us. See store for the
	// embedded one.
	subjects := []string{prefix + queueOutcome, prefix + queueOutcome + ".*", commands + ">"}
	if q.server != nil {
		subjects = []string{stored + ">"}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
		defer cancel()
	}
	commandsConfig := jetstream.StreamConfig{
		Name: commandStream, Description: "Commands to Headway that must not be lost.",
		Subjects: subjects, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, Storage: jetstream.FileStorage,
		MaxBytes: q.o.MaxBytes, MaxMsgSize: maxPayload + headroom, Duplicates: q.o.Timing.Window, Replicas: 1,
	}
	deadConfig := jetstream.StreamConfig{
		Name: deadStream, Description: "Commands that could not be applied, with the reason.",
		Subjects: []string{prefix + queueDead + ".>"}, Storage: jetstream.FileStorage,
		// The oldest give way, those of the same sender first. A full stream
		// would block commands that can never be applied.
		Discard: jetstream.DiscardOld, MaxMsgsPerSubject: max(100, min(10_000, q.o.MaxBytes/(16<<10))),
		MaxBytes: q.o.MaxBytes, MaxAge: q.o.Timing.Age, Duplicates: q.o.Timing.Window, Replicas: 1,
	}
	for _, config := range []jetstream.StreamConfig{deadConfig, commandsConfig} {
		if err := q.makeStream(ctx, config); err != nil {
			return nil, fmt.Errorf("stream %s: %w", config.Name, err)
		}
	}
	return q.js.CreateOrUpdateConsumer(ctx, commandStream, jetstream.ConsumerConfig{
		Durable: consumerName, AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: maxDeliver,
		// No BackOff: its first step would replace AckWait.
		AckWait: q.o.Timing.AckWait, MaxAckPending: 4096,
	})
}

// makeStream makes a stream, unless the cluster's operator already has.
func (q *Queue) makeStream(ctx context.Context, config jetstream.StreamConfig) error {
	if q.server != nil {
		_, err := q.js.CreateOrUpdateStream(ctx, config)
		return err
	}
	stream, err := q.js.Stream(ctx, config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		config.Metadata = map[string]string{replicasKey: replicasOurs}
		config.Replicas = q.replicas()
		stream, err = q.js.CreateStream(ctx, config)
		if _, refused := errors.AsType[*jetstream.APIError](err); refused && config.Replicas > 1 {
			config.Replicas = 1 // until there are servers for more, see grow
			stream, err = q.js.CreateStream(ctx, config)
		}
	}
	if err == nil && stream.CachedInfo().Config.Discard != config.Discard && stream.CachedInfo().Config.Metadata[replicasKey] == replicasOurs {
		ours := stream.CachedInfo().Config // as an earlier version has made it
		ours.Discard, ours.MaxMsgsPerSubject = config.Discard, config.MaxMsgsPerSubject
		stream, err = q.js.UpdateStream(ctx, ours)
	}
	if err == nil && config.Name == commandStream {
		q.window.Store(int64(stream.CachedInfo().Config.Duplicates))
	}
	return err
}

// Metadata of a stream whose replicas we manage.
const (
	replicasKey  = "headway_replicas"
	replicasOurs = "automatic"
)

// replicas is three if the cluster has that many servers.
func (q *Queue) replicas() int {
	if len(q.nc.Servers()) >= 3 {
		return 3
	}
	return 1
}

// grow adds replicas to our streams once the cluster has the servers.
func (q *Queue) grow(ctx context.Context) {
	want := q.replicas()
	if q.server != nil || want == 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	for _, name := range []string{deadStream, commandStream} {
		stream, err := q.js.Stream(ctx, name)
		if err != nil {
			return // consume says so
		}
		config := stream.CachedInfo().Config
		if config.Replicas >= want || config.Metadata[replicasKey] != replicasOurs {
			continue
		}
		config.Replicas = want
		if _, err := q.js.UpdateStream(ctx, config); err != nil {
			q.clientLog.warn("a stream has fewer replicas than there are servers for; it is tried again", "stream", name, "error", err)
			continue
		}
		q.o.Log.Info("a stream has more replicas now", "stream", name, "replicas", want)
	}
}

// Package natsmq is the message queue: calls, durable commands and events over
// NATS, on an embedded server or an external cluster.
//
// Frequent messages use core subjects, which lose a message without a receiver.
// Commands go through a stream on disk and are acknowledged once applied;
// failed ones become dead letters with the reason.
package natsmq

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/outbound"
)

// Options are what a Queue is made of.
type Options struct {
	External External // without a URL a server of our own is started
	Dir      string   // of our own server's streams; required with it
	Listen   string   // of our own server, host:port; "": it has no port
	TLS      *tls.Config
	MaxBytes int64 // of each stream on the disk; 0: 256 MiB
	MinFree  int64 // bytes of our own server's disk below which no command is taken; at least 1 MiB
	Pending  int   // messages of each core subject that may wait for us, the rest is dropped and counted; 0: 65,536
	Timing   Timing

	Verbs    *apiv1.Verbs          // required
	Events   *event.Stream         // required
	Audit    audit.Recorder        // required
	Messages *Messages             // required
	Metrics  prometheus.Registerer // required
	Log      *slog.Logger          // required
	Guard    *access.Guard         // required
	Instance string                // required; begins the ids of events
	Version  string
}

// External is a NATS server or cluster of another process.
type External struct {
	URL       string // several with commas
	CredsFile string
	TokenFile string
	CAFile    string
	CertFile  string
	KeyFile   string
	Dialer    nats.CustomDialer // nil: that of the library
}

// Timing are durations. A zero value is the default.
type Timing struct {
	BackOff []time.Duration // before each delivery of a command but the first; 1 s, 5 s, 30 s, 2 min
	AckWait time.Duration   // without a word about a command until it is delivered again; 30 s
	Window  time.Duration   // in which the server recognises a message by its Nats-Msg-Id; 2 min
	Watch   time.Duration   // between looks at connections, losses and streams; 250 ms
	Sweep   time.Duration   // between looks for commands that are stuck; 30 s
	Retry   time.Duration   // the first wait after a failure, doubled up to 10 s; 100 ms
	Age     time.Duration   // of dead letters; 14 days
}

func (t *Timing) complete() {
	if t.BackOff == nil {
		t.BackOff = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute}
	}
	t.AckWait = cmp.Or(t.AckWait, 30*time.Second)
	t.Window = cmp.Or(t.Window, 2*time.Minute)
	t.Watch = cmp.Or(t.Watch, 250*time.Millisecond)
	t.Sweep = cmp.Or(t.Sweep, 30*time.Second)
	t.Retry = cmp.Or(t.Retry, 100*time.Millisecond)
	t.Age = cmp.Or(t.Age, 14*24*time.Hour)
}

// The queues and the statuses of their messages. Each delivery is received once
// and then processed, failed, duplicate, invalid, dropped or dead_lettered; it
// may also be retried.
const (
	queueRegister = "heads.register"
	queueStatus   = "heads.status"
	queueRequest  = "decisions.request"
	queueOutcome  = "decisions.outcome"
	queueEvents   = "events"
	queueAudit    = "audit"
	queueDead     = "dead_letters"

	published     = "published"
	publishFailed = "publish_failed"
	received      = "received"
	processed     = "processed"
	failed        = "failed"
	retried       = "retried"
	duplicate     = "duplicate"
	invalid       = "invalid"
	dropped       = "dropped"
	deadLettered  = "dead_lettered"
)

// Prefixes of subjects. Commands that the contract does not name, which can
// also be called directly, have one of their own. So have commands in the
// embedded server's stream, where only the service publishes.
const (
	prefix   = "headway.v1."
	commands = prefix + "commands."
	stored   = prefix + "stored."
)

// maxPayload is the longest body in bytes. The embedded server allows more, for
// the headers of commands and dead letters.
const (
	maxPayload = 64 << 10
	headroom   = 32 << 10
)

// maxDeliver bounds the deliveries of a command.
const maxDeliver = 5

// Queue is the message queue. It is safe for concurrent use.
type Queue struct {
	o         Options
	events    *event.Subscription // from Open on, so that none is lost before Run
	server    *server.Server      // nil: external
	auth      *authenticator      // of our own server
	unasked   string              // what no inbox is named
	nc        *nats.Conn
	voice     *nats.Conn // takes what others send and answers; with our own server one that may publish to inboxes only
	js        jetstream.JetStream
	service   micro.Service
	seen      *seen       // commands that were applied
	clientLog *limitedLog // for what clients cause
	serverLog *limitedLog // for what our own server says otherwise
	lost      losses
	ready     atomic.Bool  // the streams are there
	window    atomic.Int64 // in which the stream recognises a message by its Nats-Msg-Id, a time.Duration
	metrics   *metrics
	delivered map[uint64]sighted // commands without an end; only the sweep uses this
	room      *room              // of our own server
	measured  sync.Once          // what the stream had at the start
	commands  fill               // of the stream of commands
	letters   letters            // only look writes its plain fields
	health    health
	workers   chan struct{} // has room for changes that are made at once
	storing   chan struct{} // has room for commands that are put into the stream at once
	working   sync.WaitGroup
}

// maxWorkers bounds the changes that wait for the disk at once.
const maxWorkers = 64

// Open starts the embedded server, or connects to the external one. An absent
// external server is no error: Run keeps trying.
func Open(o Options) (_ *Queue, err error) {
	if o.Verbs == nil || o.Events == nil || o.Audit == nil || o.Messages == nil || o.Metrics == nil || o.Log == nil || o.Guard == nil || o.Instance == "" {
		return nil, errors.New("natsmq: Verbs, Events, Audit, Messages, Metrics, Log, Guard and Instance are required")
	}
	o.Timing.complete()
	o.MaxBytes, o.Pending = cmp.Or(o.MaxBytes, 256<<20), cmp.Or(o.Pending, 64<<10)
	q := &Queue{
		o: o, events: o.Events.Subscribe(), unasked: rand.Text(), clientLog: &limitedLog{log: o.Log}, serverLog: &limitedLog{log: o.Log},
		workers: make(chan struct{}, maxWorkers), storing: make(chan struct{}, maxWorkers),
		lost: losses{of: map[*nats.Subscription]int{}},
		room: &room{dir: o.Dir, minFree: max(o.MinFree, leastFree), shares: newShares(o.MaxBytes)},
	}
	if o.External.URL != "" {
		q.room.minFree = 0
	}
	q.metrics = newMetrics(o.Metrics)
	q.seen = &seen{forgotten: q.metrics.forgottenCommands, keep: o.Timing.longest()}
	q.window.Store(int64(o.Timing.Window))
	defer func() {
		if err != nil {
			err = fmt.Errorf("message queue: %w", errors.Join(err, q.Close()))
		}
	}()
	if err := q.connect(); err != nil {
		return nil, err
	}
	if q.js, err = jetstream.New(q.nc, jetstream.WithDefaultTimeout(5*time.Second)); err != nil {
		return nil, err
	}
	q.observe()
	return q, q.serve()
}

func (q *Queue) connect() (err error) {
	if url := q.o.External.URL; url != "" {
		more, err := q.o.External.options()
		if err != nil {
			return err
		}
		q.nc, err = nats.Connect(url, append(q.options(), more...)...)
		q.voice = q.nc
		return err
	}
	secret, voice := rand.Text(), rand.Text()
	if err := q.startServer(secret, voice); err != nil {
		return err
	}
	if q.nc, err = nats.Connect("", append(q.options(), nats.InProcessServer(q.server), nats.Token(secret))...); err != nil {
		return err
	}
	q.voice, err = nats.Connect("", append(q.options(), nats.InProcessServer(q.server), nats.Token(voice))...)
	return err
}

// options detect a lost server within 15 s, and reconnect without limit.
func (q *Queue) options() []nats.Option {
	return []nats.Option{
		nats.Name("headway " + q.o.Instance),
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2),
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(), nats.ReconnectJitter(100*time.Millisecond, time.Second),
		nats.ReconnectWait(q.o.Timing.Retry), nats.Timeout(5 * time.Second), nats.FlusherTimeout(5 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				q.o.Log.Warn("the message queue is away; it is tried again", "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { q.o.Log.Info("the message queue is back") }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrSlowConsumer) && sub != nil {
				q.lost.watch(sub)
				return
			}
			q.clientLog.warn("message queue", "error", err)
		}),
	}
}

// Run serves until ctx ends.
func (q *Queue) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	wait.Go(func() { q.publishEvents(ctx) })
	wait.Go(func() { q.consume(ctx) })
	wait.Go(func() { q.watch(ctx) })
	if q.auth != nil {
		wait.Go(func() { q.auth.watch(ctx, q.server) })
	}
	<-ctx.Done()
	wait.Wait()
	q.working.Wait()
	return nil
}

// Close closes the connection and the embedded server.
func (q *Queue) Close() error {
	var err error
	if q.service != nil {
		err = q.service.Stop()
		if errors.Is(err, nats.ErrConnectionClosed) {
			err = nil
		}
	}
	for _, nc := range []*nats.Conn{q.voice, q.nc} {
		if nc != nil {
			_ = nc.FlushTimeout(time.Second)
			nc.Close()
		}
	}
	q.working.Wait()
	if q.server != nil {
		q.server.Shutdown()
		q.server.WaitForShutdown()
	}
	q.clientLog.flush(true)
	q.serverLog.flush(true)
	return err
}

// Addr is the address of the embedded server, "" without one.
func (q *Queue) Addr() string {
	if q.server == nil || q.o.Listen == "" {
		return ""
	}
	return q.server.Addr().String()
}

// watch polls for what no message announces: dropped messages, ended
// credentials, broken streams, lost messages, stuck commands.
func (q *Queue) watch(ctx context.Context) {
	tick := time.NewTicker(q.o.Timing.Watch)
	defer tick.Stop()
	sweep := time.NewTicker(q.o.Timing.Sweep)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			q.lost.count(q.o.Messages)
			return
		case <-tick.C:
			q.lost.count(q.o.Messages)
			q.heal()
			q.clientLog.flush(false)
			q.serverLog.flush(false)
			if q.auth != nil {
				q.auth.check(q.server)
			}
		case <-sweep.C:
			if q.broken() { // its streams would not answer, and heal has to go on
				continue
			}
			q.sweep(ctx)
			q.look(ctx)
			q.grow(ctx)
		}
	}
}

// losses counts messages that slow subscriptions dropped. It is safe for
// concurrent use.
type losses struct {
	mu sync.Mutex
	of map[*nats.Subscription]int
}

func (l *losses) watch(sub *nats.Subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.of[sub]; !known && queueOf(sub.Subject) != "" {
		l.of[sub] = 0
	}
}

// count adds new losses as received and dropped.
func (l *losses) count(messages *Messages) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for sub, before := range l.of {
		if now, err := sub.Dropped(); err == nil && now > before {
			messages.add(queueOf(sub.Subject), received, now-before)
			messages.add(queueOf(sub.Subject), dropped, now-before)
			l.of[sub] = now
		}
	}
}

// tail is the part of a subject behind the common prefix.
func tail(subject string) string {
	return strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(subject, stored), commands), prefix)
}

// queueOf is the queue of a subject, "" if none.
func queueOf(subject string) string {
	rest := tail(subject)
	for _, queue := range []string{queueRegister, queueStatus, queueRequest, queueOutcome} {
		if rest == queue || strings.HasPrefix(rest, queue+".") {
			return queue
		}
	}
	return ""
}

// senderOf is the id at the end of a subject, "" if none.
func senderOf(subject string) string {
	return strings.TrimPrefix(strings.TrimPrefix(tail(subject), queueOf(subject)), ".")
}

// pause backs off with jitter, and reports whether ctx is still valid.
func (q *Queue) pause(ctx context.Context, failures int) bool {
	wait := min(10*time.Second, q.o.Timing.Retry<<min(failures, 10))
	return outbound.Pause(ctx, wait/2+mathrand.N(max(wait/2, 1)))
}

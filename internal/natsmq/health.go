package natsmq

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"headway/api"
	"headway/internal/apiv1"
)

// health is the state of the streams.
type health struct {
	failed atomic.Bool // a write failed, after which our own server refuses every further one

	// Of heal only:
	tried   time.Time // when the streams were opened again last
	said    bool      // the log has it that they cannot be
	refuses bool      // the log has it that the disk is nearly full
}

// noticeFailure notes a write that the embedded server did not answer. After a
// disk error it never does again.
func (q *Queue) noticeFailure(err error) {
	silent := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse)
	if q.server != nil && silent && q.ready.Load() {
		q.health.failed.Store(true)
	}
}

// healEvery is the least time between attempts to reopen the streams.
const healEvery = 5 * time.Second

// heal reopens the embedded server's streams after a failed write, without a
// restart of the service. It waits while the disk is full.
func (q *Queue) heal() {
	if q.server == nil || !q.server.Running() { // it stops
		return
	}
	broken := q.broken()
	h, err := &q.health, q.room.diskLeft()
	if refuses := err != nil; refuses != h.refuses {
		if h.refuses = refuses; refuses {
			q.o.Log.Warn("commands of the message queue are refused", "error", err)
		} else {
			q.o.Log.Info("commands of the message queue are taken again: the disk has room")
		}
	}
	if !broken || time.Since(h.tried) < healEvery {
		return
	}
	h.tried = time.Now()
	if err == nil {
		err = q.reopen()
	}
	if err != nil {
		if !h.said {
			q.o.Log.Error("the streams of the message queue cannot be written; they are opened again once they can be", "error", err)
		}
		h.said = true
		return
	}
	h.said = false
	h.failed.Store(false)
	q.metrics.healed.Inc()
	q.o.Log.Warn("the streams of the message queue were opened again after a write had failed")
}

// reopen closes and opens the streams. Acknowledged messages are on the disk.
func (q *Queue) reopen() error {
	q.ready.Store(false)
	if err := q.server.ShutdownJetStream(); err != nil {
		return fmt.Errorf("close the streams: %w", err)
	}
	if err := q.server.EnableJetStream(q.jetStream()); err != nil {
		return fmt.Errorf("open the streams: %w", err)
	}
	return nil
}

func (q *Queue) jetStream() *server.JetStreamConfig {
	return &server.JetStreamConfig{
		StoreDir: q.o.Dir, MaxStore: 3*q.o.MaxBytes + 64<<20, MaxMemory: maxMemory,
		// Without it a power failure loses two minutes of acknowledged
		// messages.
		SyncAlways: true,
	}
}

// broken reports whether the embedded server's streams cannot be written.
func (q *Queue) broken() bool {
	return q.server != nil && (q.health.failed.Load() || !q.server.JetStreamEnabled())
}

// errBroken refuses a write that would not be answered.
var errBroken = &apiv1.Problem{
	Code: api.CodeQueueUnavailable, RetryAfter: healEvery,
	Detail: "The streams of the message queue cannot be written; they are opened again once they can be.",
}

// Ready reports whether the queue is usable, and its state or fault.
func (q *Queue) Ready() (ok bool, detail string) {
	switch {
	case !q.nc.IsConnected():
		return false, "the NATS server cannot be reached; it is tried again"
	case q.broken():
		return false, "the streams cannot be written; they are opened again once they can be, see the log"
	case !q.ready.Load():
		return false, "the streams are not there yet"
	}
	if err := q.room.diskLeft(); err != nil {
		return false, apiv1.ProblemOf(err).Detail
	}
	switch filled, letters := q.filled(), q.letters.filled(); {
	case filled >= full:
		return false, fmt.Sprintf("the stream of commands is full to %.0f %%, and commands are refused", 100*filled)
	case filled >= nearlyFull:
		detail = fmt.Sprintf("; the stream of commands is full to %.0f %%", 100*filled)
	case letters >= nearlyFull:
		detail = fmt.Sprintf("; dead letters take %.0f %% of their room, and then the oldest give way", 100*letters)
	}
	switch {
	case q.server == nil:
		return true, "connected to " + q.nc.ConnectedAddr() + detail
	case q.o.Listen == "":
		return true, "the embedded server runs; it has no port" + detail
	}
	return true, "the embedded server runs at " + q.Addr() + detail
}

// Shares of a stream at which its fill level is logged, and logged as
// recovered.
const (
	nearlyFull = 0.8
	full       = 0.98
)

// filled is the share of the command stream in use.
func (q *Queue) filled() float64 {
	if q.server != nil {
		return q.room.filled()
	}
	return q.commands.filled()
}

// fill is a stream's last measured fill level.
type fill struct{ permille atomic.Int64 }

func (f *fill) filled() float64 { return float64(f.permille.Load()) / 1000 }

func (f *fill) set(share float64) { f.permille.Store(int64(1000*share + 0.5)) }

// letters is the last known state of the dead letter stream.
type letters struct {
	fill
	ours atomic.Uint64 // that this process retried or purged
	seen bool          // there was a look
	gone uint64        // that had left the stream at the last one
	base int64         // of those, without ours, before the first
	lost int64         // since then, as counted
}

// look measures the streams. It counts dead letters that the stream discarded
// for newer ones or by age, neither retried nor purged.
func (q *Queue) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if stream, err := q.js.Stream(ctx, commandStream); err == nil {
		info := stream.CachedInfo()
		q.commands.set(share(info.State.Bytes, info.Config.MaxBytes))
		if q.server != nil && info.State.Msgs == 0 && len(q.storing) == 0 {
			q.room.empty()
		}
	}
	stream, err := q.js.Stream(ctx, deadStream)
	if err != nil {
		return // consume says so
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+queueDead+".>"))
	if err != nil {
		return
	}
	filled := share(info.State.Bytes, info.Config.MaxBytes)
	for _, n := range info.State.Subjects {
		filled = max(filled, share(n, info.Config.MaxMsgsPerSubject))
	}
	q.letters.set(filled)
	// Read last, and counted before each removal: our removals never look lost.
	l, gone, ours := &q.letters, info.State.LastSeq-info.State.Msgs, q.letters.ours.Load()
	if !l.seen || gone < l.gone { // the first look, or another stream
		l.seen, l.base, l.lost = true, int64(gone)-int64(ours), 0
	}
	l.gone = gone
	if lost := int64(gone) - int64(ours) - l.base; lost > l.lost {
		q.metrics.discarded.Add(float64(lost - l.lost))
		l.lost = lost
	}
}

func share(n uint64, of int64) float64 {
	if of <= 0 {
		return 0
	}
	return min(1, float64(n)/float64(of))
}

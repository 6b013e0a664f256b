// Package live streams events over Server-Sent Events and WebSocket, and serves
// the requests that come over WebSocket.
//
// One goroutine encodes each event once and adds it to a log that all subscribers
// read at their own pace. Those with equal filters are sent the same bytes. No
// publisher waits for a subscriber.
package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/registry"
	"headway/internal/routing"
)

// Options are what a Hub is made of.
type Options struct {
	Fleet      *registry.Registry    // required
	Router     *routing.Router       // required
	Verbs      *apiv1.Verbs          // required
	Events     *event.Stream         // required
	Metrics    prometheus.Registerer // required
	Log        *slog.Logger          // required
	Guard      *access.Guard         // required
	Audit      audit.Recorder        // required
	Instance   string                // required; prefix of the ids of events, which differs in each run
	MaxStreams int                   // required; SSE and WebSocket connections at once
	MaxMessage int64                 // required; bytes of a message that comes over WebSocket
	MaxRate    float64               // required; messages a second of one WebSocket, reading waits beyond
	Timing     Timing
	Window     int // events that can be resumed after; 0: 4096
}

// Timing holds intervals and timeouts. A zero value is the default, but
// Heartbeat is required.
type Timing struct {
	Beat      time.Duration // between wake-ups of a stream without events; 1 s
	Heartbeat time.Duration // of silence before a comment or a ping is sent
	Write     time.Duration // timeout of a write of at most 64 KiB; 5 s
	Auth      time.Duration // timeout of the first message of a WebSocket without a credential; 5 s
	Pong      time.Duration // timeout of the answer to a ping; 10 s
}

func (o *Options) complete() {
	t := &o.Timing
	t.Beat = cmp.Or(t.Beat, time.Second)
	t.Write = cmp.Or(t.Write, 5*time.Second)
	t.Auth = cmp.Or(t.Auth, 5*time.Second)
	t.Pong = cmp.Or(t.Pong, 10*time.Second)
	o.Window = cmp.Or(o.Window, event.Window)
}

// Hub serves all streams. All methods are safe for concurrent use.
type Hub struct {
	o         Options
	source    *event.Subscription
	log       entryLog
	follower  follower
	batches   batches
	snapshots snapshots
	metrics   *counts

	wakes   [turns]atomic.Pointer[chan struct{}] // each is closed when its streams may have something to send
	turn    atomic.Uint64                        // counts streams, each of which waits for one of the wakes
	pending chan struct{}                        // has a token if an event came since the last wake-up
	wanted  atomic.Int64                         // subscribers that want decisions
	streams atomic.Int64
	stop    chan struct{} // closed by Shutdown
	gone    chan struct{} // closed when the last stream has left after that

	mu     sync.Mutex // held where a stream enters or leaves
	closed bool
}

// New makes a hub. Its log begins with the next event.
func New(o Options) (*Hub, error) {
	if o.Fleet == nil || o.Router == nil || o.Verbs == nil || o.Events == nil || o.Metrics == nil || o.Log == nil || o.Guard == nil || o.Audit == nil || o.Instance == "" {
		return nil, errors.New("live: Fleet, Router, Verbs, Events, Metrics, Log, Guard, Audit and Instance are required")
	}
	if o.MaxStreams <= 0 || o.MaxMessage <= 0 || o.MaxRate <= 0 || o.Timing.Heartbeat <= 0 {
		return nil, errors.New("live: MaxStreams, MaxMessage, MaxRate and Timing.Heartbeat are required")
	}
	o.complete()
	h := &Hub{o: o, metrics: newCounts(o.Metrics), pending: make(chan struct{}, 1), stop: make(chan struct{}), gone: make(chan struct{})}
	h.batches.made, h.snapshots.taken = map[batchKey]*batch{}, map[string]*snapshot{}
	h.log.limit = [kinds]int{o.Window, decisionWindow}
	h.source = o.Events.Subscribe()
	h.log.skip(events, h.source.Last())
	for i := range h.wakes {
		h.wakes[i].Store(new(make(chan struct{})))
	}
	return h, nil
}

// Run encodes events and wakes streams, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	wait.Go(func() { h.read(ctx) })
	wait.Go(func() { h.watchAccess(ctx) })
	h.schedule(ctx)
	wait.Wait()
	return nil
}

// read adds events to the log.
func (h *Hub) read(ctx context.Context) {
	for {
		e, _, err := h.source.Next(ctx)
		if err != nil {
			return
		}
		h.log.addEvent(e.ID, h.eventFrame(&e))
		h.notify()
	}
}

// watchAccess wakes all streams at once when a credential changed: a stream whose
// key was revoked sends nothing more.
func (h *Hub) watchAccess(ctx context.Context) {
	for {
		changed := h.o.Guard.Changed()
		for i := range h.wakes { // also for changes before Changed was called
			h.wake(i)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// wake wakes the streams of a turn.
func (h *Hub) wake(turn int) { close(*h.wakes[turn].Swap(new(make(chan struct{})))) }

// notify has all streams woken soon.
func (h *Hub) notify() {
	select {
	case h.pending <- struct{}{}:
	default:
	}
}

// The pace of wake-ups. A wake-up for each event would cost a system call for each
// stream: the more streams, the more events are sent at once. Many streams are
// woken in turns, so that decisions do not wait behind all of them.
const (
	turns         = 16
	pacePerStream = 30 * time.Microsecond
	maxPace       = 600 * time.Millisecond
	followEvery   = 100 * time.Millisecond // new decisions are read
)

// schedule wakes the streams after an event, and at each beat, so that they check
// their timeouts.
func (h *Hub) schedule(ctx context.Context) {
	timer := time.NewTimer(h.o.Timing.Beat)
	defer timer.Stop()
	following := false
	for {
		every := h.o.Timing.Beat
		if following || h.wanted.Load() > 0 {
			every = min(every, followEvery)
		}
		timer.Reset(every)
		select {
		case <-ctx.Done():
			return
		case <-h.pending:
		case <-timer.C:
		}
		pace := min(maxPace, time.Duration(h.streams.Load())*pacePerStream)
		steps := 1
		if pace >= turns*time.Millisecond {
			steps = turns
		}
		for step := range steps {
			following = h.follow()
			h.batches.clear()
			for i := step; i < turns; i += steps {
				h.wake(i)
			}
			timer.Reset(pace / time.Duration(steps))
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
	}
}

// takeTurn assigns a stream to one of the wakes.
func (h *Hub) takeTurn() *atomic.Pointer[chan struct{}] { return &h.wakes[h.turn.Add(1)%turns] }

// enter counts a stream, until leave is called. It fails when there are too many,
// and once the service stops.
func (h *Hub) enter(transport string) (leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, &apiv1.Problem{Code: api.CodeOverloaded, Detail: "The service is stopping; connect again.", RetryAfter: time.Second}
	}
	if h.streams.Load() >= int64(h.o.MaxStreams) {
		h.metrics.refused.Inc()
		return nil, &apiv1.Problem{
			Code: api.CodeOverloaded, RetryAfter: 10 * time.Second,
			Detail: "As many streams are open as realtime.max_streams allows.",
		}
	}
	h.streams.Add(1)
	begin := time.Now()
	h.metrics.open[transport].Inc()
	return func() {
		h.metrics.open[transport].Dec()
		h.metrics.seconds.WithLabelValues(transport).Observe(time.Since(begin).Seconds())
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.streams.Add(-1) == 0 && h.closed {
			close(h.gone)
		}
	}, nil
}

// Shutdown ends all streams with a goodbye and waits for them, or until ctx ends.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.stop)
		if h.streams.Load() == 0 {
			close(h.gone)
		}
	}
	h.mu.Unlock()
	select {
	case <-h.gone:
	case <-ctx.Done():
		if h.streams.Load() > 0 {
			return fmt.Errorf("streams were still open: %w", ctx.Err())
		}
	}
	return nil
}

// unlimited removes the read deadline of a request: a stream has one for each
// write only.
func unlimited(w http.ResponseWriter) *http.ResponseController {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{})
	return c
}

// Package live tells whoever listens what happens, as Server-Sent Events and
// over WebSocket, and takes the calls that come over WebSocket.
//
// One goroutine encodes each event once, into a ring that all subscribers read
// at their own pace. Those who want the same get the same bytes. Nobody who
// publishes waits for anybody who listens.
package live

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/routing"
)

// Options are what a Hub is made of.
type Options struct {
	Fleet      *fleet.Registry       // required
	Router     *routing.Router       // required
	Verbs      *apiv1.Verbs          // required
	Events     *event.Stream         // required
	Metrics    prometheus.Registerer // required
	Log        *slog.Logger          // required
	Guard      *access.Guard         // required
	Instance   string                // required; begins the ids of events, so that those of another run are recognised
	MaxStreams int                   // SSE and WebSocket connections at once; 0: 5,000
	Timing     Timing
	MaxMessage int64   // bytes of a message that comes over WebSocket; 0: 64 KiB
	MaxRate    float64 // messages a second of one WebSocket, reading waits beyond; 0: 100,000
	Window     int     // events that can be resumed after; 0: 4096
}

// Timing is how long things take. A zero value is the default.
type Timing struct {
	Beat      time.Duration // between looks at what waits; 1 s
	Heartbeat time.Duration // of silence before a comment or a ping is sent; 10 s
	Write     time.Duration // to take 64 KiB, or whatever was sent; 5 s
	Auth      time.Duration // to say who one is over WebSocket; 5 s
	Pong      time.Duration // to answer a ping; 10 s
}

func (o *Options) complete() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Timing.Beat, time.Second)
	def(&o.Timing.Heartbeat, 10*time.Second)
	def(&o.Timing.Write, 5*time.Second)
	def(&o.Timing.Auth, 5*time.Second)
	def(&o.Timing.Pong, 10*time.Second)
	if o.MaxStreams == 0 {
		o.MaxStreams = 5000
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = 64 << 10
	}
	if o.MaxRate == 0 {
		o.MaxRate = 100_000
	}
	if o.Window == 0 {
		o.Window = event.DefaultWindow
	}
}

// Hub serves all who listen. All methods are safe for concurrent use.
type Hub struct {
	o         Options
	source    *event.Subscription
	rings     rings
	follower  follower
	batches   batches
	snapshots snapshots
	metrics   *counts

	wakes   [turns]atomic.Pointer[chan struct{}] // closed when there may be something to send
	turn    atomic.Uint64                        // counts streams, each of which has one of the wakes
	fresh   chan struct{}                        // has a token when an event came since the last wake
	wanted  atomic.Int64                         // streams that want decisions
	streams atomic.Int64
	stop    chan struct{} // closed by Shutdown

	mu     sync.Mutex
	closed bool
	active sync.WaitGroup // streams; Add is called with mu held
}

// New makes a hub. It remembers events from now on.
func New(o Options) (*Hub, error) {
	if o.Fleet == nil || o.Router == nil || o.Verbs == nil || o.Events == nil || o.Metrics == nil || o.Log == nil || o.Guard == nil || o.Instance == "" {
		return nil, errors.New("live: Fleet, Router, Verbs, Events, Metrics, Log, Guard and Instance are required")
	}
	o.complete()
	h := &Hub{
		o: o, source: o.Events.Subscribe(),
		rings: rings{events: newRing(o.Window), decisions: newRing(decisionWindow)},
		fresh: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	for i := range h.wakes {
		h.wakes[i].Store(new(make(chan struct{})))
	}
	var err error
	h.metrics, err = newCounts(o.Metrics)
	return h, err
}

// Run encodes events and wakes those who listen, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	wait.Go(func() { h.read(ctx) })
	wait.Go(func() { h.dismiss(ctx) })
	h.beat(ctx)
	wait.Wait()
	return nil
}

// read puts events into the ring.
func (h *Hub) read(ctx context.Context) {
	defer h.source.Close()
	for {
		e, _, err := h.source.Next(ctx)
		if err != nil {
			return
		}
		h.rings.putEvent(h.frameOf(&e))
		h.nudge()
	}
}

// dismiss wakes all streams at once, whatever the pace, when some of them may
// have to end: a key that was revoked must not hear anything more.
func (h *Hub) dismiss(ctx context.Context) {
	for {
		changed := h.o.Guard.Changed()
		for i := range h.wakes { // also for what changed before Changed was called
			h.wake(i)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// wake has the streams of a turn look.
func (h *Hub) wake(turn int) { close(*h.wakes[turn].Swap(new(make(chan struct{})))) }

// nudge has all streams look soon.
func (h *Hub) nudge() {
	select {
	case h.fresh <- struct{}{}:
	default:
	}
}

// The pace of wakes. Waking all for each event would cost a system call for each
// of them: the more there are, the more is sent at once. Many are woken in
// turns, so that those who decide do not wait behind all of them.
const (
	turns         = 16
	pacePerStream = 30 * time.Microsecond
	maxPace       = 600 * time.Millisecond
	followEvery   = 100 * time.Millisecond // decisions are looked for
)

// beat wakes the streams: when there is something new, and now and then so that
// they look at the clock.
func (h *Hub) beat(ctx context.Context) {
	timer := time.NewTimer(h.o.Timing.Beat)
	defer timer.Stop()
	sleep := func(d time.Duration) bool {
		timer.Reset(d)
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		}
	}
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
		case <-h.fresh:
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
			if !sleep(pace / time.Duration(steps)) {
				return
			}
		}
	}
}

// takeTurn gives a stream one of the wakes.
func (h *Hub) takeTurn() *atomic.Pointer[chan struct{}] { return &h.wakes[h.turn.Add(1)%turns] }

// enter counts a stream in; leave must follow. It refuses when there are too
// many, and once the service stops.
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
	h.active.Add(1)
	begin := time.Now()
	h.metrics.open[transport].Inc()
	return func() {
		h.metrics.open[transport].Dec()
		h.metrics.seconds[transport].Observe(time.Since(begin).Seconds())
		h.active.Done()
		h.streams.Add(-1)
	}, nil
}

// Shutdown says goodbye to all who listen and waits until they are gone, or
// until ctx ends.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.stop)
	}
	h.mu.Unlock()
	if h.streams.Load() == 0 {
		return nil
	}
	gone := make(chan struct{})
	go func() { h.active.Wait(); close(gone) }()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return errors.New("streams were still open: " + ctx.Err().Error())
	}
}

// unlimited takes the deadlines of a request off its connection: a stream has
// none as a whole, and one for each write.
func unlimited(w http.ResponseWriter) *http.ResponseController {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{})
	return c
}

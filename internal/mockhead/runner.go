package mockhead

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"headway/internal/engine"
)

// maxLag bounds how far a runner catches up after the machine stalled: steps
// that are further behind are not played faster to make up for it.
const maxLag = 50 * time.Millisecond

// errStopped says that the head went away under a request.
var errStopped = errors.New("the head has stopped")

// runner plays an engine in real time.
type runner struct {
	speed    float64
	interval int // tokens between notices to a stream
	wake     chan struct{}
	stopped  chan struct{} // closed when run has returned

	mu      sync.Mutex
	engine  *engine.Engine
	streams map[*engine.Sequence]*stream
	meter   meter
	dead    bool
}

// stream is one request's side of the engine. Tokens are a count, so a slow
// reader holds up nobody and buffers nothing.
type stream struct {
	sequence *engine.Sequence
	notice   chan struct{} // holds one when there is something new

	// Under the runner's mutex.
	done bool
	err  error
}

// progress is what a stream's reader sees.
type progress struct {
	generated int
	cached    int
	done      bool
}

func newRunner(e *engine.Engine, speed float64, interval int) *runner {
	return &runner{
		speed: speed, interval: interval, engine: e,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
		streams: make(map[*engine.Sequence]*stream),
	}
}

// run steps the engine until ctx ends, then fails the streams that are open.
func (r *runner) run(ctx context.Context) {
	defer close(r.stopped)
	defer r.fail()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	var due time.Time
	for {
		r.mu.Lock()
		virtual, ok := r.engine.Begin()
		r.mu.Unlock()
		if !ok {
			select {
			case <-r.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		took := time.Duration(float64(virtual) / r.speed)
		now := time.Now()
		if now.Sub(due) > maxLag {
			due = now
		}
		due = due.Add(took)
		timer.Reset(due.Sub(now))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		r.finish(took)
	}
}

// finish ends the step under way and tells the streams.
func (r *runner) finish(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.engine.End() {
		s := r.streams[t.Sequence]
		s.done = t.Last
		if t.Last {
			delete(r.streams, t.Sequence)
		}
		if t.First || t.Last || t.Sequence.Generated()%r.interval == 0 {
			s.tell()
		}
	}
	r.meter.add(time.Now(), took, r.engine.Counters().ComputedTokens)
}

func (s *stream) tell() {
	select {
	case s.notice <- struct{}{}:
	default:
	}
}

func (r *runner) fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = true
	for _, s := range r.streams {
		s.err = errStopped
		s.tell()
	}
	clear(r.streams)
}

// submit queues a request, or fails as [engine.Engine.Submit] does or with
// errStopped.
func (r *runner) submit(req engine.Request) (*stream, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead {
		return nil, errStopped
	}
	seq, err := r.engine.Submit(req)
	if err != nil {
		return nil, err
	}
	s := &stream{sequence: seq, notice: make(chan struct{}, 1)}
	r.streams[seq] = s
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return s, nil
}

// next waits until the stream has more than seen tokens or is done. When ctx
// ends first the sequence is freed.
func (r *runner) next(ctx context.Context, s *stream) (progress, error) {
	select {
	case <-s.notice:
	case <-ctx.Done():
		r.cancel(s)
		return progress{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return progress{generated: s.sequence.Generated(), cached: s.sequence.Cached(), done: s.done}, s.err
}

// cancel frees the stream's sequence, if it is still there.
func (r *runner) cancel(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, s.sequence)
	r.engine.Cancel(s.sequence)
}

// Load is what a head says of its work. Times are the clock's on the wall, so
// at speed 10 a head computes ten times its profile's tokens a second.
type Load struct {
	engine.Load
	TokensPerSecond float64 // computed, prompt and output
	Utilization     float64 // share of recent time in which a step ran, 0..1
}

func (r *runner) load() (Load, engine.Counters) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := Load{Load: r.engine.Load()}
	l.TokensPerSecond, l.Utilization = r.meter.rates(time.Now())
	return l, r.engine.Counters()
}

// meterWindow is the time constant of the averages that a head reports.
const meterWindow = 2 * time.Second

// meter averages tokens and busy time, weighted by an exponential decay.
type meter struct {
	started, last time.Time
	tokens, busy  float64 // decayed sums; busy in seconds
	total         uint64  // tokens at the last add
}

// add counts a step that ended at now after took; total is the number of
// tokens computed since the beginning.
func (m *meter) add(now time.Time, took time.Duration, total uint64) {
	if m.started.IsZero() {
		m.started, m.last = now.Add(-took), now
	}
	m.decay(now)
	m.tokens += float64(total - m.total)
	m.busy += took.Seconds()
	m.total = total
}

func (m *meter) decay(now time.Time) {
	f := math.Exp(-now.Sub(m.last).Seconds() / meterWindow.Seconds())
	m.tokens *= f
	m.busy *= f
	m.last = now
}

// rates are the averages at now. Right after the start they cover what there
// is, not a window that is mostly empty.
func (m *meter) rates(now time.Time) (tokensPerSecond, utilization float64) {
	if m.started.IsZero() {
		return 0, 0
	}
	m.decay(now)
	window := meterWindow.Seconds()
	weight := window * (1 - math.Exp(-now.Sub(m.started).Seconds()/window))
	if weight <= 0 {
		return 0, 0
	}
	return m.tokens / weight, min(1, m.busy/weight)
}

package mockhead

import (
	"context"
	"errors"
	"sync"
	"time"

	"headway/internal/engine"
)

// maxLag bounds how far a runner catches up after a stall. The rest is dropped
// from the engine's clock.
const maxLag = 50 * time.Millisecond

// errStopped reports that the head stopped during a request.
var errStopped = errors.New("the head has stopped")

// runner plays an engine in real time.
type runner struct {
	speed    float64
	interval int // tokens between notices to a stream
	wake     chan struct{}

	mu      sync.Mutex
	engine  *engine.Engine
	origin  time.Time // time 0 of the engine
	streams map[*engine.Sequence]*stream
	dead    bool
}

// stream is one request. Tokens are a count, so a slow reader delays no other
// and buffers nothing.
type stream struct {
	sequence *engine.Sequence
	notice   chan struct{} // holds one when there is something new

	// Guarded by the runner's mutex.
	progress progress
	err      error
}

type progress struct {
	generated int
	cached    int
	done      bool
}

func newRunner(e *engine.Engine, speed float64, interval int) *runner {
	return &runner{
		speed: speed, interval: interval, engine: e, origin: time.Now(),
		wake: make(chan struct{}, 1), streams: make(map[*engine.Sequence]*stream),
	}
}

// run plays the engine until ctx ends, then fails open streams.
func (r *runner) run(ctx context.Context) {
	defer r.fail()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r.mu.Lock()
		r.advance()
		next, busy := r.engine.Next()
		due := r.wall(next)
		r.mu.Unlock()
		var over <-chan time.Time
		if busy {
			timer.Reset(time.Until(due))
			over = timer.C
		}
		select {
		case <-over:
		case <-r.wake:
		case <-ctx.Done():
			return
		}
	}
}

// wall is the wall time of an engine time, rounded up so that a timer does not
// fire early. The caller holds the mutex.
func (r *runner) wall(at time.Duration) time.Time {
	return r.origin.Add(time.Duration(float64(at)/r.speed) + 1)
}

// advance plays the engine up to the present, notifies streams with new tokens
// and returns the engine's time. The caller holds the mutex.
func (r *runner) advance() time.Duration {
	present := time.Now()
	if next, busy := r.engine.Next(); busy {
		if lag := present.Sub(r.wall(next)); lag > maxLag {
			r.origin = r.origin.Add(lag)
		}
	}
	now := time.Duration(float64(present.Sub(r.origin)) * r.speed)
	for _, t := range r.engine.Advance(now) {
		s := r.streams[t.Sequence]
		s.progress = progress{generated: t.N, cached: t.Sequence.Cached(), done: t.Last}
		if t.Last {
			delete(r.streams, t.Sequence)
		}
		if t.N == 1 || t.Last || t.N%r.interval == 0 {
			s.notify()
		}
	}
	return now
}

func (s *stream) notify() {
	select {
	case s.notice <- struct{}{}:
	default:
	}
}

func (r *runner) fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = true
	now := r.advance()
	for _, s := range r.streams {
		r.engine.Cancel(now, s.sequence)
		s.err = errStopped
		s.notify()
	}
	clear(r.streams)
}

// submit queues a request. Errors are those of [engine.Engine.Submit] or
// errStopped.
func (r *runner) submit(req engine.Request) (*stream, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead {
		return nil, errStopped
	}
	seq, err := r.engine.Submit(r.advance(), req)
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

// next waits for more tokens or the end. If ctx ends first, the caller frees the
// sequence with cancel.
func (r *runner) next(ctx context.Context, s *stream) (progress, error) {
	select {
	case <-s.notice:
	case <-ctx.Done():
		return progress{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.progress, s.err
}

func (r *runner) cancel(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.engine.Cancel(r.advance(), s.sequence)
	delete(r.streams, s.sequence)
}

// load is the current work. Its rates are per wall second, so they grow with
// the speed.
func (r *runner) load() (engine.Load, engine.Counters) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.engine.Load(r.advance())
	l.TokensPerSecond *= r.speed
	return l, r.engine.Counters()
}

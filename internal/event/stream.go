// Package event carries what happens to whoever wants to know. The stream is
// lossy by design: a publisher never waits, and a reader that is too slow
// loses the oldest events and is told how many. Metrics and the audit trail
// are therefore never fed from it.
package event

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The types of events.
const (
	HeadRegistered = "head.registered" // a new id, or a known one with a new epoch
	HeadChanged    = "head.changed"    // status, health or what the operator set
	HeadExpired    = "head.expired"    // the lease ran out: not routable any more
	HeadRecovered  = "head.recovered"  // an expired or held head reported again
	HeadHeld       = "head.held"       // would have expired, but the mass-expiry guard keeps it
	HeadRemoved    = "head.removed"    // deregistered, or silent for too long
	GuardTripped   = "fleet.guard_tripped"
	GuardReleased  = "fleet.guard_released"
	PolicyChanged  = "policy.changed"
)

// Types lists every type of event.
func Types() []string {
	return []string{
		HeadRegistered, HeadChanged, HeadExpired, HeadRecovered, HeadHeld, HeadRemoved,
		GuardTripped, GuardReleased, PolicyChanged,
	}
}

// Event is one thing that happened. It is immutable once published.
type Event struct {
	ID         uint64 // numbers the events of this process from 1
	Type       string
	Time       time.Time
	Head       string // id, "" when no head is concerned
	Region     string
	ModelTypes []string
	Data       any // a plain struct that subscribers marshal, or nil
}

// Options are what a Stream is made of.
type Options struct {
	Window  int                   // events kept for slow readers; 0: DefaultWindow
	Metrics prometheus.Registerer // required
}

// DefaultWindow is how many events a reader may lie behind.
const DefaultWindow = 4096

// Stream is a bounded ring of events that any number of subscribers read at
// their own pace. It is safe for concurrent use.
type Stream struct {
	published map[string]prometheus.Counter
	lost      prometheus.Counter

	mu     sync.Mutex
	ring   []Event       // the event with ID n stands at n % len
	last   uint64        // ID of the newest event
	wake   chan struct{} // closed when an event is published
	asleep bool          // somebody waits for wake
}

// New makes a stream without events.
func New(o Options) (*Stream, error) {
	if o.Metrics == nil || o.Window < 0 {
		return nil, errors.New("event: Metrics is required and Window must not be negative")
	}
	if o.Window == 0 {
		o.Window = DefaultWindow
	}
	s := &Stream{
		published: map[string]prometheus.Counter{}, ring: make([]Event, o.Window), wake: make(chan struct{}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_events_lost_total", Help: "Events that subscribers missed because they were too slow.",
		}),
	}
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_events_published_total", Help: "Events published on the internal stream, by type.",
	}, []string{"type"})
	for _, t := range Types() {
		s.published[t] = vec.WithLabelValues(t)
	}
	return s, errors.Join(o.Metrics.Register(vec), o.Metrics.Register(s.lost))
}

// Publish numbers e and offers it to the subscribers. It never blocks on one.
// e.Type must be one of Types.
func (s *Stream) Publish(e Event) {
	s.published[e.Type].Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	e.ID = s.last
	s.ring[e.ID%uint64(len(s.ring))] = e
	if s.asleep {
		close(s.wake)
		s.wake, s.asleep = make(chan struct{}), false
	}
}

// Subscription is one reader's place in the stream. One goroutine uses it.
type Subscription struct {
	stream *Stream
	types  []string
	next   uint64 // ID of the next event to read
}

// Subscribe starts reading with the next event that is published, all types or
// only the given ones. A subscription holds nothing that has to be given back.
func (s *Stream) Subscribe(types ...string) *Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Subscription{stream: s, types: types, next: s.last + 1}
}

// Next waits for the next event. lost is the number of events of any type that
// were overwritten since the last call because the reader was too slow; it
// should look at the whole again then. The error is ctx's.
func (sub *Subscription) Next(ctx context.Context) (e Event, lost uint64, err error) {
	s := sub.stream
	for {
		s.mu.Lock()
		if kept := uint64(len(s.ring)); s.last >= kept && sub.next <= s.last-kept {
			lost += s.last - kept + 1 - sub.next
			sub.next = s.last - kept + 1
		}
		for ; sub.next <= s.last; sub.next++ {
			e = s.ring[sub.next%uint64(len(s.ring))]
			if len(sub.types) == 0 || slices.Contains(sub.types, e.Type) {
				sub.next++
				s.mu.Unlock()
				s.lost.Add(float64(lost))
				return e, lost, nil
			}
		}
		wake := s.wake
		s.asleep = true
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return Event{}, lost, ctx.Err()
		case <-wake:
		}
	}
}

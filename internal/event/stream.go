// Package event is the stream of what happens in the service. It is lossy by
// design: a publisher never waits, and a slow reader loses the oldest events
// and learns how many. Metrics and the audit trail never depend on it.
package event

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The types of events.
const (
	HeadRegistered = "head.registered" // a new id, or a known one with a new epoch
	HeadChanged    = "head.changed"    // status, health or what the operator set
	HeadExpired    = "head.expired"    // the lease ran out: not routable any more
	HeadRecovered  = "head.recovered"  // an expired or held head reported again
	HeadHeld       = "head.held"       // would have expired, but the mass-expiry guard keeps it
	HeadEjected    = "head.ejected"    // out of rotation for a time, since requests there failed
	HeadReinstated = "head.reinstated" // its ejection ended
	HeadContested  = "head.contested"  // two endpoints register its id
	HeadRemoved    = "head.removed"    // deregistered, or silent for too long
	HeadRoutable   = "head.routable"   // takes new requests from now on
	HeadUnroutable = "head.unroutable" // takes no new requests, for any reason
	PoolExhausted  = "pool.exhausted"  // no head of a model type, or of one in a region, takes requests
	PoolAvailable  = "pool.available"  // one does again, or for the first time
	GuardTripped   = "fleet.guard_tripped"
	GuardReleased  = "fleet.guard_released"
	PolicyChanged  = "policy.changed"
	AlertFiring    = "alert.firing"   // of the monitor
	AlertResolved  = "alert.resolved" // it fires no more
)

// Types lists every type of event.
func Types() []string {
	return []string{
		HeadRegistered, HeadChanged, HeadExpired, HeadRecovered, HeadHeld, HeadEjected, HeadReinstated, HeadContested, HeadRemoved,
		HeadRoutable, HeadUnroutable, PoolExhausted, PoolAvailable,
		GuardTripped, GuardReleased, PolicyChanged, AlertFiring, AlertResolved,
	}
}

// Matches reports whether a type equals a pattern, or has its prefix before
// ".*".
func Matches(pattern, kind string) bool {
	if begin, wild := strings.CutSuffix(pattern, "*"); wild {
		return strings.HasPrefix(kind, begin) && (begin == "" || strings.HasSuffix(begin, "."))
	}
	return pattern == kind
}

// otherType labels events of unknown type, to bound the metric's series.
const otherType = "other"

// Event is one thing that happened. It is immutable once published.
type Event struct {
	ID         uint64 // numbers the events of this process from 1
	Type       string // one of Types
	Time       time.Time
	Head       string // id, "" when no head is concerned
	Endpoint   string // of the head; for parts of the service, not sent
	Region     string
	ModelTypes []string
	Data       any // a plain struct that subscribers marshal, or nil
}

// Window is how many events a reader may lie behind.
const Window = 4096

// Stream is a bounded ring of events that subscribers read at their own pace.
// It is safe for concurrent use. Readers share no lock with publishers except
// to wait, so that none delays a publisher.
type Stream struct {
	published map[string]prometheus.Counter
	lost      prometheus.Counter
	ring      [Window]atomic.Pointer[Event] // the event with ID n stands at n % Window
	last      atomic.Uint64                 // ID of the newest event

	mu     sync.Mutex    // orders publishers
	wake   chan struct{} // closed when an event is published
	asleep bool          // a reader waits for wake
}

// New makes a stream without events.
func New(metrics prometheus.Registerer) *Stream {
	with := promauto.With(metrics)
	s := &Stream{
		published: map[string]prometheus.Counter{}, wake: make(chan struct{}),
		lost: with.NewCounter(prometheus.CounterOpts{
			Name: "headway_events_lost_total", Help: "Events that subscribers missed because they were too slow.",
		}),
	}
	vec := with.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_events_published_total", Help: "Events published on the internal stream, by type.",
	}, []string{"type"})
	for _, t := range append(Types(), otherType) {
		s.published[t] = vec.WithLabelValues(t)
	}
	return s
}

// Publish numbers e and offers it to subscribers without waiting.
func (s *Stream) Publish(e Event) {
	count := s.published[e.Type]
	if count == nil {
		count = s.published[otherType]
	}
	count.Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	e.ID = s.last.Load() + 1
	s.ring[e.ID%Window].Store(&e)
	s.last.Store(e.ID)
	if s.asleep {
		close(s.wake)
		s.wake, s.asleep = make(chan struct{}), false
	}
}

// Last is the ID of the newest event, 0 before the first.
func (s *Stream) Last() uint64 { return s.last.Load() }

// Subscription is one reader's position in the stream. One goroutine reads.
type Subscription struct {
	stream *Stream
	next   uint64 // ID of the next event to read
}

// Subscribe starts with the next published event. There is nothing to close.
func (s *Stream) Subscribe() *Subscription {
	return &Subscription{stream: s, next: s.last.Load() + 1}
}

// Last is the ID of the event before the next one to read.
func (sub *Subscription) Last() uint64 { return sub.next - 1 }

// Next waits for the next event. lost counts the events that were overwritten
// before it; the reader should then take a snapshot. The error is ctx's.
func (sub *Subscription) Next(ctx context.Context) (e Event, lost uint64, err error) {
	s := sub.stream
	for {
		for last := s.last.Load(); sub.next <= last; last = s.last.Load() {
			if last >= Window && sub.next <= last-Window {
				lost += last - Window + 1 - sub.next
				sub.next = last - Window + 1
			}
			if found := s.ring[sub.next%Window].Load(); found.ID == sub.next { // else it was overwritten since last was read
				sub.next++
				s.lost.Add(float64(lost))
				return *found, lost, nil
			}
		}
		if wake := s.sleep(sub.next); wake != nil {
			select {
			case <-ctx.Done():
				return Event{}, 0, ctx.Err()
			case <-wake:
			}
		}
	}
}

// sleep returns a channel that is closed when event next exists, nil if it
// does.
func (s *Stream) sleep(next uint64) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last.Load() >= next {
		return nil
	}
	s.asleep = true
	return s.wake
}

package event_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"headway/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStream() (*event.Stream, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	return event.New(reg), reg
}

// counter is a counter's value, the sum over its series.
func counter(t *testing.T, reg *prometheus.Registry, name string) (sum float64, series int) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
			return sum, len(f.GetMetric())
		}
	}
	t.Fatalf("no metric %s", name)
	return 0, 0
}

func TestSubscribersReadEverythingInOrder(t *testing.T) {
	s, _ := newStream()
	var wait sync.WaitGroup
	for range 4 {
		sub := s.Subscribe()
		wait.Go(func() {
			for want := uint64(1); want <= 100; want++ {
				e, lost, err := sub.Next(t.Context())
				if e.ID != want || lost != 0 || err != nil {
					t.Errorf("event %d, lost %d, %v; want event %d", e.ID, lost, err, want)
					return
				}
			}
		})
	}
	for range 100 {
		s.Publish(event.Event{Type: event.HeadChanged})
	}
	wait.Wait()
}

func TestASubscriptionBeginsWithTheNextEvent(t *testing.T) {
	s, _ := newStream()
	s.Publish(event.Event{Type: event.HeadChanged})
	sub := s.Subscribe()
	s.Publish(event.Event{Type: event.HeadChanged})
	if e, lost, err := sub.Next(t.Context()); e.ID != 2 || lost != 0 || err != nil {
		t.Errorf("event %d, lost %d, %v; want event 2", e.ID, lost, err)
	}
}

func TestASlowReaderLearnsHowManyItLost(t *testing.T) {
	s, reg := newStream()
	sub := s.Subscribe()
	for range event.Window + 12 {
		s.Publish(event.Event{Type: event.HeadChanged})
	}
	e, lost, err := sub.Next(t.Context())
	if e.ID != 13 || lost != 12 || err != nil {
		t.Errorf("event %d, lost %d, %v; want the oldest kept, 13, and 12 lost", e.ID, lost, err)
	}
	if e, lost, _ = sub.Next(t.Context()); e.ID != 14 || lost != 0 {
		t.Errorf("then event %d, lost %d; want 14, 0", e.ID, lost)
	}
	if n, _ := counter(t, reg, "headway_events_lost_total"); n != 12 {
		t.Errorf("%v lost events counted; want 12", n)
	}
}

func TestNextWaitsAndEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStream()
		sub := s.Subscribe()
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error)
		go func() {
			_, _, err := sub.Next(ctx)
			got <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

// At any pace, what each reader read and the number it lost
// add up to what was published, in order.
func TestReadAndLostAddUp(t *testing.T) {
	const events, publishers = 200_000, 4
	s, _ := newStream()
	var wait sync.WaitGroup
	for range 3 {
		sub := s.Subscribe()
		wait.Go(func() {
			var read, missed, last uint64
			for read+missed < events {
				e, lost, err := sub.Next(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				read++
				if missed += lost; e.ID != last+lost+1 {
					t.Errorf("event %d after %d with %d lost", e.ID, last, lost)
					return
				}
				last = e.ID
			}
			if read+missed != events {
				t.Errorf("%d read and %d lost of %d", read, missed, events)
			}
		})
	}
	for range publishers {
		wait.Go(func() {
			for range events / publishers {
				s.Publish(event.Event{Type: event.HeadChanged})
			}
		})
	}
	wait.Wait()
}

func TestEveryTypeIsCountedFromTheStartAndNoOtherAddsASeries(t *testing.T) {
	s, reg := newStream()
	for i := range 100 {
		s.Publish(event.Event{Type: fmt.Sprintf("x.%d", i)})
	}
	sum, series := counter(t, reg, "headway_events_published_total")
	if want := len(event.Types()) + 1; sum != 100 || series != want {
		t.Errorf("%v events in %d series; want 100 in %d", sum, series, want)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, readers := range []int{0, 1, 10} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			s, _ := newStream()
			var wait sync.WaitGroup
			ctx, cancel := context.WithCancel(b.Context())
			for range readers {
				sub := s.Subscribe()
				wait.Go(func() {
					for {
						if _, _, err := sub.Next(ctx); err != nil {
							return
						}
					}
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Publish(event.Event{Type: event.HeadChanged})
			}
			cancel()
			wait.Wait()
		})
	}
}

func TestPatternsMatchTypes(t *testing.T) {
	for _, c := range []struct {
		pattern, kind string
		want          bool
	}{
		{"head.expired", "head.expired", true},
		{"head.expired", "head.expired.x", false},
		{"head.*", "head.expired", true},
		{"*", "head.expired", true},
		{"head*", "head.expired", false},
		{"he*", "head.expired", false},
		{"", "head.expired", false},
		{"policy.*", "head.expired", false},
		{"head.", "head.expired", false},
	} {
		if got := event.Matches(c.pattern, c.kind); got != c.want {
			t.Errorf("%q of %q: %v", c.pattern, c.kind, got)
		}
	}
}

// A reader may lie as many events behind as the window has, and loses none of
// them.
func TestTheWindow(t *testing.T) {
	s, reg := newStream()
	sub := s.Subscribe()
	for range event.Window {
		s.Publish(event.Event{Type: event.HeadChanged})
	}
	if e, lost, err := sub.Next(t.Context()); e.ID != 1 || lost != 0 || err != nil {
		t.Errorf("event %d, lost %d, %v; want the first", e.ID, lost, err)
	}
	s.Publish(event.Event{Type: event.HeadChanged})
	s.Publish(event.Event{Type: event.HeadChanged})
	if e, lost, err := sub.Next(t.Context()); e.ID != 3 || lost != 1 || err != nil {
		t.Errorf("then event %d, lost %d, %v; want the third", e.ID, lost, err)
	}
	if n, _ := counter(t, reg, "headway_events_lost_total"); n != 1 {
		t.Errorf("%v lost events counted", n)
	}
}

// A reader that has waited is woken by each event.
func TestAReaderIsWokenByEachEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStream()
		sub := s.Subscribe()
		got := make(chan uint64)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(got)
			for {
				e, _, err := sub.Next(ctx)
				if err != nil {
					return
				}
				got <- e.ID
			}
		}()
		for want := uint64(1); want <= 20; want++ {
			synctest.Wait()
			s.Publish(event.Event{Type: event.HeadChanged})
			if id := <-got; id != want {
				t.Errorf("event %d; want %d", id, want)
			}
		}
		synctest.Wait()
		cancel()
		if id, more := <-got; more {
			t.Errorf("event %d after the end", id)
		}
	})
}

func TestTheManualListsEveryEvent(t *testing.T) {
	source, err1 := os.ReadFile("stream.go")
	manual, err2 := os.ReadFile("../../docs/realtime.md")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	constants := regexp.MustCompile(`(?m)^\t[A-Z]\w+ += "(\w+\.\w+)"`).FindAllSubmatch(source, -1)
	if len(constants) != len(event.Types()) {
		t.Errorf("stream.go has %d types of events, Types %d", len(constants), len(event.Types()))
	}
	for _, kind := range event.Types() {
		if !bytes.Contains(manual, []byte("`"+kind+"`")) {
			t.Errorf("docs/realtime.md does not list %s", kind)
		}
	}
}

package event_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/event"
)

func newStream(t *testing.T, window int) *event.Stream {
	t.Helper()
	s, err := event.New(event.Options{Window: window, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSubscribersReadEverythingInOrder(t *testing.T) {
	s := newStream(t, 100)
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

func TestASlowReaderIsToldHowManyItLost(t *testing.T) {
	s := newStream(t, 8)
	sub := s.Subscribe()
	for range 20 {
		s.Publish(event.Event{Type: event.HeadChanged})
	}
	e, lost, err := sub.Next(t.Context())
	if e.ID != 13 || lost != 12 || err != nil {
		t.Errorf("event %d, lost %d, %v; want the oldest kept, 13, and 12 lost", e.ID, lost, err)
	}
	if e, lost, _ = sub.Next(t.Context()); e.ID != 14 || lost != 0 {
		t.Errorf("then event %d, lost %d; want 14, 0", e.ID, lost)
	}
}

func TestASubscriptionToTypesSkipsTheOthers(t *testing.T) {
	s := newStream(t, 8)
	sub := s.Subscribe(event.PolicyChanged)
	s.Publish(event.Event{Type: event.HeadChanged})
	s.Publish(event.Event{Type: event.PolicyChanged})
	if e, _, _ := sub.Next(t.Context()); e.Type != event.PolicyChanged {
		t.Errorf("got %s", e.Type)
	}
}

func TestNextWaitsAndEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(t, 8)
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

func BenchmarkPublish(b *testing.B) {
	s, err := event.New(event.Options{Metrics: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.Publish(event.Event{Type: event.HeadChanged})
	}
}

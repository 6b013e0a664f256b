package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// All parts may fail at once, before or while the service stops: none hangs,
// and every failure is returned.
func TestAllPartsMayFailAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		r := newRunning()
		for range 50 {
			r.start(ctx, func(ctx context.Context) error { <-ctx.Done(); return errors.New("broken at the stop") })
			r.start(ctx, func(ctx context.Context) error { <-ctx.Done(); return nil })
		}
		synctest.Wait()
		select {
		case <-r.failed:
			t.Error("something failed")
		default:
		}
		stop()
		err := r.wait()
		<-r.failed
		if n := strings.Count(err.Error(), "broken at the stop"); n != 50 {
			t.Errorf("%d of 50 failures are returned", n)
		}
	})
}

// The first failure is noticed while the other parts run.
func TestTheFirstFailureIsNoticed(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	r := newRunning()
	r.start(ctx, func(ctx context.Context) error { <-ctx.Done(); return nil })
	first := errors.New("first")
	r.start(ctx, func(context.Context) error { return first })
	<-r.failed
	stop()
	if err := r.wait(); !errors.Is(err, first) {
		t.Errorf("returned %v", err)
	}
}

// Each part is stopped, the last one first, and a failure names its part.
func TestPartsStopInReverse(t *testing.T) {
	a := &App{log: slog.New(slog.DiscardHandler)}
	var stopped []string
	for _, part := range []string{"first", "second", "third"} {
		a.onStop(part, func() error {
			stopped = append(stopped, part)
			if part == "second" {
				return errors.New("broken")
			}
			return nil
		})
	}
	err := a.close()
	if want := []string{"third", "second", "first"}; !slices.Equal(stopped, want) {
		t.Errorf("stopped %v, want %v", stopped, want)
	}
	if err == nil || err.Error() != "stop the second: broken" {
		t.Errorf("the failure is %v", err)
	}
}

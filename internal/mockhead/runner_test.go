package mockhead

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/engine"
)

// play runs a head's engine at ten times its speed, in a bubble.
func play(t *testing.T, test func(t *testing.T, r *runner, e *engine.Engine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e, err := engine.New(engine.Options{
			Profile: engine.ProfileForModel("llama-3.1-8b"), MaxWaiting: 10, Window: 20 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		r := newRunner(e, 10, 1)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.run(ctx)
		}()
		test(t, r, e)
		stop()
		<-ended
	})
}

// wait reads a stream to its end.
func wait(t *testing.T, r *runner, s *stream) {
	t.Helper()
	for {
		p, err := r.next(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if p.done {
			return
		}
	}
}

func TestAHeadIsAsFastAsItsSpeed(t *testing.T) {
	play(t, func(t *testing.T, r *runner, e *engine.Engine) {
		const prompt = 8192 // one step's worth
		start := time.Now()
		for range 20 {
			s, err := r.submit(engine.Request{PromptTokens: prompt, OutputTokens: 1})
			if err != nil {
				t.Fatal(err)
			}
			wait(t, r, s)
		}
		took := time.Since(start)
		r.mu.Lock()
		virtual, _ := e.Next()
		r.mu.Unlock()
		if ratio := virtual.Seconds() / took.Seconds(); !(math.Abs(ratio/10-1) <= 0.01) {
			t.Errorf("%v of a real head took %v, want a tenth", virtual, took)
		}
		load, _ := r.load()
		if want := 20 * prompt / took.Seconds(); !(math.Abs(load.TokensPerSecond/want-1) <= 0.05) || load.Utilization < 0.95 {
			t.Errorf("reported %.0f tokens a second and %.2f busy, want %.0f and 1", load.TokensPerSecond, load.Utilization, want)
		}
	})
}

// After the machine stalled, the steps that are left take their time.
func TestAStallIsNotMadeUp(t *testing.T) {
	play(t, func(t *testing.T, r *runner, _ *engine.Engine) {
		s, err := r.submit(engine.Request{PromptTokens: 100, OutputTokens: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.next(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		r.origin = r.origin.Add(-time.Minute) // all steps are overdue
		r.mu.Unlock()
		p, err := r.next(t.Context(), s)
		if err != nil || p.done || p.generated > 5 {
			t.Errorf("right after a stall: %+v, %v; want a token or two more", p, err)
		}
		wait(t, r, s)
	})
}

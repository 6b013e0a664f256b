package demo

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hung is a router that takes requests and never answers.
type hung struct{ open, most atomic.Int64 }

func (h *hung) RoundTrip(r *http.Request) (*http.Response, error) {
	h.most.Store(max(h.most.Load(), h.open.Add(1)))
	defer h.open.Add(-1)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

const trace = `TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
`

// withTraffic plays ten requests a second at a router in virtual time.
func withTraffic(t *testing.T, limit int, router http.RoundTripper, test func(s *stats, stop, giveUp func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := Options{Server: "http://router.example", Logger: slog.New(slog.DiscardHandler)}
		service := &http.Client{Transport: router}
		_, c, err := o.connect(service)
		if err != nil {
			t.Fatal(err)
		}
		s := newStats(time.Now())
		g := &traffic{
			router: c, service: service, url: o.Server, stats: s,
			work:  newWork(t, trace),
			slots: make(chan struct{}, limit),
		}
		ctx, stop := context.WithCancel(t.Context())
		patience, giveUp := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			g.run(ctx, patience)
		}()
		test(s, stop, giveUp)
		stop()
		giveUp()
		<-ended
		if len(g.slots) != 0 {
			t.Errorf("%d slots are still taken", len(g.slots))
		}
	})
}

func TestRequestsBeyondTheLimitAreCountedNotSent(t *testing.T) {
	var h hung
	withTraffic(t, 2, &h, func(s *stats, _, _ func()) {
		time.Sleep(4 * time.Second)
		synctest.Wait()
		p := s.picture(time.Now())
		if h.most.Load() != 2 || len(p.fails) != 1 || p.fails[0].name != failCrowded || p.fails[0].n < 30 {
			t.Errorf("%d at once, failures %v; want 2 and about 38 that were not sent", h.most.Load(), p.fails)
		}
	})
}

func TestAHungRouterTimesOut(t *testing.T) {
	var h hung
	withTraffic(t, 10_000, &h, func(s *stats, _, _ func()) {
		time.Sleep(answerTimeout + time.Second + 50*time.Millisecond)
		synctest.Wait()
		p := s.picture(time.Now())
		if len(p.fails) != 1 || p.fails[0].name != failTimeout || p.fails[0].n < 9 || p.fails[0].n > 13 {
			t.Errorf("failures %v, want about 11 that timed out", p.fails)
		}
	})
}

func TestTheEndWaitsForWhatIsInFlightUntilItGivesUp(t *testing.T) {
	var h hung
	withTraffic(t, 100, &h, func(s *stats, stop, giveUp func()) {
		time.Sleep(time.Second)
		stop()
		synctest.Wait()
		if h.open.Load() == 0 {
			t.Error("the end cut what was in flight")
		}
		giveUp()
		synctest.Wait()
		p := s.picture(time.Now())
		if h.open.Load() != 0 || len(p.fails) != 1 || p.fails[0].name != failStopped {
			t.Errorf("%d still in flight, failures %v; want none, and %q", h.open.Load(), p.fails, failStopped)
		}
	})
}

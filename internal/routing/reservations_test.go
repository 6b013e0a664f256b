package routing_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/strict"
)

// counts reports how many requests a head has.
func (w *world) counts(id string, lease fleet.Lease, running, queued int64) {
	w.Helper()
	load := fleet.UnknownLoad()
	load.InFlight, load.Queued = running, queued
	_, err := w.fleet.Report(id, fleet.StatusReport{Epoch: lease.Epoch, Status: fleet.StatusActive, Load: load})
	check(w, err)
}

// pass lets time pass while the head reports so many requests.
func (w *world) pass(d time.Duration, id string, lease fleet.Lease, running int64) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		w.counts(id, lease, running, 0)
	}
}

// A place is not given twice while the head says that its request still runs,
// up to the longest time there is.
func TestAPlaceIsKeptWhileItsHeadSaysThatItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, registry.LeaseOptions{}, func(o *routing.Options) { o.ReservationTTL, o.MaxTTL = 16*time.Second, time.Minute })
		lease := w.head("a", "us", func(s *fleet.Spec) { s.MaxInFlight = 1 })
		first := w.decide(strategy.Request{})
		w.pass(30*time.Second, "a", lease, 1)
		if got := w.refused(strategy.Request{}); got != routing.FailAtCapacity {
			t.Errorf("after 30 s of 16 s a second request is refused as %q; want at_capacity", got)
		}
		if first.ExpiresAt().Before(time.Now()) || value(t, w.metrics, "headway_reservations_kept_total") < 5 {
			t.Errorf("it lasts until %v, kept %v times", first.ExpiresAt(), value(t, w.metrics, "headway_reservations_kept_total"))
		}
		w.pass(4*time.Second, "a", lease, 0)
		if o, ended := first.Outcome(); !ended || o.Result != routing.ResultExpired {
			t.Fatalf("4 s after the head said that nothing runs the first ended as %v, %v", o.Result, ended)
		}
		second := w.decide(strategy.Request{})
		w.pass(59*time.Second, "a", lease, 1)
		if _, ended := second.Outcome(); ended {
			t.Error("ended before the longest time")
		}
		w.pass(4*time.Second, "a", lease, 1)
		if o, _ := second.Outcome(); o.Result != routing.ResultExpired {
			t.Errorf("after the longest time it is %v", o.Result)
		}
		third := w.decide(strategy.Request{})
		w.counts("a", lease, 1, 0)
		time.Sleep(20 * time.Second) // the head falls silent
		if o, _ := third.Outcome(); o.Result != routing.ResultExpired {
			t.Errorf("of a silent head it is %v", o.Result)
		}
	})
}

func TestProgressRenewsTheReservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *routing.Options) { o.ReservationTTL = 10 * time.Second })
		lease := w.head("a", "us", nil)
		d, other := w.decide(strategy.Request{}), w.decide(strategy.Request{})
		var first time.Time
		for range 5 {
			time.Sleep(8 * time.Second)
			w.report("a", lease, fleet.StatusActive)
			check(t, w.router.FirstToken(d.ID()))
			if first.IsZero() {
				first = d.FirstTokenAt()
			}
		}
		if o, _ := other.Outcome(); o.Result != routing.ResultExpired {
			t.Errorf("one without progress ended as %v", o.Result)
		}
		if _, ended := d.Outcome(); ended || !d.ExpiresAt().Equal(time.Now().Add(10*time.Second)) || !d.FirstTokenAt().Equal(first) {
			t.Errorf("with progress: ended %v, lasts until %v, first token at %v and then %v", ended, d.ExpiresAt(), first, d.FirstTokenAt())
		}
		time.Sleep(11 * time.Second)
		if o, _ := d.Outcome(); o.Result != routing.ResultExpired {
			t.Errorf("without more progress it is %v", o.Result)
		}
		// A renewal that comes late changes nothing of what has ended.
		check(t, w.router.FirstToken(d.ID()))
		if w.router.Open() != 0 || inFlight(w) != 0 {
			t.Errorf("%d open, %d in flight", w.router.Open(), inFlight(w))
		}
	})
}

func TestARequestMayAskForAnotherTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *routing.Options) { o.ReservationTTL, o.MaxTTL = time.Minute, 10*time.Minute })
		w.head("a", "us", nil)
		long := w.decide(strategy.Request{TTL: 10 * time.Minute})
		usual := w.decide(strategy.Request{})
		short := w.decide(strategy.Request{TTL: time.Second})
		for _, ttl := range []time.Duration{-time.Second, 10*time.Minute + time.Second} {
			_, err := w.router.Decide(&strategy.Request{ModelType: "m", TTL: ttl})
			if wrong, ok := errors.AsType[*strict.InvalidError](err); !ok || wrong.Faults[0].Pointer != "/ttl_seconds" {
				t.Errorf("a time of %v: %v; want a fault of /ttl_seconds", ttl, err)
			}
		}
		for _, step := range []struct {
			after time.Duration
			ended []*routing.Decision
			open  int64
		}{
			{900 * time.Millisecond, nil, 3},
			{400 * time.Millisecond, []*routing.Decision{short}, 2},
			{58 * time.Second, nil, 2},
			{2 * time.Second, []*routing.Decision{usual}, 1},
			{8 * time.Minute, nil, 1},
			{time.Minute, []*routing.Decision{long}, 0},
		} {
			time.Sleep(step.after)
			for _, d := range step.ended {
				if o, _ := d.Outcome(); o.Result != routing.ResultExpired {
					t.Errorf("after %v more one is %v; want expired", step.after, o.Result)
				}
			}
			if got := w.router.Open(); got != step.open {
				t.Errorf("after %v more %d are open; want %d", step.after, got, step.open)
			}
		}
	})
}

// The longest time is never below that of all requests, which an older
// configuration may have set above it.
func TestTheLongestTimeIsAtLeastTheUsual(t *testing.T) {
	w := newWorld(t, func(o *routing.Options) { o.ReservationTTL = 3 * time.Hour })
	w.head("a", "us", nil)
	d := w.decide(strategy.Request{TTL: 3 * time.Hour})
	if got := d.ExpiresAt().Sub(d.At); got != 3*time.Hour {
		t.Errorf("lasts %v", got)
	}
}

// An outcome that comes after the time counts: in the record, in the metrics and
// in how well the strategy does.
func TestLateOutcomesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *routing.Options) { o.ReservationTTL = time.Second })
		w.head("a", "us", nil)
		d := w.decide(strategy.Request{})
		time.Sleep(2 * time.Second)
		for range 2 {
			check(t, w.router.Finish(d.ID(), routing.Outcome{Result: routing.ResultOK, TTFT: 250, OutputTokens: 7}))
		}
		if o, _ := d.Outcome(); o.Result != routing.ResultOK || o.OutputTokens != 7 {
			t.Errorf("recorded is %+v", o)
		}
		for result, want := range map[string]float64{"ok": 1, "expired": 1, "error": 0} {
			if got := labelled(t, w.metrics, "headway_decision_outcomes_total", "result", result); got != want {
				t.Errorf("%v outcomes are %s; want %v", got, result, want)
			}
		}
		for result, want := range map[string]float64{"ok": 1, "error": 0, "cancelled": 0} {
			if got := labelled(t, w.metrics, "headway_decision_late_outcomes_total", "result", result); got != want {
				t.Errorf("%v late outcomes are %s; want %v", got, result, want)
			}
		}
		if s := w.router.StrategyStats()[d.Strategy]; s.OK != 1 || s.Expired != 1 || s.MeanTTFT != 250 {
			t.Errorf("the strategy has %+v", s)
		}
		if inFlight(w) != 0 || w.router.Open() != 0 {
			t.Errorf("%d in flight, %d open", inFlight(w), w.router.Open())
		}
	})
}

// The mean time to the first token has no time of a whole answer in it.
func TestWholeAnswersHaveNoFirstToken(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "us", nil)
	for _, o := range []routing.Outcome{
		{TTFT: 100},
		{TTFT: 300, Duration: 900, OutputTokens: 5},
		{TTFT: 200, Duration: 200, OutputTokens: 1},
		{TTFT: 900, Whole: true},
		{TTFT: 900, Duration: 900, OutputTokens: 5},
		{TTFT: float64(fleet.Unknown)},
	} {
		o.Result = routing.ResultOK
		w.router.End(w.decide(strategy.Request{}), o)
	}
	if s := w.router.StrategyStats()["adaptive"]; s.OK != 6 || s.MeanTTFT != 200 {
		t.Errorf("%+v", s)
	}
}

package routing_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/routing"
)

// ejecting is a world with heads that report for as long as the test lasts.
func ejecting(t *testing.T, ids ...string) *world {
	t.Helper()
	w := newWorld(t, nil)
	for _, id := range ids {
		w.reporting(id, w.head(id, "us", func(s *fleet.Spec) { s.Labels = map[string]string{"name": id} }))
	}
	return w
}

func (w *world) reporting(id string, lease fleet.Lease) {
	ctx := w.Context()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(lease.HeartbeatInterval):
				_, _ = w.fleet.Report(id, fleet.StatusReport{Epoch: lease.Epoch, Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
			}
		}
	}()
}

func (w *world) healthOf(id string) string {
	w.Helper()
	v, err := w.fleet.Head(id)
	check(w, err)
	return v.Head.Health.String()
}

func TestAHeadThatFailsAtOnceDrawsFewRequests(t *testing.T) {
	for _, spec := range routing.Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := ejecting(t, "bad", "good")
				bad := 0
				for range 300 {
					d := w.decide(routing.Request{ModelType: "m", Strategy: spec.Name, SessionKey: "s"})
					o := routing.Outcome{Result: routing.ResultOK}
					if d.Head.ID == "bad" {
						bad++
						o.Result = routing.ResultError
					}
					w.router.End(d, o)
					time.Sleep(100 * time.Millisecond) // 30 s in all: one trial at 10 s, the next after 20 s more
				}
				if bad > 5+2 {
					t.Errorf("the head that fails got %d of 300 requests", bad)
				}
			})
		})
	}
}

func TestWhatIsNoFaultOfTheHeadEjectsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b")
		for _, o := range []routing.Outcome{
			{Result: routing.ResultCancelled},
			{Result: routing.ResultCancelled, StatusCode: 500},
			{Result: routing.ResultError, StatusCode: 400},
			{Result: routing.ResultError, StatusCode: 404},
			{Result: routing.ResultError, StatusCode: 429},
			{Result: routing.ResultError, StatusCode: 499},
		} {
			for range 50 {
				w.router.End(w.decide(routing.Request{ModelType: "m", Exclude: []string{"b"}}), o)
			}
		}
		for range 50 {
			w.decide(routing.Request{ModelType: "m", Exclude: []string{"b"}})
		}
		time.Sleep(3 * time.Minute) // nobody reports these
		if got := w.healthOf("a"); got != "fresh" {
			t.Errorf("a is %s", got)
		}
		for _, status := range []int64{0, 500, 200, 503, 399} {
			w.router.End(w.decide(routing.Request{ModelType: "m", Exclude: []string{"b"}}), routing.Outcome{Result: routing.ResultError, StatusCode: status})
		}
		if got := w.healthOf("a"); got != "ejected" {
			t.Errorf("after five errors a is %s", got)
		}
	})
}

// eject lets five requests at the head fail.
func (w *world) eject(id string, others ...string) {
	w.Helper()
	for range 5 {
		d := w.decide(routing.Request{ModelType: "m", Exclude: others})
		if d.Head.ID != id {
			w.Fatalf("decided for %s", d.Head.ID)
		}
		w.router.End(d, routing.Outcome{Result: routing.ResultError})
	}
	if got := w.healthOf(id); got != "ejected" {
		w.Fatalf("%s is %s", id, got)
	}
}

func TestOneDecisionIsTheTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b", "c")
		w.eject("a", "b", "c")
		for range 50 {
			d := w.decide(routing.Request{ModelType: "m"})
			if d.Head.ID == "a" || slices.Contains(ids(d), "a") {
				t.Fatalf("%s of %v while a is ejected", d.Head.ID, ids(d))
			}
			w.router.End(d, routing.Outcome{Result: routing.ResultOK})
		}
		time.Sleep(11 * time.Second)
		if d := w.decide(routing.Request{ModelType: "m", Exclude: []string{"a"}}); d.Head.ID == "a" {
			t.Fatal("the trial went to a head that the caller excludes")
		}
		trial := w.decide(routing.Request{ModelType: "m", SessionKey: "s", Strategy: "session_affinity"})
		if trial.Head.ID != "a" || !trial.Trial || len(ids(trial)) != 2 || slices.Contains(ids(trial), "a") {
			t.Fatalf("the trial is at %s, alternatives %v", trial.Head.ID, ids(trial))
		}
		if reason := string(trial.AppendReason(nil)); !strings.HasPrefix(reason, "trial request of an ejected head") {
			t.Errorf("reason %q", reason)
		}
		for range 50 {
			if d := w.decide(routing.Request{ModelType: "m", SessionKey: "s", Strategy: "session_affinity"}); d.Head.ID == "a" {
				t.Fatal("a second decision for the head under trial")
			}
		}
		w.router.End(trial, routing.Outcome{Result: routing.ResultOK})
		if got := w.healthOf("a"); got != "fresh" {
			t.Errorf("after a good trial a is %s", got)
		}
	})
}

func ids(d *routing.Decision) (list []string) {
	for _, p := range d.Alternatives() {
		list = append(list, p.Head.ID)
	}
	return list
}

func TestATrialThatIsNotReportedIsGivenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b")
		w.eject("a", "b")
		time.Sleep(11 * time.Second)
		for n := range 2 {
			d := w.decide(routing.Request{ModelType: "m"})
			if d.Head.ID != "a" {
				t.Fatalf("trial %d is at %s", n, d.Head.ID)
			}
			time.Sleep(routing.DefaultReservationTTL + time.Second)
		}
		if got := w.healthOf("a"); got != "fresh" {
			t.Errorf("after two trials without an outcome a is %s", got)
		}
	})
}

// A request that only ejected heads could serve is refused, and is their trial
// when that is due.
func TestATrialServesWhatNoOtherHeadMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b")
		w.eject("a", "b")
		wanted := routing.Request{ModelType: "m", Labels: map[string]string{"name": "a"}, Explain: true}
		if _, err := w.router.Decide(&wanted); err == nil {
			t.Fatal("an ejected head took a request")
		}
		time.Sleep(11 * time.Second)
		for range 10 {
			if d := w.decide(routing.Request{ModelType: "m", Labels: map[string]string{"name": "b"}}); d.Head.ID != "b" {
				t.Fatalf("the trial took a request for %s", d.Head.ID)
			}
		}
		d := w.decide(wanted)
		if d.Head.ID != "a" || !d.Trial || len(ids(d)) != 0 || string(d.AppendReason(nil)) == "" {
			t.Errorf("decided for %s, alternatives %v", d.Head.ID, ids(d))
		}
		if _, err := w.router.Decide(&wanted); err == nil {
			t.Error("a second request got the trial")
		}
	})
}

// Heads of other regions are tried by requests that come that far.
func TestATrialDoesNotLeadAwayFromTheRegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b")
		w.reporting("far", w.head("far", "eu", nil))
		w.reporting("near", w.head("near", "eu", nil))
		w.eject("far", "a", "b", "near")
		time.Sleep(11 * time.Second)
		for range 20 {
			if d := w.decide(routing.Request{ModelType: "m", Region: "us"}); d.Head.Region != "us" {
				t.Fatalf("decided for %s", d.Head.ID)
			}
		}
		if d := w.decide(routing.Request{ModelType: "m", Region: "eu"}); d.Head.ID != "far" {
			t.Errorf("the trial is at %s", d.Head.ID)
		}
	})
}

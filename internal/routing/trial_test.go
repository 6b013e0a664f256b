package routing_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
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

// fleets are those of which the head bad fails every request at once.
var fleets = []struct {
	name    string
	heads   map[string]string // their regions
	others  bool              // bad serves another model type too, alone
	request strategy.Request
}{
	{"two of one region", map[string]string{"bad": "us", "good": "us"}, false, strategy.Request{}},
	{"one in each region", map[string]string{"bad": "eu", "b": "us", "c": "ap"}, false, strategy.Request{}},
	{"alone for another model type", map[string]string{"bad": "us", "x": "us", "y": "us", "z": "us"}, true, strategy.Request{}},
	{"the only one of the region that is preferred", map[string]string{"bad": "eu", "b": "us", "c": "us"}, false, strategy.Request{Region: "eu"}},
}

func TestAHeadThatFailsAtOnceDrawsFewRequests(t *testing.T) {
	for _, f := range fleets {
		for _, spec := range strategy.Specs() {
			t.Run(f.name+"/"+spec.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := ejecting(t)
					for id, region := range f.heads {
						w.reporting(id, w.head(id, region, func(s *fleet.Spec) {
							if f.others && id == "bad" {
								s.ModelTypes = []string{"m", "n"}
							}
						}))
					}
					bad := 0
					for range 300 {
						req := f.request
						req.Strategy, req.SessionKey = spec.Name, "s"
						d := w.decide(req)
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
}

// Where no other head may serve a request, ejected ones do: for a region that is
// required, for labels, for a model type of their own and where others are
// excluded. Where others are at max_in_flight the answer says so.
func TestEjectedHeadsAreTheLastResort(t *testing.T) {
	for _, spec := range strategy.Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := ejecting(t)
				w.reporting("bad", w.head("bad", "eu", func(s *fleet.Spec) {
					s.ModelTypes, s.Labels, s.MaxInFlight = []string{"m", "n"}, map[string]string{"gpu": "h100"}, 100
				}))
				full := w.head("full", "us", func(s *fleet.Spec) { s.MaxInFlight = 2 })
				w.reporting("ok", w.head("ok", "us", func(s *fleet.Spec) { s.MaxInFlight = 2 }))
				w.eject("bad", "full", "ok")
				for _, req := range []strategy.Request{
					{Region: "eu", RegionMode: strategy.RegionRequire},
					{Labels: map[string]string{"gpu": "h100"}},
					{ModelType: "n"},
					{Exclude: []string{"ok", "full", "nobody"}},
				} {
					for range 20 {
						req.Strategy, req.SessionKey = spec.Name, "s"
						d := w.decide(req)
						if d.Head.ID != "bad" || d.Trial || d.Spilled || len(d.Alternatives()) != 0 {
							t.Fatalf("%+v: decided for %s, %s", req, d.Head.ID, d.AppendReason(nil))
						}
						if reason := string(d.AppendReason(nil)); !strings.HasPrefix(reason, "an ejected head, since no other may serve the request, of 1 candidate") {
							t.Errorf("reason %q", reason)
						}
						w.router.End(d, routing.Outcome{Result: routing.ResultOK})
					}
				}
				w.counts("full", full, 2, 3)
				held := map[string]int{}
				for _, want := range []string{"ok", "ok", "full", "full"} { // a head that says it is full comes before one that fails
					d := w.decide(strategy.Request{Region: "eu", Strategy: spec.Name, SessionKey: "s", Explain: true})
					if held[d.Head.ID]++; d.Head.ID != want {
						t.Fatalf("decided for %s of %v, want %s", d.Head.ID, held, want)
					}
					passedOver(t, d.Explanation())
				}
				for _, exclude := range [][]string{nil, {"ok"}, {"full", "nobody"}} {
					_, err := w.router.Decide(&strategy.Request{ModelType: "m", Region: "eu", Strategy: spec.Name, SessionKey: "s", Exclude: exclude, Explain: true})
					no, refused := errors.AsType[*routing.NoHeadError](err)
					if !refused {
						t.Fatalf("without %v: %v, want a refusal", exclude, err)
					}
					if no.Failure != routing.FailAtCapacity || no.Counts["ejected"] != 1 || no.Counts["capacity"] != 2-min(len(exclude), 1) || no.Counts[""] != 0 {
						t.Errorf("without %v: %s, removed %v", exclude, no.Failure, no.Counts)
					}
					passedOver(t, no.Explanation)
				}
			})
		})
	}
}

// passedOver sees that bad was passed over for being ejected.
func passedOver(t *testing.T, e *routing.Explanation) {
	t.Helper()
	for _, c := range e.Candidates {
		if c.HeadID == "bad" && (c.Filter != "ejected" || c.Chosen) {
			t.Errorf("bad is removed by %q, chosen %v", c.Filter, c.Chosen)
		}
	}
}

func TestTheTrialsFirstTokenEndsTheEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b")
		w.eject("a", "b")
		time.Sleep(11 * time.Second)
		d := w.decide(strategy.Request{ModelType: "m", TTL: time.Hour})
		if d.Head.ID != "a" {
			t.Fatalf("the trial is at %s", d.Head.ID)
		}
		check(t, w.router.FirstToken(d.ID()))
		if got := w.healthOf("a"); got != "fresh" {
			t.Fatalf("after its first token a is %s", got)
		}
		for range 4 {
			w.router.End(w.decide(strategy.Request{Exclude: []string{"b"}}), routing.Outcome{Result: routing.ResultError})
		}
		w.router.End(d, routing.Outcome{Result: routing.ResultError})
		if got := w.healthOf("a"); got != "ejected" {
			t.Errorf("after five errors a is %s", got)
		}
	})
}

// A trial that lasts for an hour is followed by others, and says nothing: a head
// that hangs stays out.
func TestALongTrialIsFollowedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b")
		w.eject("a", "b")
		time.Sleep(11 * time.Second)
		var trials []*routing.Decision
		for n := range 4 {
			d := w.decide(strategy.Request{TTL: time.Hour})
			if trials = append(trials, d); d.Head.ID != "a" || !d.Trial {
				t.Fatalf("trial %d is at %s", n, d.Head.ID)
			}
			for range 28 {
				time.Sleep(time.Second)
				if d := w.decide(strategy.Request{}); d.Head.ID == "a" {
					t.Fatal("a second trial beside the first")
				}
			}
			time.Sleep(3 * time.Second)
		}
		if got := w.healthOf("a"); got != "ejected" {
			t.Errorf("after trials that hang a is %s", got)
		}
		w.router.End(trials[0], routing.Outcome{Result: routing.ResultOK})
		if got := w.healthOf("a"); got != "fresh" {
			t.Errorf("after one of them ended well a is %s", got)
		}
	})
}

// A trial that its caller cancels, or that was withdrawn, and an answer of 4xx
// prove nothing: the next request is the trial.
func TestATrialThatIsCancelledIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b")
		w.eject("a", "b")
		time.Sleep(11 * time.Second)
		trial := func() *routing.Decision {
			t.Helper()
			d := w.decide(strategy.Request{})
			if d.Head.ID != "a" || !d.Trial {
				t.Fatalf("the trial is at %s", d.Head.ID)
			}
			return d
		}
		for range 5 {
			w.router.End(trial(), routing.Outcome{Result: routing.ResultCancelled})
			w.router.End(trial(), routing.Outcome{Result: routing.ResultError, StatusCode: 429})
		}
		expired := trial()
		time.Sleep(2*time.Minute + time.Second)
		trial()
		w.router.End(expired, routing.Outcome{Result: routing.ResultCancelled}) // late
		if d := w.decide(strategy.Request{}); d.Head.ID != "b" {
			t.Errorf("a trial beside another goes to %s", d.Head.ID)
		}
		if got := w.healthOf("a"); got != "ejected" {
			t.Errorf("a is %s", got)
		}
	})
}

func TestWhatIsNoFaultOfTheHeadEjectsNoHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b")
		for _, o := range []routing.Outcome{
			{Result: routing.ResultCancelled},
			{Result: routing.ResultCancelled, StatusCode: 500},
			{Result: routing.ResultError, StatusCode: 400},
			{Result: routing.ResultError, StatusCode: 404},
			{Result: routing.ResultError, StatusCode: 429},
			{Result: routing.ResultError, StatusCode: 499},
			{Result: routing.ResultError, StatusCode: 501},
		} {
			for range 50 {
				w.router.End(w.decide(strategy.Request{ModelType: "m", Exclude: []string{"b"}}), o)
			}
		}
		for range 50 {
			w.decide(strategy.Request{ModelType: "m", Exclude: []string{"b"}})
		}
		time.Sleep(3 * time.Minute) // these are not reported
		if got := w.healthOf("a"); got != "fresh" {
			t.Errorf("a is %s", got)
		}
		for _, status := range []int64{0, 500, 200, 503, 399} {
			w.router.End(w.decide(strategy.Request{ModelType: "m", Exclude: []string{"b"}}), routing.Outcome{Result: routing.ResultError, StatusCode: status})
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
		d := w.decide(strategy.Request{ModelType: "m", Exclude: others})
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
			d := w.decide(strategy.Request{ModelType: "m"})
			if d.Head.ID == "a" || slices.Contains(ids(d), "a") {
				t.Fatalf("%s of %v while a is ejected", d.Head.ID, ids(d))
			}
			w.router.End(d, routing.Outcome{Result: routing.ResultOK})
		}
		time.Sleep(11 * time.Second)
		if d := w.decide(strategy.Request{ModelType: "m", Exclude: []string{"a"}}); d.Head.ID == "a" {
			t.Fatal("the trial went to a head that the caller excludes")
		}
		trial := w.decide(strategy.Request{ModelType: "m", SessionKey: "s", Strategy: "session_affinity"})
		if trial.Head.ID != "a" || !trial.Trial || len(ids(trial)) != 2 || slices.Contains(ids(trial), "a") {
			t.Fatalf("the trial is at %s, alternatives %v", trial.Head.ID, ids(trial))
		}
		if reason := string(trial.AppendReason(nil)); !strings.HasPrefix(reason, "trial request of an ejected head") {
			t.Errorf("reason %q", reason)
		}
		for range 50 {
			if d := w.decide(strategy.Request{ModelType: "m", SessionKey: "s", Strategy: "session_affinity"}); d.Head.ID == "a" {
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
			d := w.decide(strategy.Request{ModelType: "m"})
			if d.Head.ID != "a" {
				t.Fatalf("trial %d is at %s", n, d.Head.ID)
			}
			time.Sleep(2*time.Minute + time.Second)
		}
		if got := w.healthOf("a"); got != "fresh" {
			t.Errorf("after two trials without an outcome a is %s", got)
		}
	})
}

// A request that only ejected heads could serve is their trial when that is due.
func TestATrialServesWhatNoOtherHeadMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ejecting(t, "a", "b")
		w.eject("a", "b")
		wanted := strategy.Request{ModelType: "m", Labels: map[string]string{"name": "a"}, Explain: true}
		if d := w.decide(wanted); d.Trial || d.Head.ID != "a" {
			t.Fatalf("decided for %s, a trial: %v", d.Head.ID, d.Trial)
		}
		time.Sleep(11 * time.Second)
		for range 10 {
			if d := w.decide(strategy.Request{ModelType: "m", Labels: map[string]string{"name": "b"}}); d.Head.ID != "b" {
				t.Fatalf("the trial took a request for %s", d.Head.ID)
			}
		}
		d := w.decide(wanted)
		if d.Head.ID != "a" || !d.Trial || len(ids(d)) != 0 || string(d.AppendReason(nil)) == "" {
			t.Errorf("decided for %s, alternatives %v", d.Head.ID, ids(d))
		}
		if d = w.decide(wanted); d.Head.ID != "a" || d.Trial {
			t.Errorf("the second request is a trial: %v", d.Trial)
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
			if d := w.decide(strategy.Request{ModelType: "m", Region: "us"}); d.Head.Region != "us" {
				t.Fatalf("decided for %s", d.Head.ID)
			}
		}
		if d := w.decide(strategy.Request{ModelType: "m", Region: "eu"}); d.Head.ID != "far" {
			t.Errorf("the trial is at %s", d.Head.ID)
		}
	})
}

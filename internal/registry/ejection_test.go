package registry_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// startEjecting is a registry that ejects, with heads that report for as long
// as the test lasts.
func startEjecting(t *testing.T, change func(*registry.Options), ids ...string) *world {
	t.Helper()
	w := start(t, memstore.New(), func(o *registry.Options) {
		o.Eject.Enabled = true
		if change != nil {
			change(o)
		}
	})
	for _, id := range ids {
		w.register(spec(id), active())
	}
	w.beat(t.Context(), ids...)
	return w
}

// end lets n requests at a head end, placed by a decision of now.
func (w *world) end(id string, end fleet.Ending, n int) {
	w.Helper()
	h := published(w, id)
	if h == nil {
		v, err := w.Head(id)
		must(w, err)
		h = v.Head
	}
	for range n {
		h.Outcomes.Observe(h, end, time.Now())
	}
}

// try takes the trial of an ejected head.
func (w *world) try(id string) *fleet.Head {
	w.Helper()
	v, err := w.Head(id)
	must(w, err)
	if !v.Head.Trial || !v.Head.Outcomes.TryTrial(v.Head, fleet.Work{}) {
		w.Fatalf("%s has no trial to take: %+v", id, v)
	}
	v.Head.Live.Release(fleet.Work{})
	return v.Head
}

func TestErrorsInARowEject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		w.end("a", fleet.EndedBadly, 4)
		w.end("a", fleet.EndedWell, 1)
		w.end("a", fleet.EndedBadly, 4)
		w.end("a", fleet.EndedUnknown, 10)
		if got := w.routable(); !slices.Equal(got, []string{"a", "b"}) {
			t.Fatalf("four errors in a row: routable %v", got)
		}
		old := published(w, "a")
		w.end("a", fleet.EndedBadly, 1)
		if got := w.routable(); !slices.Equal(got, []string{"b"}) || w.Snapshot().Active != 1 {
			t.Fatalf("five errors in a row: routable %v, active %d", got, w.Snapshot().Active)
		}
		v, err := w.Head("a")
		must(t, err)
		if v.Head.Health.String() != "ejected" || v.HealthReason != "errors in a row: 5" ||
			!v.HealthUntil.Equal(time.Now().Add(10*time.Second)) {
			t.Errorf("health %s, %q until %s", v.Head.Health, v.HealthReason, v.HealthUntil)
		}
		for range 20 {
			old.Outcomes.Observe(old, fleet.EndedBadly, time.Now()) // of requests that were placed before
		}
		if n := sum(family(t, w.metrics, "headway_ejections_total")); n != 1 || value(t, w.metrics, "headway_ejected_heads") != 1 {
			t.Errorf("%g ejections counted", n)
		}
		if happened := w.eventsUntil("head.ejected"); !strings.Contains(happened, "head.ejected a") {
			t.Errorf("happened\n%s", happened)
		}
		if happened := w.eventsUntil("head.unroutable"); !strings.Contains(happened, "head.unroutable a health ejected") {
			t.Errorf("happened\n%s", happened)
		}
	})
}

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}

func TestAShareOfErrorsEjectsWhereThereAreEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, func(o *registry.Options) { o.Eject.MaxShare = 0.9 }, "a", "b", "c")
		alternate := func(id string, n int) {
			for range n {
				w.end(id, fleet.EndedWell, 1)
				w.end(id, fleet.EndedBadly, 1)
			}
		}
		alternate("a", 9)
		time.Sleep(31 * time.Second) // over a window
		alternate("a", 9)
		if got := w.health("a"); got != "fresh" {
			t.Fatalf("two times 18 requests in different windows: %s", got)
		}
		time.Sleep(14 * time.Second) // the half after
		alternate("a", 1)
		if got := w.health("a"); got != "ejected" {
			t.Errorf("half of 20 requests of a window failed: %s", got)
		}
		for range 30 {
			w.end("b", fleet.EndedWell, 11)
			w.end("b", fleet.EndedBadly, 4)
			w.end("b", fleet.EndedWell, 1)
			w.end("b", fleet.EndedBadly, 3)
		}
		if got := w.health("b"); got != "fresh" {
			t.Errorf("7 of 19 requests failed: %s", got)
		}
		if v, _ := w.Head("a"); v.HealthReason != "requests of late that ended with an error: 10 of 20" {
			t.Errorf("reason %q", v.HealthReason)
		}
	})
}

func TestExactlyOneRequestTriesAnEjectedHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		w.end("a", fleet.EndedBadly, 5)
		trials := func() []*fleet.Head { return w.Snapshot().Pools["m"].Regions["us"].Trials }
		time.Sleep(9 * time.Second)
		if v, _ := w.Head("a"); len(trials()) != 0 || v.Head.Outcomes.TryTrial(v.Head, fleet.Work{}) {
			t.Fatal("a trial before the time is over")
		}
		time.Sleep(1500 * time.Millisecond)
		list := trials()
		if len(list) != 1 || list[0].ID != "a" || len(w.routable()) != 1 {
			t.Fatalf("after its time: %d trials, routable %v", len(list), w.routable())
		}
		var taken atomic.Int64
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if list[0].Outcomes.TryTrial(list[0], fleet.Work{}) {
					taken.Add(1)
				}
			})
		}
		all.Wait()
		if taken.Load() != 1 || list[0].Live.InFlight() != 1 {
			t.Fatalf("%d requests took the trial, %d in flight", taken.Load(), list[0].Live.InFlight())
		}
		time.Sleep(time.Second)
		if v, _ := w.Head("a"); len(trials()) != 0 || !strings.HasSuffix(v.HealthReason, "trial request is under way") || !v.HealthUntil.IsZero() {
			t.Errorf("while the trial is under way: %d offers, %q until %s", len(trials()), v.HealthReason, v.HealthUntil)
		}
		list[0].Outcomes.ObserveTrial(list[0], fleet.EndedWell, time.Now())
		if got := w.health("a"); got != "fresh" || len(w.routable()) != 2 {
			t.Errorf("after a good trial: %s, routable %v", got, w.routable())
		}
		w.end("a", fleet.EndedBadly, 4)
		if got := w.health("a"); got != "fresh" {
			t.Errorf("a reinstated head begins with clean counts: %s", got)
		}
	})
}

// terms lets the head fail, and its trials too, and returns how long each
// ejection lasted.
func (w *world) terms(id string, n int) (terms []time.Duration) {
	w.Helper()
	w.end(id, fleet.EndedBadly, 5)
	for range n {
		v, err := w.Head(id)
		must(w, err)
		terms = append(terms, time.Until(v.HealthUntil))
		time.Sleep(time.Until(v.HealthUntil) + time.Second)
		endTrial(w.try(id), fleet.EndedBadly)
	}
	return terms
}

func TestTheTimeOutGrowsAndDecays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		want := []time.Duration{10, 20, 40, 80, 160, 300, 300}
		for i, got := range w.terms("a", len(want)) {
			if got != want[i]*time.Second {
				t.Errorf("ejection %d lasts %s, want %ds", i+1, got, want[i])
			}
		}
		time.Sleep(301 * time.Second)
		endTrial(w.try("a"), fleet.EndedWell)
		next := func(good time.Duration) time.Duration {
			time.Sleep(good)
			w.end("a", fleet.EndedBadly, 5)
			v, err := w.Head("a")
			must(t, err)
			term := time.Until(v.HealthUntil)
			time.Sleep(term + time.Second)
			endTrial(w.try("a"), fleet.EndedWell)
			return term
		}
		for _, c := range []struct{ good, want time.Duration }{
			{time.Second, 300 * time.Second},       // good for less than the last ejection lasted
			{300 * time.Second, 160 * time.Second}, // as long: one doubling less
			{480 * time.Second, 40 * time.Second},  // three times
			{time.Hour, 10 * time.Second},
		} {
			if got := next(c.good); got != c.want {
				t.Errorf("good for %s, the next ejection lasts %s, want %s", c.good, got, c.want)
			}
		}
	})
}

// A trial may last an hour: another is offered after half a minute, and what
// becomes of the first counts when it ends.
func TestATrialHasATimeOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		tried := func() *fleet.Head {
			t.Helper()
			w.end("a", fleet.EndedBadly, 5)
			v, err := w.Head("a")
			must(t, err)
			time.Sleep(time.Until(v.HealthUntil) + time.Second)
			first := w.try("a")
			time.Sleep(29 * time.Second)
			if v, _ := w.Head("a"); v.Head.Trial || v.Head.Outcomes.TryTrial(v.Head, fleet.Work{}) {
				t.Fatal("a second trial after 29 s")
			}
			time.Sleep(2 * time.Second)
			return first
		}
		w.end("a", fleet.EndedWell, 1)
		first := tried()
		first.Outcomes.ObserveTrial(first, fleet.EndedWell, time.Now())
		if got := w.health("a"); got != "fresh" {
			t.Fatalf("the first trial ended well: %s", got)
		}
		time.Sleep(time.Hour)
		first = tried()
		second := w.try("a")
		first.Outcomes.ObserveTrial(first, fleet.EndedUnreported, time.Now())
		time.Sleep(time.Second)
		if v, _ := w.Head("a"); v.Head.Health != fleet.HealthEjected || v.Head.Trial {
			t.Fatalf("after one trial whose end was not reported: %s, a third is offered beside the second: %v", v.Head.Health, v.Head.Trial)
		}
		second.Outcomes.ObserveTrial(second, fleet.EndedBadly, time.Now())
		if v, _ := w.Head("a"); v.HealthReason != "the trial request ended with an error" {
			t.Fatalf("after a bad trial: %q", v.HealthReason)
		}
		must(t, w.EndEjection(t.Context(), "a"))
		tried()
		for range 20 {
			w.try("a")
			time.Sleep(31 * time.Second)
		}
		if got := w.health("a"); got != "ejected" {
			t.Errorf("all its trials hang: %s", got)
		}
	})
}

// Events count the heads that take requests as the gauges do, and beside them
// those that are ejected.
func TestEventsOfAPoolCountEjectedHeadsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, func(o *registry.Options) { o.Eject.BaseTime = time.Hour; o.Eject.MaxTime = time.Hour })
		far := spec("far")
		far.Region = "eu"
		w.register(far, active())
		w.beat(t.Context(), "far")
		epoch := w.register(spec("a"), active()).Lease.Epoch
		w.end("a", fleet.EndedBadly, 5)
		time.Sleep(time.Minute)
		if happened := w.eventsUntil("head.expired"); strings.Contains(happened, "pool.exhausted") {
			t.Errorf("the pool has its last resort; happened\n%s", happened)
		}
		if happened := w.eventsUntil("pool.exhausted"); !strings.Contains(happened, "pool.exhausted m/us 0 of 1") {
			t.Errorf("happened\n%s", happened)
		}
		w.report("a", epoch, fleet.StatusActive)
		if happened := w.eventsUntil("pool.available"); !strings.HasSuffix(happened, "pool.available m/us 0 of 1, 1 ejected, 1 missing") {
			t.Errorf("happened\n%s", happened)
		}
		if got := gauges(t, w.metrics, "headway_region_routable_heads")["us"]; got != 0 {
			t.Errorf("the gauge has %v heads that take requests", got)
		}
	})
}

// A trial that was cancelled, or that the caller is at fault for, proves nothing:
// the next request is the trial.
func TestATrialThatProvesNothingIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		w.end("a", fleet.EndedBadly, 5)
		time.Sleep(11 * time.Second)
		for range 20 {
			endTrial(w.try("a"), fleet.EndedUnknown)
			if got := w.health("a"); got != "ejected" || len(w.Snapshot().Pools["m"].All.Trials) != 1 {
				t.Fatalf("it is %s, with %d offers", got, len(w.Snapshot().Pools["m"].All.Trials))
			}
		}
		hangs := w.try("a")
		time.Sleep(31 * time.Second)
		w.try("a")
		hangs.Outcomes.ObserveTrial(hangs, fleet.EndedUnknown, time.Now()) // the second is under way still
		if v, _ := w.Head("a"); v.Head.Trial || v.Head.Health != fleet.HealthEjected {
			t.Errorf("while a trial is under way: %s, another is offered: %v", v.Head.Health, v.Head.Trial)
		}
	})
}

// A trial that is answered ends the ejection; how it ends counts as usual.
func TestATrialThatIsAnsweredEndsTheEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		w.end("a", fleet.EndedBadly, 5)
		time.Sleep(11 * time.Second)
		h := w.try("a")
		h.Outcomes.TrialAnswers(h)
		if got := w.health("a"); got != "fresh" {
			t.Fatalf("after a first token: %s", got)
		}
		h.Outcomes.TrialAnswers(h)
		w.end("a", fleet.EndedBadly, 4)
		h.Outcomes.ObserveTrial(h, fleet.EndedBadly, time.Now())
		if got := w.health("a"); got != "ejected" {
			t.Errorf("after five errors in a row, one of them the trial's: %s", got)
		}
	})
}

// What an ejected head does as the last resort neither ends its ejection nor
// makes it longer.
func TestTheLastResortIsNoTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		w.end("a", fleet.EndedBadly, 5)
		v, err := w.Head("a")
		must(t, err)
		until := v.HealthUntil
		for _, end := range []fleet.Ending{fleet.EndedWell, fleet.EndedBadly, fleet.EndedUnknown} {
			w.end("a", end, 10)
		}
		if v, _ = w.Head("a"); v.Head.Health != fleet.HealthEjected || !v.HealthUntil.Equal(until) {
			t.Errorf("%s until %s, not %s", v.Head.Health, v.HealthUntil, until)
		}
		time.Sleep(11 * time.Second)
		w.try("a")
		w.end("a", fleet.EndedUnknown, 10)
		w.end("a", fleet.EndedWell, 10)
		time.Sleep(time.Second)
		if v, _ = w.Head("a"); v.Head.Health != fleet.HealthEjected || v.Head.Trial {
			t.Errorf("while the trial is under way: %s, %v", v.Head.Health, v.Head.Trial)
		}
	})
}

// Who replaces a machine that failed begins clean.
func TestAnotherEndpointBeginsClean(t *testing.T) {
	elsewhere := spec("a")
	elsewhere.Endpoint = "http://127.0.0.1:9001"
	for _, c := range []struct {
		name    string
		offline bool
		again   fleet.Spec
		clean   bool
	}{
		{"taken over", false, elsewhere, true},
		{"offline, and elsewhere", true, elsewhere, true},
		{"taken over by itself", false, spec("a"), false},
		{"offline, and at the same endpoint", true, spec("a"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := startEjecting(t, nil, "a", "b")
				w.end("a", fleet.EndedBadly, 5)
				w.register(spec("a"), active()) // forgiven
				w.end("a", fleet.EndedBadly, 5)
				v, err := w.Head("a")
				must(t, err)
				if c.offline {
					w.report("a", v.Head.Epoch, fleet.StatusOffline)
				}
				_, err = w.TakeOver(t.Context(), c.again, active())
				must(t, err)
				if got := w.health("a"); (got == "fresh") != c.clean {
					t.Fatalf("it begins %s", got)
				}
				if !c.clean {
					return
				}
				w.beat(t.Context(), "a")
				w.end("a", fleet.EndedBadly, 4)
				if got := w.health("a"); got != "fresh" {
					t.Errorf("after four errors it is %s", got)
				}
				if got := w.terms("a", 1); got[0] != 10*time.Second {
					t.Errorf("its first ejection lasts %s", got[0])
				}
			})
		})
	}
}

func TestATrialWithoutAnOutcomeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		w.end("a", fleet.EndedBadly, 5)
		time.Sleep(11 * time.Second)
		endTrial(w.try("a"), fleet.EndedUnreported)
		if got := w.health("a"); got != "ejected" {
			t.Fatalf("after a trial whose end was not reported: %s", got)
		}
		endTrial(w.try("a"), fleet.EndedUnreported)
		if got := w.health("a"); got != "fresh" {
			t.Errorf("after two trials that were not reported: %s", got)
		}
	})
}

func TestAModelTypeKeepsHalfOfItsHeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := []string{"a", "b", "c", "d", "e"}
		w := startEjecting(t, nil, ids...)
		other := spec("z") // another region is the same pool
		other.Region = "eu"
		w.register(other, active())
		w.beat(t.Context(), "z")
		for range 3 {
			for _, id := range append(ids, "z") {
				w.end(id, fleet.EndedBadly, 5)
			}
		}
		left := func(when string, want ...string) {
			t.Helper()
			if got := w.routable(); !slices.Equal(got, want) {
				t.Fatalf("%s: routable %v, want %v", when, got, want)
			}
		}
		left("a fleet that fails as a whole", "d", "e", "z")
		if value(t, w.metrics, "headway_ejections_refused_total") == 0 {
			t.Error("no refusal was counted")
		}
		v, err := w.Head("d")
		must(t, err)
		w.report("d", v.Lease.Epoch, fleet.StatusOffline)
		left("two of five may be out", "a", "e", "z")
		must(t, w.Deregister(t.Context(), "e"))
		left("two of four may be out", "a", "z")
		for _, step := range []struct{ drain, left string }{{"a", "b z"}, {"z", "b"}, {"b", "c"}} {
			drain := fleet.AdminDraining
			_, err := w.Patch(t.Context(), step.drain, registry.Patch{State: &drain})
			must(t, err)
			left("without "+step.drain, strings.Fields(step.left)...)
		}
	})
}

// A head is out for what others of any of its model types can do in its place,
// and stays where it is alone for all of them.
func TestAHeadIsEjectedWhereOneOfItsModelTypesHasOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil)
		for id, models := range map[string][]string{"x1": {"m", "n"}, "x2": {"m", "n"}, "y": {"m"}, "z": {"m"}, "w": {"m"}, "alone": {"k"}} {
			s := spec(id)
			s.ModelTypes = models
			w.register(s, active())
			w.beat(t.Context(), id)
		}
		for _, id := range []string{"x1", "x2", "alone", "y"} {
			w.end(id, fleet.EndedBadly, 5)
		}
		if got := w.routable(); !slices.Equal(got, []string{"alone", "w", "y", "z"}) {
			t.Errorf("routable %v", got)
		}
		if got := w.health("alone"); got != "fresh" {
			t.Errorf("the only head of k is %s", got)
		}
		must(t, w.Deregister(t.Context(), "y"))
		if happened := w.eventsUntil("head.removed"); strings.Contains(happened, "pool.exhausted") {
			t.Errorf("n has a last resort; happened\n%s", happened)
		}
		must(t, w.Deregister(t.Context(), "z"))
		if got := w.routable(); !slices.Equal(got, []string{"alone", "w", "x1"}) {
			t.Errorf("one of three of m may be out: routable %v", got)
		}
	})
}

func TestARegistrationBeginsCleanOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b", "c")
		term := func() time.Duration {
			v, err := w.Head("a")
			must(t, err)
			return time.Until(v.HealthUntil)
		}
		w.end("a", fleet.EndedBadly, 5)
		w.register(spec("a"), active())
		w.beat(t.Context(), "a")
		if got := w.health("a"); got != "fresh" {
			t.Fatalf("a new registration begins %s", got)
		}
		w.end("a", fleet.EndedBadly, 5)
		if got := term(); got != 20*time.Second {
			t.Errorf("a relapse lasts %s", got)
		}
		w.register(spec("a"), active())
		w.beat(t.Context(), "a")
		if got := w.health("a"); got != "ejected" || term() != 20*time.Second {
			t.Errorf("after a relapse a registration makes it %s, for %s", got, term())
		}
		time.Sleep(21 * time.Second)
		endTrial(w.try("a"), fleet.EndedWell)
		time.Sleep(10 * time.Minute)
		w.end("a", fleet.EndedBadly, 5)
		w.register(spec("a"), active())
		if got := w.health("a"); got != "fresh" {
			t.Errorf("long after, a registration begins %s", got)
		}
	})
}

func TestAHeldHeadThatFailsIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil)
		ids := []string{"a", "b", "c", "d"}
		for _, id := range ids {
			w.register(spec(id), active())
		}
		before := published(w, "b") // a request that was placed while all was well
		time.Sleep(8 * time.Second)
		for _, id := range ids {
			if got := w.health(id); got != "held" {
				t.Fatalf("%s is %s", id, got)
			}
		}
		w.end("a", fleet.EndedWell, 1)
		w.end("a", fleet.EndedUnknown, 1)
		if got := w.health("a"); got != "held" {
			t.Fatalf("a held head that answers is %s", got)
		}
		w.end("a", fleet.EndedBadly, 1)
		before.Outcomes.Observe(before, fleet.EndedBadly, time.Now())
		if got := w.routable(); !slices.Equal(got, []string{"c", "d"}) || w.health("a") != "stale" || w.health("b") != "stale" {
			t.Errorf("after a failure at a and b: routable %v, a %s, b %s", got, w.health("a"), w.health("b"))
		}
		v, err := w.Head("a")
		must(t, err)
		w.report("a", v.Lease.Epoch, fleet.StatusActive)
		w.end("a", fleet.EndedBadly, 1)
		if got := w.health("a"); got != "fresh" {
			t.Errorf("reporting again it is %s", got)
		}
	})
}

func TestAnOperatorEndsAnEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trail{}
		w := startEjecting(t, tr.attach, "a", "b")
		if err := w.EndEjection(t.Context(), "a"); !errors.Is(err, fleet.ErrNotEjected) {
			t.Errorf("of a head that is not ejected: %v", err)
		}
		if err := w.EndEjection(t.Context(), "x"); !errors.Is(err, fleet.ErrHeadNotFound) {
			t.Errorf("of an unknown head: %v", err)
		}
		w.end("a", fleet.EndedBadly, 5)
		tr.take()
		tr.refuse = errors.New("no trail")
		if err := w.EndEjection(t.Context(), "a"); err == nil || w.health("a") != "ejected" {
			t.Errorf("without a trail: %v, %s", err, w.health("a"))
		}
		tr.refuse = nil
		must(t, w.EndEjection(t.Context(), "a"))
		if got := w.health("a"); got != "fresh" {
			t.Errorf("after the operator's word: %s", got)
		}
		if got := tr.take(); len(got) != 2 || !strings.Contains(got[0], "head.reinstate a") || got[1] != "success" {
			t.Errorf("recorded %q", got)
		}
		if got := w.terms("a", 1); got[0] != 10*time.Second {
			t.Errorf("the next ejection lasts %s", got[0])
		}
	})
}

func TestNothingIsEjectedWhereItIsSwitchedOff(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	w.register(spec("a"), active())
	w.register(spec("b"), active())
	w.end("a", fleet.EndedBadly, 1000)
	if got := w.routable(); len(got) != 2 {
		t.Errorf("routable %v", got)
	}
	w = startEjecting(t, func(o *registry.Options) { o.Eject.ConsecutiveErrors = -1; o.Eject.ErrorShare = 1 }, "a", "b")
	w.end("a", fleet.EndedBadly, 1000)
	if got := w.routable(); len(got) != 2 {
		t.Errorf("without thresholds: routable %v", got)
	}
}

func TestAnOutcomeAllocatesNothing(t *testing.T) {
	w := startEjecting(t, nil, "a", "b")
	h, now := published(w, "a"), time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		h.Outcomes.Observe(h, fleet.EndedBadly, now)
		h.Outcomes.Observe(h, fleet.EndedWell, now)
		h.Outcomes.Observe(h, fleet.EndedWell, now)
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

// At all times each head that is ejected has a model type of which no more
// than half of the heads are.
func TestEjectionsNeverEmptyAPool(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var past atomic.Int64
		now := func() time.Time { return time.Unix(0, past.Load()) }
		w := start(t, memstore.New(), func(o *registry.Options) { o.Eject.Enabled, o.Now = true, now })
		defer w.stop()
		id := func(rt *rapid.T) string { return fmt.Sprintf("h%d", rapid.IntRange(0, 6).Draw(rt, "head")) }
		rt.Repeat(map[string]func(*rapid.T){
			"register": func(rt *rapid.T) {
				s := spec(id(rt))
				s.Region = rapid.SampledFrom([]string{"us", "eu"}).Draw(rt, "region")
				s.ModelTypes = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"m", "n"}), 1, 2, rapid.ID).Draw(rt, "models")
				w.register(s, active())
			},
			"fail": func(rt *rapid.T) {
				if v, err := w.Head(id(rt)); err == nil {
					for range 5 {
						v.Head.Outcomes.Observe(v.Head, fleet.EndedBadly, now())
					}
				}
			},
			"try": func(rt *rapid.T) {
				if v, err := w.Head(id(rt)); err == nil && v.Head.Outcomes.TryTrial(v.Head, fleet.Work{}) {
					v.Head.Live.Release(fleet.Work{})
					v.Head.Outcomes.ObserveTrial(v.Head, fleet.Ending(rapid.IntRange(0, 3).Draw(rt, "end")), now())
				}
			},
			"report": func(rt *rapid.T) {
				if v, err := w.Head(id(rt)); err == nil {
					w.report(v.Head.ID, v.Lease.Epoch, fleet.Status(rapid.IntRange(1, 4).Draw(rt, "status")))
				}
			},
			"patch": func(rt *rapid.T) {
				state := fleet.AdminState(rapid.IntRange(0, 2).Draw(rt, "state"))
				_, _ = w.Patch(t.Context(), id(rt), registry.Patch{State: &state})
			},
			"remove": func(rt *rapid.T) { _ = w.Deregister(t.Context(), id(rt)) },
			"wait": func(rt *rapid.T) {
				past.Add(int64(rapid.IntRange(1, 5).Draw(rt, "seconds")) * int64(time.Second))
				w.Step(t.Context(), now())
			},
			"": func(rt *rapid.T) {
				compare(rt, w)
				keeps := func(model string) bool {
					g := w.Snapshot().Pools[model].All
					return len(g.Ejected.Heads) <= len(g.Active.Heads)+len(g.Degraded.Heads)
				}
				for _, p := range w.Snapshot().Pools {
					for _, h := range p.All.Ejected.Heads {
						if !slices.ContainsFunc(h.ModelTypes, keeps) {
							rt.Fatalf("%s is out, and of each of %v most are", h.ID, h.ModelTypes)
						}
					}
				}
			},
		})
	})
}

// A head at fault that may not be ejected takes requests, and says so: in
// its view, and in events.
func TestAHeadThatFailsAndStaysSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a")
		shows := func(id, state, reason string) {
			t.Helper()
			v, err := w.Head(id)
			must(t, err)
			if got := v.Head.Health.String(); got != state || !strings.Contains(v.HealthReason, reason) || reason == "" && v.HealthReason != "" {
				t.Errorf("%s is %s, %q; want %s, %q", id, got, v.HealthReason, state, reason)
			}
		}
		w.end("a", fleet.EndedBadly, 4)
		shows("a", "fresh", "")
		w.end("a", fleet.EndedBadly, 1)
		shows("a", "failing", "errors in a row: 5; not ejected, since no other head of its model types takes requests")
		if got := w.routable(); !slices.Equal(got, []string{"a"}) || w.Snapshot().Active != 1 {
			t.Errorf("routable %v, active %d", got, w.Snapshot().Active)
		}
		if happened := w.eventsUntil("head.changed"); strings.Count(happened, "head.changed a failing") != 1 {
			t.Errorf("happened\n%s", happened)
		}
		time.Sleep(3 * time.Second) // it goes on, and reports that it is well
		w.end("a", fleet.EndedBadly, 1)
		shows("a", "failing", "errors in a row: 6")

		w.register(spec("b"), active())
		w.beat(t.Context(), "b")
		shows("a", "failing", "the next error ejects it")
		time.Sleep(2 * time.Second)
		w.end("a", fleet.EndedBadly, 1)
		shows("a", "ejected", "errors in a row: 7")
		w.end("b", fleet.EndedBadly, 5)
		shows("b", "failing", "no other head of its model types takes requests")
		w.register(spec("c"), active())
		w.beat(t.Context(), "c")
		shows("b", "failing", "as many heads of its model types are as may be")

		w.end("b", fleet.EndedWell, 1)
		time.Sleep(time.Second)
		shows("b", "fresh", "")
		w.end("b", fleet.EndedBadly, 20) // of 26 requests
		w.end("b", fleet.EndedWell, 1)
		time.Sleep(time.Second)
		shows("b", "failing", "requests of late")
		time.Sleep(31 * time.Second)
		shows("b", "fresh", "")
	})
}

// A head that registers again begins clean, though it was kept.
func TestARegistrationForgetsThatAHeadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a")
		w.end("a", fleet.EndedBadly, 5)
		if got := w.health("a"); got != "failing" {
			t.Fatal(got)
		}
		w.register(spec("a"), active())
		if got := w.health("a"); got != "fresh" {
			t.Errorf("registered again it is %s", got)
		}
		must(t, w.Deregister(t.Context(), "a"))
		time.Sleep(time.Second)
		if happened := w.eventsUntil("head.removed"); strings.Count(happened, "failing") != 1 {
			t.Errorf("happened\n%s", happened)
		}
	})
}

// endTrial ends a trial request of the head now.
func endTrial(h *fleet.Head, end fleet.Ending) { h.Outcomes.ObserveTrial(h, end, time.Now()) }

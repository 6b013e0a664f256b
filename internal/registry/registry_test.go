package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// world is a registry that runs.
type world struct {
	testing.TB
	*registry.Registry
	store   *memstore.Store
	metrics *prometheus.Registry
	events  *event.Subscription
	stop    func()
}

func start(t testing.TB, store *memstore.Store, change func(*registry.Options)) *world {
	t.Helper()
	reg := prometheus.NewRegistry()
	stream := event.New(reg)
	o := registry.Options{Store: store, Events: stream, Metrics: reg, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	r, err := registry.New(o)
	must(t, err)
	events := stream.Subscribe()
	must(t, r.Load(t.Context()))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	w := &world{TB: t, Registry: r, store: store, metrics: reg, events: events}
	w.stop = sync.OnceFunc(func() { cancel(); wait.Wait() })
	t.Cleanup(w.stop)
	return w
}

// lasting gives tests on the real clock leases that they do not outlast, however
// slow the machine is.
func lasting(o *registry.Options) { o.Lease.BaseInterval = time.Hour }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func spec(id string) fleet.Spec {
	return fleet.Spec{ID: id, Endpoint: "http://127.0.0.1:9000", ModelTypes: []string{"m"}, Region: "us"}
}

func active() *fleet.StatusReport {
	return &fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()}
}

func (w *world) register(s fleet.Spec, first *fleet.StatusReport) registry.Registration {
	w.Helper()
	r, err := w.Register(w.Context(), s, first)
	must(w, err)
	return r
}

func (w *world) report(id string, epoch uint64, status fleet.Status) {
	w.Helper()
	_, err := w.Report(id, fleet.StatusReport{Epoch: epoch, Status: status, Load: fleet.UnknownLoad()})
	must(w, err)
}

func (w *world) health(id string) string {
	w.Helper()
	v, err := w.Head(id)
	if errors.Is(err, fleet.ErrHeadNotFound) {
		return "gone"
	}
	must(w, err)
	return v.Head.Health.String()
}

func (w *world) routable() []string {
	ids := []string{}
	for _, p := range w.Snapshot().Pools {
		for _, h := range p.All.Active.Heads {
			ids = append(ids, h.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// beat keeps heads reporting at the interval of their leases, until ctx
// ends.
func (w *world) beat(ctx context.Context, ids ...string) { w.beatAs(ctx, fleet.StatusActive, ids...) }

func (w *world) beatAs(ctx context.Context, status fleet.Status, ids ...string) {
	for _, id := range ids {
		v, err := w.Head(id)
		must(w, err)
		epoch, wait := v.Head.Epoch, v.Lease.HeartbeatInterval
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
				lease, err := w.Report(id, fleet.StatusReport{Epoch: epoch, Status: status, Load: fleet.UnknownLoad()})
				if err != nil {
					return
				}
				wait = lease.HeartbeatInterval
			}
		}()
	}
}

func TestAHeadIsRoutableAfterItsFirstHealthyReport(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	r := w.register(spec("a"), nil)
	if !r.Created || len(w.routable()) != 0 || w.health("a") != "pending" {
		t.Fatalf("created %v, routable %v, health %s", r.Created, w.routable(), w.health("a"))
	}
	w.report("a", r.Lease.Epoch, fleet.StatusOffline)
	if len(w.routable()) != 0 {
		t.Fatal("routable after an unhealthy report")
	}
	w.report("a", r.Lease.Epoch, fleet.StatusActive)
	if got := w.routable(); !slices.Equal(got, []string{"a"}) {
		t.Fatalf("routable %v after a healthy report", got)
	}
	w.register(spec("b"), active())
	if got := w.routable(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("routable %v; a registration may carry the first report", got)
	}
}

func TestEachRegistrationGrowsTheEpochAndWritesOnlyChanges(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	first := w.register(spec("a"), nil)
	writes := w.store.Counts().Changes
	last := first
	for range 5 {
		again := w.register(spec("a"), nil)
		if again.Created || again.Lease.Epoch <= last.Lease.Epoch {
			t.Fatalf("created %v, epoch %d after %d", again.Created, again.Lease.Epoch, last.Lease.Epoch)
		}
		last = again
	}
	if w.store.Counts().Changes != writes {
		t.Errorf("%d writes for registrations that changed nothing", w.store.Counts().Changes-writes)
	}
	changed := spec("a")
	changed.Version = "2"
	w.register(changed, nil)
	if w.store.Counts().Changes != writes+1 {
		t.Errorf("%d writes for one change", w.store.Counts().Changes-writes)
	}
	if _, err := w.Report("a", fleet.StatusReport{Epoch: first.Lease.Epoch, Status: fleet.StatusActive, Load: fleet.UnknownLoad()}); !errors.Is(err, fleet.ErrStaleEpoch) {
		t.Errorf("a report with the first epoch: %v", err)
	}
	if _, err := w.Report("nobody", *active()); !errors.Is(err, fleet.ErrHeadNotFound) {
		t.Errorf("a report of an unknown head: %v", err)
	}
}

func TestHeartbeatsNeverWrite(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	r := w.register(spec("a"), active())
	w.stop() // the confirmation has been written
	writes := w.store.Counts().Changes
	for range 1000 {
		w.report("a", r.Lease.Epoch, fleet.StatusActive)
	}
	if w.store.Counts().Changes != writes {
		t.Errorf("%d writes for heartbeats", w.store.Counts().Changes-writes)
	}
}

func TestLeaseExpiresInTwoSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), func(o *registry.Options) { o.Lease.RemoveAfter = time.Minute })
		r := w.register(spec("a"), active())
		at := func(intervals float64) {
			time.Sleep(time.Until(r.Lease.ExpiresAt.Add(-time.Duration((3 - intervals) * float64(r.Lease.HeartbeatInterval)))))
		}
		at(1.9)
		if got := w.health("a"); got != "fresh" {
			t.Errorf("after 1.9 intervals: %s", got)
		}
		at(2.6)
		if got := w.health("a"); got != "suspect" || len(w.routable()) != 1 {
			t.Errorf("after 2.6 intervals: %s, routable %v", got, w.routable())
		}
		at(3.6)
		if got := w.health("a"); got != "stale" || len(w.routable()) != 0 {
			t.Errorf("after 3.6 intervals: %s, routable %v", got, w.routable())
		}
		w.report("a", r.Lease.Epoch, fleet.StatusActive)
		if got := w.health("a"); got != "fresh" || len(w.routable()) != 1 {
			t.Errorf("after it came back: %s, routable %v", got, w.routable())
		}
		time.Sleep(2 * time.Minute)
		if got := w.health("a"); got != "gone" || w.Snapshot().Heads != 0 || stored(t, w.store) != 0 {
			t.Errorf("after a long silence: %s, %d heads, %d stored", got, w.Snapshot().Heads, stored(t, w.store))
		}
	})
}

func TestTheServerSpreadsReports(t *testing.T) {
	w := start(t, memstore.New(), func(o *registry.Options) { o.Lease.MaxReportsPerSecond = 10 })
	for i := range 100 {
		w.register(spec(fmt.Sprintf("h%d", i)), active())
	}
	least, most := time.Hour, time.Duration(0)
	perSecond := 0.0
	for i := range 100 {
		v, err := w.Head(fmt.Sprintf("h%d", i))
		must(t, err)
		lease, err := w.Report(v.Head.ID, fleet.StatusReport{Epoch: v.Head.Epoch, Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
		must(t, err)
		least, most = min(least, lease.HeartbeatInterval), max(most, lease.HeartbeatInterval)
		perSecond += 1 / lease.HeartbeatInterval.Seconds()
	}
	if perSecond > 11 || least == most || least < 9*time.Second || most > 11*time.Second {
		t.Errorf("100 heads send %.1f reports a second, every %s to %s; want about 10, every 9 to 11 s", perSecond, least, most)
	}
}

func TestTheOperatorsWordSurvivesReportsAndRegistrations(t *testing.T) {
	store := memstore.New()
	w := start(t, store, lasting)
	r := w.register(spec("a"), active())
	state, weight := fleet.AdminMaintenance, 3.0
	labels := map[string]string{"pool": "blue"}
	_, err := w.Patch(t.Context(), "a", registry.Patch{State: &state, Weight: &weight, Labels: &labels})
	must(t, err)
	w.report("a", r.Lease.Epoch, fleet.StatusActive)
	w.register(spec("a"), active())
	check := func(when string) {
		t.Helper()
		v, err := w.Head("a")
		must(t, err)
		if v.Head.Routable() || v.Head.Admin != state || v.Head.Weight != 3 || v.Head.Labels["pool"] != "blue" || v.Record.Spec.Weight != 1 {
			t.Errorf("%s: routable %v, %s, weight %v of %v, labels %v", when, v.Head.Routable(), v.Head.Admin, v.Head.Weight, v.Record.Spec.Weight, v.Head.Labels)
		}
	}
	check("after a registration")
	w.stop()
	w = start(t, store, lasting)
	check("after a restart")
	enabled, none := fleet.AdminEnabled, 0.0
	v, err := w.Patch(t.Context(), "a", registry.Patch{State: &enabled, Weight: &none})
	must(t, err)
	if !v.Head.Routable() || v.Head.Weight != 1 {
		t.Errorf("enabled again: routable %v, weight %v", v.Head.Routable(), v.Head.Weight)
	}
}

func TestLeasesAreExtendedAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		w := start(t, store, nil)
		confirmed := w.register(spec("a"), active())
		again := w.register(spec("a"), active()) // not written: nothing changed
		w.register(spec("never-healthy"), nil)
		w.stop()
		time.Sleep(time.Hour)

		w = start(t, store, nil)
		if got := w.health("a"); got != "assumed" || !slices.Equal(w.routable(), []string{"a"}) {
			t.Fatalf("after the restart: %s, routable %v", got, w.routable())
		}
		if got := w.health("never-healthy"); got != "pending" {
			t.Errorf("a head that was never healthy is %s", got)
		}
		time.Sleep(5 * time.Second)
		w.report("a", again.Lease.Epoch, fleet.StatusActive)
		if got := w.health("a"); got != "fresh" {
			t.Errorf("reporting with its epoch, it is %s", got)
		}
		if _, err := w.Report("a", fleet.StatusReport{Epoch: confirmed.Lease.Epoch, Status: fleet.StatusActive, Load: fleet.UnknownLoad()}); !errors.Is(err, fleet.ErrStaleEpoch) {
			t.Errorf("an older epoch after a newer one: %v", err)
		}
		if r := w.register(spec("a"), nil); r.Lease.Epoch <= again.Lease.Epoch {
			t.Errorf("epoch %d after the restart, %d before it", r.Lease.Epoch, again.Lease.Epoch)
		}
	})
}

func TestAHeadThatStaysAwayAfterARestartExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		w := start(t, store, nil)
		w.register(spec("a"), active())
		w.stop()
		w = start(t, store, nil)
		time.Sleep(8 * time.Second)
		if got := w.health("a"); got != "stale" {
			t.Errorf("8 s after the restart it is %s", got)
		}
	})
}

func TestTheMassExpiryGuardHoldsAPoolThatFallsSilentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		var ids []string
		for i := range 10 {
			ids = append(ids, fmt.Sprintf("h%d", i))
			w.register(spec(ids[i]), active())
		}
		ctx, silence := context.WithCancel(t.Context())
		w.beat(ctx, ids...)
		time.Sleep(10 * time.Second)
		silence()
		time.Sleep(15 * time.Second)
		if n := len(w.routable()); n != 10 || w.health("h0") != "held" || w.Snapshot().Active != 0 {
			t.Fatalf("%d routable, health %s, %d active; want 10 held, none active", n, w.health("h0"), w.Snapshot().Active)
		}
		if got, ready := value(t, w.metrics, "headway_held_heads"), w.Ready(); got != 10 || ready.Held != 10 {
			t.Errorf("%v heads are said to be held, %d for readiness; want 10", got, ready.Held)
		}
		v, err := w.Head("h0")
		must(t, err)
		if !strings.Contains(v.HealthReason, "guard") || v.HealthUntil.IsZero() {
			t.Errorf("the hold is not explained: %q until %v", v.HealthReason, v.HealthUntil)
		}
		w.report("h0", v.Head.Epoch, fleet.StatusActive)
		if w.health("h0") != "fresh" {
			t.Errorf("reporting again, it is %s", w.health("h0"))
		}
		draining := fleet.AdminDraining
		_, err = w.Patch(t.Context(), "h1", registry.Patch{State: &draining})
		must(t, err)
		if got := value(t, w.metrics, "headway_held_heads"); got != 8 {
			t.Errorf("with one that reports again and one that is drained %v heads are held, want 8", got)
		}
		time.Sleep(time.Minute)
		if got := value(t, w.metrics, "headway_held_heads"); got != 0 {
			t.Errorf("%v heads are held after the hold", got)
		}
		if n := len(w.routable()); n != 0 {
			t.Errorf("%d routable after the hold; want 0: the heads are gone after all", n)
		}
		if got := value(t, w.metrics, "headway_fleet_guard_active"); got != 0 {
			t.Errorf("%v guards active at the end", got)
		}
	})
}

func TestAFewHeadsThatFallSilentExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		var ids []string
		for i := range 10 {
			ids = append(ids, fmt.Sprintf("h%d", i))
			w.register(spec(ids[i]), active())
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w.beat(ctx, ids[3:]...)
		time.Sleep(15 * time.Second)
		if got := w.routable(); !slices.Equal(got, ids[3:]) {
			t.Errorf("routable %v; want %v", got, ids[3:])
		}
		cancel()
		synctest.Wait()
	})
}

func TestAHeadThatJoinsCountsAsLoadedAsItsPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		w.register(spec("a"), active())
		live := w.Snapshot().Pools["m"].All.Heads[0].Live
		for range 8 {
			live.TryAcquire(0, fleet.Work{})
		}
		w.register(spec("b"), active())
		b, err := w.Head("b")
		must(t, err)
		if b.Head.Live.SlowStart(time.Now()) != 8 {
			t.Errorf("b counts as %v; want its pool's mean, 8", b.Head.Live.SlowStart(time.Now()))
		}
		time.Sleep(15 * time.Second)
		if b := b.Head.Live.SlowStart(time.Now()); b != 4 {
			t.Errorf("after half of the window it counts as %v; want 4", b)
		}
		time.Sleep(15 * time.Second)
		if b := b.Head.Live.SlowStart(time.Now()); b != 0 {
			t.Errorf("after the window it counts as %v", b)
		}
	})
}

func TestLateReportsRenewTheLeaseAndKeepTheLoad(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	r := w.register(spec("a"), active())
	send := func(sequence uint64, inFlight int64) {
		load := fleet.UnknownLoad()
		load.InFlight = inFlight
		_, err := w.Report("a", fleet.StatusReport{Epoch: r.Lease.Epoch, Status: fleet.StatusActive, Load: load, Sequence: sequence})
		must(t, err)
	}
	send(2, 20)
	send(1, 10)
	v, err := w.Head("a")
	must(t, err)
	if v.Report.Load.InFlight != 20 || v.Report.Sequence != 2 {
		t.Errorf("load of report %d with %d in flight was kept", v.Report.Sequence, v.Report.Load.InFlight)
	}
}

func TestOneBatchWritesAndPublishesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		w := start(t, store, nil)
		synctest.Wait() // it runs
		release, saves := hold(store), store.Counts().Saves
		before := w.Snapshot().Revision
		var wait sync.WaitGroup
		for i := range 300 {
			wait.Go(func() { w.register(spec(fmt.Sprintf("h%03d", i)), nil) })
		}
		synctest.Wait() // one batch is being written, and everything else waits
		release()
		wait.Wait()
		if published := w.Snapshot().Revision - before; store.Counts().Saves > saves+2 || published > 2 || w.Snapshot().Heads != 300 {
			t.Errorf("%d saves and %d snapshots for 300 registrations at once, %d heads", store.Counts().Saves-saves, published, w.Snapshot().Heads)
		}
		w.stop()
	})
}

func TestAStoreThatIsDownRefusesChangesAndNothingElse(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	r := w.register(spec("a"), active())
	before := w.Snapshot()
	w.stop()
	w.store.Inject(memstore.Fault{Err: fmt.Errorf("%w: disk on fire", fleet.ErrStoreUnavailable)})
	w = restart(t, w)
	_, err := w.Register(t.Context(), spec("b"), nil)
	if !errors.Is(err, fleet.ErrStoreUnavailable) {
		t.Errorf("registering: %v", err)
	}
	if err := w.Deregister(t.Context(), "a"); !errors.Is(err, fleet.ErrStoreUnavailable) {
		t.Errorf("deregistering: %v", err)
	}
	if w.Snapshot() != before {
		t.Error("a change that was not written took effect")
	}
	if w.Ready().StoreUp {
		t.Error("ready although the store is down")
	}
	w.report("a", r.Lease.Epoch, fleet.StatusActive)
}

// restart runs the same registry again.
func restart(t *testing.T, w *world) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wait sync.WaitGroup
	wait.Go(func() { _ = w.Run(ctx) })
	t.Cleanup(func() { cancel(); wait.Wait() })
	return w
}

func TestTheFleetIsBounded(t *testing.T) {
	w := start(t, memstore.New(), func(o *registry.Options) { o.MaxHeads, o.MaxModelTypes = 2, 2 })
	w.register(spec("a"), nil)
	w.register(spec("b"), nil)
	if _, err := w.Register(t.Context(), spec("c"), nil); !errors.Is(err, fleet.ErrFleetFull) {
		t.Errorf("a third head: %v", err)
	}
	w.register(spec("a"), nil) // known ones may come back
	s := spec("a")
	s.ModelTypes = []string{"m", "n", "o"}
	if _, err := w.Register(t.Context(), s, nil); !errors.Is(err, fleet.ErrFleetFull) {
		t.Errorf("a third model type: %v", err)
	}
}

// eventsUntil reads the events up to and with one of a type, each as its type, what it
// is about and the reason.
func (w *world) eventsUntil(last string) string {
	w.Helper()
	var got []string
	for {
		e, lost, err := w.events.Next(w.Context())
		must(w, err)
		if lost > 0 {
			w.Errorf("%d events are lost", lost)
		}
		text := e.Type
		switch data := e.Data.(type) {
		case fleet.HeadState:
			text += " " + e.Head
			if data.Health == fleet.HealthFailing.String() {
				text += " failing"
			}
		case registry.Refused:
			text += fmt.Sprintf(" %s %s %s", e.Head, data.Reason, data.Detail)
		case registry.PoolState:
			text += fmt.Sprintf(" %s/%s %d of %d", data.ModelType, data.Region, data.Routable, data.Heads)
			if data.Ejected > 0 {
				text += fmt.Sprintf(", %d ejected", data.Ejected)
			}
			if data.Missing > 0 {
				text += fmt.Sprintf(", %d missing", data.Missing)
			}
		default:
			text += " " + e.Head
		}
		if got = append(got, text); e.Type == last {
			return strings.Join(got, "\n")
		}
	}
}

func TestEventsSayWhatHappensToAHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		r := w.register(spec("a"), active())
		w.report("a", r.Lease.Epoch, fleet.StatusDegraded)
		time.Sleep(10 * time.Second)
		w.report("a", r.Lease.Epoch, fleet.StatusActive)
		must(t, w.Deregister(t.Context(), "a"))
		want := `head.registered a
head.routable a
pool.available m/ 1 of 1
pool.available m/us 1 of 1
head.changed a
head.changed a
head.expired a
head.unroutable a health stale
pool.exhausted m/ 0 of 1, 1 missing
pool.exhausted m/us 0 of 1, 1 missing
head.recovered a
head.routable a
pool.available m/ 1 of 1
pool.available m/us 1 of 1
head.removed a
pool.exhausted m/ 0 of 0
pool.exhausted m/us 0 of 0`
		if have := w.eventsUntil(event.HeadRemoved) + "\n" + w.eventsUntil(event.PoolExhausted) + "\n" + w.eventsUntil(event.PoolExhausted); have != want {
			t.Errorf("events:\n%s\nwant:\n%s", have, want)
		}
	})
}

// What takes a head out of rotation is an event with its reason, and once the
// last one of a region is out, that as well.
func TestEventsSayWhichHeadsTakeNoRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), nil)
		east := spec("a")
		west := spec("b")
		west.Region = "west"
		w.register(east, active())
		r := w.register(west, active())
		w.eventsUntil(event.PoolAvailable)
		w.eventsUntil(event.PoolAvailable) // of the whole model
		w.eventsUntil(event.PoolAvailable)
		state := fleet.AdminMaintenance
		_, err := w.Patch(t.Context(), "a", registry.Patch{State: &state})
		must(t, err)
		if have, want := w.eventsUntil(event.PoolExhausted), "head.changed a\nhead.unroutable a admin_state maintenance\npool.exhausted m/us 0 of 1"; have != want {
			t.Errorf("events:\n%s\nwant:\n%s", have, want)
		}
		w.report("b", r.Lease.Epoch, fleet.StatusDraining)
		if have, want := w.eventsUntil(event.PoolExhausted), "head.changed b\nhead.unroutable b status draining\npool.exhausted m/ 0 of 2"; have != want {
			t.Errorf("events:\n%s\nwant:\n%s", have, want)
		}
	})
}

// What a restart finds is no news.
func TestAHeadThatARestartFindsIsNoEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		w := start(t, store, nil)
		w.register(spec("a"), active())
		w.stop()
		again := start(t, store, nil)
		must(t, again.Deregister(t.Context(), "a"))
		if have, want := again.eventsUntil(event.HeadRemoved), "head.removed a"; have != want {
			t.Errorf("events:\n%s\nwant:\n%s", have, want)
		}
	})
}

// A snapshot always equals one that is built from scratch, and a pool whose
// heads did not change is the same pointer.
func TestSnapshotsEqualAScratchBuild(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := start(t, memstore.New(), lasting)
		defer w.stop()
		epochs := map[string]uint64{}
		id := func(rt *rapid.T) string { return fmt.Sprintf("h%d", rapid.IntRange(0, 6).Draw(rt, "head")) }
		rt.Repeat(map[string]func(*rapid.T){
			"register": func(rt *rapid.T) {
				s := spec(id(rt))
				s.Region = rapid.SampledFrom([]string{"us", "eu"}).Draw(rt, "region")
				s.ModelTypes = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"m", "n", "o"}), 1, 3, rapid.ID).Draw(rt, "models")
				s.Weight = rapid.SampledFrom([]float64{0, 1, 2.5}).Draw(rt, "weight")
				s.MaxInFlight = rapid.SampledFrom([]int64{0, 7}).Draw(rt, "max_in_flight")
				var first *fleet.StatusReport
				if rapid.Bool().Draw(rt, "first") {
					first = active()
				}
				epochs[s.ID] = w.register(s, first).Lease.Epoch
			},
			"report": func(rt *rapid.T) {
				h := id(rt)
				status := fleet.Status(rapid.IntRange(1, 4).Draw(rt, "status"))
				_, _ = w.Report(h, fleet.StatusReport{Epoch: epochs[h], Status: status, Load: fleet.UnknownLoad()})
			},
			"patch": func(rt *rapid.T) {
				state := fleet.AdminState(rapid.IntRange(0, 2).Draw(rt, "state"))
				_, _ = w.Patch(t.Context(), id(rt), registry.Patch{State: &state})
			},
			"remove": func(rt *rapid.T) { _ = w.Deregister(t.Context(), id(rt)) },
			"": func(rt *rapid.T) {
				compare(rt, w)
			},
		})
	})
}

// compare fails t unless the snapshot is what a scratch build of the heads is.
func compare(t interface{ Fatalf(string, ...any) }, w *world) {
	s := w.Snapshot()
	views, _ := w.List(registry.Query{Limit: 100})
	want := map[string][]string{}
	activeHeads := 0
	regions := map[string]int{}
	for _, v := range views {
		h := v.Head
		regions[h.Region]++
		if h.Routable() && h.Health != fleet.HealthHeld {
			activeHeads++
		}
		for _, m := range h.ModelTypes {
			for _, group := range []string{m + "/", m + "/" + h.Region} {
				want[group+" heads"] = append(want[group+" heads"], h.ID)
				switch serves := h.Status == fleet.StatusActive || h.Status == fleet.StatusDegraded; {
				case h.Routable():
					key := group + " " + h.Status.String()
					want[key] = append(want[key], h.ID)
				case h.Health == fleet.HealthEjected && h.Admin == fleet.AdminEnabled && serves:
					want[group+" ejected"] = append(want[group+" ejected"], h.ID)
					if h.Trial {
						want[group+" trials"] = append(want[group+" trials"], h.ID)
					}
				}
			}
		}
	}
	got := map[string][]string{}
	note := func(g *fleet.Group, key string) {
		for name, heads := range map[string][]*fleet.Head{
			"heads": g.Heads, "active": g.Active.Heads, "degraded": g.Degraded.Heads, "ejected": g.Ejected.Heads, "trials": g.Trials,
		} {
			for _, h := range heads {
				got[key+" "+name] = append(got[key+" "+name], h.ID)
			}
		}
		compareRanked(t, &g.Active)
		compareRanked(t, &g.Degraded)
	}
	for m, p := range s.Pools {
		note(p.All, m+"/")
		for r, g := range p.Regions {
			note(g, m+"/"+r)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("groups\n%v\nwant\n%v", got, want)
	}
	if s.Heads != len(views) || s.Active != activeHeads || fmt.Sprint(s.Regions) != fmt.Sprint(regions) {
		t.Fatalf("%d heads, %d active, regions %v; want %d, %d, %v", s.Heads, s.Active, s.Regions, len(views), activeHeads, regions)
	}
}

// compareRanked fails t unless what stands beside the heads is theirs.
func compareRanked(t interface{ Fatalf(string, ...any) }, r *fleet.Ranked) {
	weight, least, most, limited := 0.0, math.Inf(1), 0.0, false
	if n := len(r.Heads); len(r.Lives) != n || len(r.Limits) != n || len(r.PerLoad) != n || len(r.Hashes) != n || len(r.Weights) != n {
		t.Fatalf("%d heads with slices of other lengths: %+v", n, r)
	}
	for i, h := range r.Heads {
		if r.Lives[i] != h.Live || r.Limits[i] != h.MaxInFlight || r.PerLoad[i] != 1/h.Capacity() || r.Hashes[i] != h.Hash || r.Weights[i] != h.Weight {
			t.Fatalf("what stands beside head %s is not its own: %+v", h.ID, r)
		}
		weight, least, most, limited = weight+h.Weight, min(least, h.Weight), max(most, h.Weight), limited || h.MaxInFlight > 0
	}
	if len(r.Heads) == 0 {
		least = 0
	}
	if r.Weight != weight || r.MinWeight != least || r.MaxWeight != most || r.Limited != limited {
		t.Fatalf("weight %v of %v to %v, limited %v; want %v of %v to %v, %v",
			r.Weight, r.MinWeight, r.MaxWeight, r.Limited, weight, least, most, limited)
	}
}

// Reports that come at the same time share snapshots, and each caller finds
// its own change in the snapshot when it is answered.
func TestReportsAtOnceAreAllPublished(t *testing.T) {
	const heads, rounds = 64, 20
	w := start(t, memstore.New(), lasting)
	var wait sync.WaitGroup
	for i := range heads {
		id := fmt.Sprintf("h%02d", i)
		epoch := w.register(spec(id), active()).Lease.Epoch
		wait.Go(func() {
			for n := range rounds {
				status := []fleet.Status{fleet.StatusDraining, fleet.StatusDegraded, fleet.StatusActive}[n%3]
				w.report(id, epoch, status)
				if h := published(w, id); h.Status != status {
					t.Errorf("%s reported %v, and the snapshot has %v", id, status, h.Status)
				}
			}
		})
	}
	wait.Wait()
	compare(t, w)
}

func published(w *world, id string) *fleet.Head {
	heads := w.Snapshot().Pools["m"].All.Heads
	at, _ := slices.BinarySearchFunc(heads, id, func(h *fleet.Head, id string) int { return strings.Compare(h.ID, id) })
	return heads[at]
}

func TestAnUntouchedPoolIsTheSamePointer(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	r := w.register(spec("a"), active())
	other := spec("b")
	other.ModelTypes = []string{"n"}
	w.register(other, active())
	m, n := w.Snapshot().Pools["m"], w.Snapshot().Pools["n"]
	w.report("a", r.Lease.Epoch, fleet.StatusDraining)
	if w.Snapshot().Pools["m"] == m || w.Snapshot().Pools["n"] != n {
		t.Error("a change of a must replace pool m and only that")
	}
	m = w.Snapshot().Pools["m"]
	w.report("a", r.Lease.Epoch, fleet.StatusDraining)
	if w.Snapshot().Pools["m"] != m {
		t.Error("a heartbeat replaced a pool")
	}
}

func TestListGoesThroughAllHeadsInPages(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	for i := range 25 {
		s := spec(fmt.Sprintf("h%02d", i))
		if i%2 == 0 {
			s.Region = "eu"
		}
		w.register(s, active())
	}
	for _, q := range []struct {
		registry.Query
		want int
	}{
		{registry.Query{}, 25},
		{registry.Query{Region: "eu"}, 13},
		{registry.Query{ModelType: "m", Region: "us"}, 12},
		{registry.Query{ModelType: "none"}, 0},
		{registry.Query{Status: "active"}, 25},
		{registry.Query{Status: "draining"}, 0},
	} {
		q.Limit = 4
		var ids []string
		for {
			views, next := w.List(q.Query)
			for _, v := range views {
				ids = append(ids, v.Head.ID)
			}
			if q.Cursor = next; next == "" {
				break
			}
		}
		if len(ids) != q.want || !slices.IsSorted(ids) {
			t.Errorf("%+v lists %v", q, ids)
		}
	}
}

func TestMetricsExistFromTheFirstScrapeAndStayBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its clock stands: no lease ends however long this takes
		w := start(t, memstore.New(), nil)
		for _, name := range []string{"head_registrations_total", "head_status_updates_total", "active_heads", "headway_reports_dropped_total"} {
			if got := value(t, w.metrics, name); got != 0 {
				t.Errorf("%s begins at %v", name, got)
			}
		}
		for i := range 1200 {
			s := spec(fmt.Sprintf("h%d", i))
			s.Region = fmt.Sprintf("r%d", i)
			w.register(s, active())
		}
		if value(t, w.metrics, "head_registrations_total") != 1200 || value(t, w.metrics, "active_heads") != 1200 {
			t.Error("registrations are not counted")
		}
		if n := series(t, w.metrics, "headway_head_in_flight"); n != 101 {
			t.Errorf("%d series of heads in flight; want 100 and other", n)
		}
		if n := series(t, w.metrics, "headway_heads"); n != 1001 {
			t.Errorf("%d series of heads by status; want 1,000 pairs and other", n)
		}
		// After a restart the heads have their names before they register again.
		w.stop()
		w = start(t, w.store, nil)
		if n := series(t, w.metrics, "headway_head_in_flight"); n != 101 {
			t.Errorf("%d series of heads in flight after a restart; want 100 and other", n)
		}
	})
}

func family(t testing.TB, reg *prometheus.Registry, name string) (values []float64) {
	t.Helper()
	families, err := reg.Gather()
	must(t, err)
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				values = append(values, m.GetCounter().GetValue()+m.GetGauge().GetValue())
			}
		}
	}
	return values
}

func value(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	values := family(t, reg, name)
	if len(values) == 0 {
		t.Fatalf("no metric %s", name)
	}
	return values[0]
}

func series(t testing.TB, reg *prometheus.Registry, name string) int {
	t.Helper()
	return len(family(t, reg, name))
}

func TestLoadIsUnknownAndNeverZero(t *testing.T) {
	load := fleet.UnknownLoad()
	if load.Requests() != fleet.Unknown || !math.IsNaN(load.KVCacheUsage) {
		t.Error("an empty report must not look idle")
	}
	load.Queued = 3
	if load.Requests() != 3 {
		t.Errorf("3 queued are %d requests", load.Requests())
	}
}

func TestAStoreThatCameBackIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		w := start(t, store, nil)
		synctest.Wait()
		store.Inject(memstore.Fault{Err: fleet.ErrStoreUnavailable})
		if _, err := w.Register(t.Context(), spec("a"), nil); !errors.Is(err, fleet.ErrStoreUnavailable) {
			t.Fatalf("registered with error %v", err)
		}
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if w.Ready().StoreUp {
			t.Error("a store that fails counts as up")
		}
		store.Inject(memstore.Fault{})
		time.Sleep(2 * time.Second)
		if !w.Ready().StoreUp {
			t.Error("nobody noticed that the store is back, although nothing was registered")
		}
		w.stop()
	})
}

func TestADiskThatHangsKeepsNoSilentHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		w := start(t, store, nil)
		w.register(spec("a"), active())
		synctest.Wait()
		release := hold(store) // after Wait: nothing is being written
		go func() { _, _ = w.Register(context.WithoutCancel(t.Context()), spec("b"), nil) }()
		time.Sleep(10 * time.Second)
		if got := w.health("a"); got != "stale" {
			t.Errorf("after 10 s of silence the head is %s while the disk hangs", got)
		}
		release()
		synctest.Wait()
		if got := w.health("a"); got != "stale" {
			t.Errorf("the end of the hanging made the head %s", got)
		}
		w.stop()
	})
}

// A restart assumes that those are healthy who were when they last changed.
func TestARestartDoesNotReviveTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		w := start(t, store, nil)
		for _, id := range []string{"fine", "offline", "silent", "f1", "f2", "f3"} {
			w.register(spec(id), active())
		}
		epoch := w.register(spec("offline"), active()).Lease.Epoch
		w.report("offline", epoch, fleet.StatusOffline)
		ctx, cancel := context.WithCancel(t.Context())
		go w.beat(ctx, "fine", "f1", "f2", "f3")
		time.Sleep(20 * time.Second)
		cancel()
		w.stop()
		again := start(t, store, nil)
		if got := strings.Join(again.routable(), " "); got != "f1 f2 f3 fine" {
			t.Errorf("after the restart %s are routable", got)
		}
		again.stop()
	})
}

func TestAHeadCalledOtherDoesNotBreakTheScrape(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	w.register(spec("other"), active())
	if _, err := w.metrics.Gather(); err != nil {
		t.Error(err)
	}
}

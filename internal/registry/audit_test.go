package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/audit"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// trail writes down what a registry records.
type trail struct {
	audit.Unrecorded

	mu     sync.Mutex
	lines  []string
	refuse error
}

func (t *trail) line(s string) {
	t.mu.Lock()
	t.lines = append(t.lines, s)
	t.mu.Unlock()
}

func (t *trail) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	t.lines = nil
	return lines
}

func (t *trail) attach(o *registry.Options) { o.Audit = t }

func (t *trail) Happened(e audit.Entry) {
	t.line(e.Actor.ID + " " + e.Action + " " + e.Target.ID + " " + string(e.Outcome) + " " + string(e.After) + e.Reason)
}

func (t *trail) Begin(_ context.Context, e audit.Entry) (audit.EndFunc, error) {
	if t.refuse != nil {
		return nil, t.refuse
	}
	t.line(e.Actor.ID + " " + e.Action + " " + e.Target.ID + " " + string(e.Before) + string(e.After))
	return func(o audit.Outcome, reason string, _ json.RawMessage) { t.line(string(o) + reason) }, nil
}

// A caller that leaves while its change is written changes nothing about it: the
// trail has what is in effect. What is not taken yet does not happen.
func TestACallerThatLeavesIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trail{}
		store := memstore.New()
		w := start(t, store, tr.attach)
		w.register(spec("a"), active())
		w.register(spec("b"), active())
		tr.take()
		synctest.Wait() // what follows the registrations is written
		release := hold(store)
		ctx, leave := context.WithCancel(t.Context())
		drain := fleet.AdminDraining
		errs := make(chan error, 3)
		go func() { _, err := w.Patch(ctx, "a", registry.Patch{State: &drain}); errs <- err }()
		synctest.Wait() // it is written
		go func() { errs <- w.Deregister(ctx, "b") }()
		synctest.Wait() // it waits
		go func() { _, err := w.Register(ctx, spec("c"), nil); errs <- err }()
		synctest.Wait()
		leave()
		for range 2 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("a change that waited got %v", err)
			}
		}
		release()
		if err := <-errs; err != nil {
			t.Errorf("a change that was written got %v", err)
		}
		w.stop()
		lines := tr.take()
		slices.Sort(lines)
		want := []string{
			` head.deregister b {"admin_state":"enabled"}`, ` head.patch a {"admin_state":"enabled"}{"admin_state":"draining"}`,
			"failurewaiting for the store: context canceled", "success",
		}
		if !slices.Equal(lines, want) {
			t.Errorf("recorded %q, want %q", lines, want)
		}
		if v, err := w.Head("a"); err != nil || v.Record.Admin.State != fleet.AdminDraining {
			t.Errorf("a: %+v, %v", v.Record.Admin, err)
		}
		if _, err := w.Head("b"); err != nil {
			t.Errorf("b: %v; want it there", err)
		}
		if _, err := w.Head("c"); !errors.Is(err, fleet.ErrHeadNotFound) {
			t.Errorf("c: %v; want it never registered", err)
		}
	})
}

func TestWhatTheAuditTrailLearns(t *testing.T) {
	tr := &trail{}
	store := memstore.New()
	w := start(t, store, tr.attach)
	ctx := audit.WithIdentity(t.Context(), &audit.Identity{Actor: audit.Actor{Type: "key", ID: "ada"}})
	expect := func(what string, want ...string) {
		t.Helper()
		if got := tr.take(); !slices.Equal(got, want) {
			t.Errorf("%s: recorded %q, want %q", what, got, want)
		}
	}
	register := func(s fleet.Spec) {
		t.Helper()
		_, err := w.Register(ctx, s, active())
		must(t, err)
	}
	register(spec("a"))
	expect("a new head", `ada head.register a success {"endpoint":"http://127.0.0.1:9000","model_types":["m"],"own_weight":1}`)
	register(spec("a"))
	expect("a new epoch, which changes nothing that lasts")
	moved := spec("a")
	moved.Endpoint = "http://127.0.0.1:9001"
	_, err := w.TakeOver(ctx, moved, active())
	must(t, err)
	expect("another endpoint", `ada head.register a success {"endpoint":"http://127.0.0.1:9001","model_types":["m"],"own_weight":1}`)

	drain := fleet.AdminDraining
	_, err = w.Patch(ctx, "a", registry.Patch{State: &drain})
	must(t, err)
	expect("a drain", `ada head.patch a {"admin_state":"enabled"}{"admin_state":"draining"}`, "success")

	store.Inject(memstore.Fault{Err: fleet.ErrStoreUnavailable})
	enable := fleet.AdminEnabled
	if _, err := w.Patch(ctx, "a", registry.Patch{State: &enable}); !errors.Is(err, fleet.ErrStoreUnavailable) {
		t.Errorf("a store that is down: %v", err)
	}
	if got := tr.take(); len(got) != 2 || got[1][:len("failure")] != "failure" {
		t.Errorf("a store that is down: recorded %q; want an intent and a failure", got)
	}
	store.Inject(memstore.Fault{})

	tr.refuse = errors.New("no trail")
	if err := w.Deregister(ctx, "a"); !errors.Is(err, tr.refuse) {
		t.Errorf("a trail that cannot be written: %v", err)
	}
	if _, err := w.Patch(ctx, "a", registry.Patch{State: &enable}); !errors.Is(err, tr.refuse) {
		t.Errorf("a trail that cannot be written: %v", err)
	}
	if v, err := w.Head("a"); err != nil || v.Record.Admin.State != fleet.AdminDraining {
		t.Errorf("without an intent a head changed: %+v, %v", v.Record.Admin, err)
	}
	register(spec("b")) // heads come back even if the trail fails
	tr.refuse = nil
	tr.take()

	must(t, w.Deregister(ctx, "a"))
	expect("a removal", `ada head.deregister a {"admin_state":"draining"}`, "success")
	if err := w.Deregister(ctx, "nobody"); !errors.Is(err, fleet.ErrHeadNotFound) {
		t.Errorf("deregister: %v", err)
	}
	if _, err := w.Patch(ctx, "nobody", registry.Patch{State: &drain}); !errors.Is(err, fleet.ErrHeadNotFound) {
		t.Errorf("patch: %v", err)
	}
	expect("heads that are not there")
}

// as returns a context in which a key acts.
func as(ctx context.Context, id string) context.Context {
	return audit.WithIdentity(ctx, &audit.Identity{Actor: audit.Actor{Type: "key", ID: id}})
}

// A key that registers and removes its own head again and again does not fill the
// trail; what another actor does to that head is there, and how much is not.
func TestAHeadThatComesAndGoesDoesNotFillTheTrail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trail{}
		w := start(t, memstore.New(), tr.attach)
		rounds := func(n int) {
			for range n {
				_, err := w.Register(as(t.Context(), "head"), spec("a"), active())
				must(t, err)
				must(t, w.Deregister(as(t.Context(), "head"), "a"))
			}
		}
		rounds(100)
		if got := tr.take(); len(got) != 30 { // an entry for each of ten registrations, and two for each removal
			t.Errorf("100 rounds are %d entries", len(got))
		}
		_, err := w.Register(as(t.Context(), "head"), spec("a"), active())
		must(t, err)
		must(t, w.Deregister(as(t.Context(), "ada"), "a"))
		if got := tr.take(); len(got) != 2 || !strings.HasPrefix(got[0], "ada head.deregister a") {
			t.Errorf("an operator's removal is recorded as %q", got)
		}
		time.Sleep(59 * time.Second)
		if got := tr.take(); len(got) != 0 {
			t.Errorf("before the minute ends: %q", got)
		}
		time.Sleep(2 * time.Second)
		if got := tr.take(); len(got) != 1 || got[0] != " head.unrecorded a success registrations and removals of this head that were not recorded within a minute: 181, the last by key head" {
			t.Errorf("a minute later: %q", got)
		}
		rounds(11)
		if got := tr.take(); len(got) != 30 || strings.Contains(got[0], "not recorded") {
			t.Errorf("in the next minute: %q", got)
		}
		time.Sleep(time.Minute - time.Millisecond)
		tr.take()
		time.Sleep(time.Second)
		if got := tr.take(); len(got) != 1 || !strings.Contains(got[0], "within a minute: 2,") {
			t.Errorf("the minute after: %q", got)
		}
		for i := range 5000 {
			s := spec(fmt.Sprintf("h%d", i))
			w.register(s, active())
			must(t, w.Deregister(t.Context(), s.ID))
		}
		if n := w.KeptRecordings(); n != 4096 {
			t.Errorf("%d heads that left are remembered", n)
		}
	})
}

// What the trail leaves out stands in the entry of the next registration, or in
// an entry of its own when the service ends.
func TestWhatIsLeftOutIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trail{}
		w := start(t, memstore.New(), tr.attach)
		changed := func(i int) fleet.Spec {
			s := spec("a")
			s.MaxInFlight = int64(i + 1)
			return s
		}
		time.Sleep(500 * time.Millisecond) // that minutes end between two looks
		for i := range 15 {
			w.register(changed(i), active())
		}
		time.Sleep(time.Minute)
		tr.take()
		for i := range 10 {
			w.register(changed(i), active())
		}
		tr.take()
		time.Sleep(59*time.Second + 999*time.Millisecond)
		w.register(changed(20), active())
		time.Sleep(2 * time.Millisecond) // the minute is over, and none has looked
		w.register(changed(21), active())
		if got := tr.take(); len(got) != 1 || !strings.HasSuffix(got[0], "registrations and removals of this head that were not recorded before this one: 1") {
			t.Errorf("the next: %q", got)
		}
		for i := range 12 {
			w.register(changed(i), active())
		}
		tr.take()
		w.stop()
		if got := tr.take(); len(got) != 1 || !strings.Contains(got[0], "not recorded within a minute: 3,") {
			t.Errorf("at the end: %q", got)
		}
	})
}

// A removal is left out of the trail only if it removes what the same actor's own
// registration made, which was left out as well.
func TestRemovalsOfWhatOthersMadeAreRecorded(t *testing.T) {
	at := func(endpoint int) fleet.Spec {
		s := spec("a")
		s.Endpoint = fmt.Sprintf("http://127.0.0.1:%d", 9000+endpoint)
		return s
	}
	own := func(t *testing.T, w *world) { // more registrations than are recorded, the last by the key head
		for range 10 {
			_, err := w.Register(as(t.Context(), "head"), at(0), active())
			must(t, err)
			must(t, w.Deregister(as(t.Context(), "head"), "a"))
		}
		_, err := w.Register(as(t.Context(), "head"), at(0), active())
		must(t, err)
	}
	for name, c := range map[string]struct {
		before  func(*testing.T, *world)
		entries int
	}{
		"its own": {own, 0},
		"its own, which it changed": {func(t *testing.T, w *world) {
			own(t, w)
			must2(t)(w.TakeOver(as(t.Context(), "head"), at(1), active()))
		}, 0},
		"an admin's, which it took over": {func(t *testing.T, w *world) {
			must2(t)(w.Register(as(t.Context(), "admin"), at(0), active()))
			for i := range 12 {
				must2(t)(w.TakeOver(as(t.Context(), "head"), at(i+1), active()))
			}
		}, 2},
		"its own, which another took over": {func(t *testing.T, w *world) {
			own(t, w)
			must2(t)(w.TakeOver(as(t.Context(), "other"), at(1), active()))
		}, 2},
		"its own, which another took over for a while": {func(t *testing.T, w *world) {
			own(t, w)
			must2(t)(w.TakeOver(as(t.Context(), "other"), at(1), active()))
			must2(t)(w.TakeOver(as(t.Context(), "head"), at(2), active()))
		}, 2},
		"its own, which an operator drained": {func(t *testing.T, w *world) {
			own(t, w)
			drain := fleet.AdminDraining
			_, err := w.Patch(as(t.Context(), "ada"), "a", registry.Patch{State: &drain})
			must(t, err)
		}, 2},
		"its own, after the minute": {func(t *testing.T, w *world) {
			own(t, w)
			time.Sleep(time.Minute + time.Second)
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := &trail{}
				w := start(t, memstore.New(), tr.attach)
				c.before(t, w)
				tr.take()
				must(t, w.Deregister(as(t.Context(), "head"), "a"))
				if got := tr.take(); len(got) != c.entries || len(got) > 0 && !strings.HasPrefix(got[0], "head head.deregister a") {
					t.Errorf("recorded %q; want %d entries", got, c.entries)
				}
			})
		})
	}
}

// A head that another takes over, or an operator drains, while its removal waits
// is not removed without a record.
func TestARemovalLooksAgain(t *testing.T) {
	for name, change := range map[string]func(*world, fleet.Spec) error{
		"taken over": func(w *world, moved fleet.Spec) error {
			_, err := w.TakeOver(as(w.Context(), "other"), moved, active())
			return err
		},
		"drained": func(w *world, _ fleet.Spec) error {
			drain := fleet.AdminDraining
			_, err := w.Patch(as(w.Context(), "ada"), "a", registry.Patch{State: &drain})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { removeAfter(t, change) })
	}
}

func removeAfter(t *testing.T, change func(*world, fleet.Spec) error) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trail{}
		store := memstore.New()
		w := start(t, store, tr.attach)
		for range 10 {
			must2(t)(w.Register(as(t.Context(), "head"), spec("a"), active()))
			must(t, w.Deregister(as(t.Context(), "head"), "a"))
		}
		must2(t)(w.Register(as(t.Context(), "head"), spec("a"), active()))
		tr.take()
		synctest.Wait()
		release := hold(store)
		errs := make(chan error, 3)
		go func() { _, err := w.Register(t.Context(), spec("b"), nil); errs <- err }()
		synctest.Wait() // it is written
		moved := spec("a")
		moved.Endpoint = "http://127.0.0.1:9001"
		go func() { errs <- change(w, moved) }()
		synctest.Wait()
		go func() { errs <- w.Deregister(as(t.Context(), "head"), "a") }()
		synctest.Wait()
		release()
		for range 3 {
			must(t, <-errs)
		}
		if got := strings.Join(tr.take(), "\n"); !strings.Contains(got, "head head.deregister a") {
			t.Errorf("recorded %q", got)
		}
	})
}

// must2 demands that a registration succeeds.
func must2(t *testing.T) func(registry.Registration, error) {
	t.Helper()
	return func(_ registry.Registration, err error) {
		t.Helper()
		must(t, err)
	}
}

package fleet_test

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
)

// trail writes down what a registry records.
type trail struct {
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

func (t *trail) attach(o *fleet.Options) {
	o.Note = func(e audit.Entry) {
		t.line(e.Actor.ID + " " + e.Action + " " + e.Target.ID + " " + string(e.Outcome) + " " + string(e.After) + e.Reason)
	}
	o.Begin = func(_ context.Context, e audit.Entry) (audit.EndFunc, error) {
		if t.refuse != nil {
			return nil, t.refuse
		}
		t.line(e.Actor.ID + " " + e.Action + " " + e.Target.ID + " " + string(e.Before) + string(e.After))
		return func(o audit.Outcome, reason string, _ json.RawMessage) { t.line(string(o) + reason) }, nil
	}
}

// A caller that leaves while its change is written changes nothing about it: the
// trail has what is in effect. What is not taken yet does not happen.
func TestACallerThatLeavesIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trail{}
		store := newFakeStore(t)
		w := start(t, store, tr.attach)
		w.register(spec("a"), active())
		w.register(spec("b"), active())
		tr.take()
		synctest.Wait() // what follows the registrations is written
		store.block = make(chan struct{})
		ctx, leave := context.WithCancel(t.Context())
		drain := fleet.AdminDraining
		errs := make(chan error, 3)
		go func() { _, err := w.Patch(ctx, "a", fleet.Patch{State: &drain}); errs <- err }()
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
		close(store.block)
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
	store := newFakeStore(t)
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
	_, err = w.Patch(ctx, "a", fleet.Patch{State: &drain})
	must(t, err)
	expect("a drain", `ada head.patch a {"admin_state":"enabled"}{"admin_state":"draining"}`, "success")

	store.failWith(fleet.ErrStoreUnavailable)
	enable := fleet.AdminEnabled
	if _, err := w.Patch(ctx, "a", fleet.Patch{State: &enable}); !errors.Is(err, fleet.ErrStoreUnavailable) {
		t.Errorf("a store that is down: %v", err)
	}
	if got := tr.take(); len(got) != 2 || got[1][:len("failure")] != "failure" {
		t.Errorf("a store that is down: recorded %q; want an intent and a failure", got)
	}
	store.failWith(nil)

	tr.refuse = errors.New("no trail")
	if err := w.Deregister(ctx, "a"); !errors.Is(err, tr.refuse) {
		t.Errorf("a trail that cannot be written: %v", err)
	}
	if _, err := w.Patch(ctx, "a", fleet.Patch{State: &enable}); !errors.Is(err, tr.refuse) {
		t.Errorf("a trail that cannot be written: %v", err)
	}
	if v, err := w.Head("a"); err != nil || v.Record.Admin.State != fleet.AdminDraining {
		t.Errorf("without an intent a head changed: %+v, %v", v.Record.Admin, err)
	}
	register(spec("b")) // heads come back whatever becomes of the trail
	tr.refuse = nil
	tr.take()

	must(t, w.Deregister(ctx, "a"))
	expect("a removal", `ada head.deregister a {"admin_state":"draining"}`, "success")
	if err := w.Deregister(ctx, "nobody"); !errors.Is(err, fleet.ErrHeadNotFound) {
		t.Errorf("deregister: %v", err)
	}
	if _, err := w.Patch(ctx, "nobody", fleet.Patch{State: &drain}); !errors.Is(err, fleet.ErrHeadNotFound) {
		t.Errorf("patch: %v", err)
	}
	expect("heads that are not there")
}

// A key that registers and removes its own head again and again does not fill the
// trail; what another actor does to that head is there.
func TestAHeadThatComesAndGoesDoesNotFillTheTrail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trail{}
		w := start(t, newFakeStore(t), tr.attach)
		as := func(id string) context.Context {
			return audit.WithIdentity(t.Context(), &audit.Identity{Actor: audit.Actor{Type: "key", ID: id}})
		}
		rounds := func(n int) {
			for range n {
				_, err := w.Register(as("head"), spec("a"), active())
				must(t, err)
				must(t, w.Deregister(as("head"), "a"))
			}
		}
		rounds(100)
		if got := tr.take(); len(got) != 30 { // an entry for each of ten registrations, and two for each removal
			t.Errorf("100 rounds are %d entries", len(got))
		}
		_, err := w.Register(as("head"), spec("a"), active())
		must(t, err)
		must(t, w.Deregister(as("ada"), "a"))
		if got := tr.take(); len(got) != 2 || !strings.HasPrefix(got[0], "ada head.deregister a") {
			t.Errorf("an operator's removal is recorded as %q", got)
		}
		time.Sleep(time.Minute)
		rounds(1)
		if got := tr.take(); len(got) != 3 || !strings.HasSuffix(got[0], "181 registrations and removals of this head were not recorded before this one") {
			t.Errorf("a minute later: %q", got)
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

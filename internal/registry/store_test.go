package registry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/event"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// stepped is a registry that does not run, over a store that others may write too.
func stepped(t testing.TB, store fleet.Store) *world {
	w := start(t, memstore.New(), func(o *registry.Options) { lasting(o); o.Store = store })
	w.stop()
	return w
}

func (w *world) step() { w.Step(w.Context(), time.Now()) }

// news are the types of the events about a head since the last call.
func (w *world) news(id string) (types []string) {
	w.Helper()
	for {
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		e, _, err := w.events.Next(ctx)
		if err != nil {
			return types
		}
		if e.Head == id && slices.Contains([]string{event.HeadRegistered, event.HeadChanged, event.HeadRemoved}, e.Type) {
			if types = append(types, e.Type); e.Endpoint != spec(id).Endpoint { // its connections are closed by that
				w.Errorf("%s of %s names the endpoint %q", e.Type, id, e.Endpoint)
			}
		}
	}
}

// Two registries over one store hold the same heads: what one writes the other
// takes over, and each change once.
func TestWhatOthersWriteIsTakenOver(t *testing.T) {
	store := memstore.New()
	a, b := stepped(t, store), stepped(t, store)
	first := a.register(spec("x"), active())
	a.step() // its own changes come back
	if got := a.news("x"); !slices.Equal(got, []string{event.HeadRegistered}) {
		t.Errorf("the writer published %v", got)
	}
	b.step()
	v, err := b.Head("x")
	must(t, err)
	if v.Head.Health != fleet.HealthAssumed || v.Head.Epoch != first.Lease.Epoch || !slices.Equal(b.routable(), []string{"x"}) {
		t.Errorf("the other holds it as %s with epoch %d, routable %v", v.Head.Health, v.Head.Epoch, b.routable())
	}
	if got := b.news("x"); len(got) == 0 || got[0] != event.HeadRegistered {
		t.Errorf("the other published %v", got)
	}
	if got := value(t, b.metrics, "head_registrations_total"); got != 0 {
		t.Errorf("the other counts %g registrations", got)
	}

	state := fleet.AdminDraining
	_, err = b.Patch(t.Context(), "x", registry.Patch{State: &state})
	must(t, err)
	a.step()
	if v, _ := a.Head("x"); v.Head.Admin != fleet.AdminDraining || v.Head.Epoch != first.Lease.Epoch || v.Head.Health != fleet.HealthFresh {
		t.Errorf("after a patch elsewhere it is %s, %s, of epoch %d", v.Head.Admin, v.Head.Health, v.Head.Epoch)
	}
	b.register(spec("x"), nil)
	changed := spec("x")
	changed.Version = "2"
	again := b.register(changed, nil)
	a.step()
	if v, _ := a.Head("x"); v.Head.Version != "2" || v.Head.Epoch != again.Lease.Epoch {
		t.Errorf("after a registration elsewhere it has version %q and epoch %d; want 2 and %d", v.Head.Version, v.Head.Epoch, again.Lease.Epoch)
	}
	a.news("x")
	must(t, b.Deregister(t.Context(), "x"))
	a.step()
	if got := a.news("x"); a.health("x") != "gone" || !slices.Equal(got, []string{event.HeadRemoved}) {
		t.Errorf("after a removal elsewhere it is %s, published %v", a.health("x"), got)
	}
	if got := value(t, a.metrics, "headway_heads_removed_total"); got != 0 {
		t.Errorf("a removal elsewhere is counted %g times", got)
	}
}

// A watch that is late brings nothing back.
func TestALateWatchDoesNotReviveAHead(t *testing.T) {
	store := memstore.New()
	w := stepped(t, store)
	for range 3 {
		w.register(spec("x"), active())
		must(t, w.Deregister(t.Context(), "x"))
	}
	w.news("x")
	w.step()
	w.register(spec("y"), nil)
	must(t, w.Deregister(t.Context(), "y"))
	w.register(spec("y"), nil)
	w.step()
	if got := w.news("x"); len(got) > 0 || w.health("x") != "gone" || w.health("y") != "pending" {
		t.Errorf("x is %s and y %s; published %v", w.health("x"), w.health("y"), got)
	}
}

// Who was away for longer than changes are kept takes over the whole.
func TestAWatchThatIsFarBehind(t *testing.T) {
	store := memstore.New()
	a, b := stepped(t, store), stepped(t, store)
	for _, id := range []string{"goes", "stays"} {
		b.register(spec(id), active())
	}
	a.step()
	must(t, b.Deregister(t.Context(), "goes"))
	for i := range 10_000 {
		weight := float64(1 + i%2)
		_, err := b.Patch(t.Context(), "stays", registry.Patch{Weight: &weight})
		must(t, err)
	}
	a.register(spec("own"), nil)
	a.step()
	v, err := a.Head("stays")
	must(t, err)
	if a.health("goes") != "gone" || v.Record.Admin.Weight != 2 || a.health("own") != "pending" {
		t.Errorf("goes is %s, own is %s, stays has weight %g", a.health("goes"), a.health("own"), v.Record.Admin.Weight)
	}
}

func TestRegistriesThatRunFollowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		a, b := start(t, store, nil), start(t, store, nil)
		a.register(spec("x"), active())
		synctest.Wait()
		if got := b.routable(); !slices.Equal(got, []string{"x"}) {
			t.Errorf("the other routes to %v", got)
		}
		lost := errors.New("the answer was lost")
		store.Inject(memstore.Fault{Err: lost, After: true, Reads: true, Times: 3}) // of this call, and the next of both watches
		if err := b.Deregister(t.Context(), "x"); !errors.Is(err, lost) {
			t.Errorf("a write whose answer is lost: %v", err)
		}
		time.Sleep(time.Minute)
		if got := a.health("x"); got != "gone" {
			t.Errorf("after the watch works again the head is %s", got)
		}
		a.stop()
		b.stop()
	})
}

// What another process wrote meanwhile is read and decided on.
func TestAConflictIsDecidedAgain(t *testing.T) {
	store := memstore.New()
	a, b := stepped(t, store), stepped(t, store)
	a.register(spec("x"), active())
	b.step()
	weight, state := 2.5, fleet.AdminDraining
	_, err := b.Patch(t.Context(), "x", registry.Patch{Weight: &weight})
	must(t, err)
	v, err := a.Patch(t.Context(), "x", registry.Patch{State: &state})
	must(t, err)
	if v.Record.Admin.Weight != weight || v.Record.Admin.State != state {
		t.Errorf("both changes make %+v", v.Record.Admin)
	}
	must(t, b.Deregister(t.Context(), "x"))
	other := 3.5
	if _, err := a.Patch(t.Context(), "x", registry.Patch{Weight: &other}); !errors.Is(err, fleet.ErrHeadNotFound) {
		t.Errorf("a head that another removed: %v", err)
	}
	if got := a.health("x"); got != "gone" {
		t.Errorf("it is %s", got)
	}
	a.register(spec("y"), active())
	elsewhere := spec("y")
	elsewhere.Endpoint = "http://127.0.0.1:9001"
	var contested *fleet.ContestedError
	if _, err := b.Register(t.Context(), elsewhere, nil); !errors.As(err, &contested) {
		t.Errorf("an id that another process has just given away: %v", err)
	}
}

// contended is a store in which another process is always faster at one head.
type contended struct {
	*memstore.Store
	id string
}

func (s *contended) Save(ctx context.Context, changes []feed.Change[fleet.Record]) error {
	if slices.ContainsFunc(changes, func(c feed.Change[fleet.Record]) bool { return c.ID == s.id }) {
		return fmt.Errorf("%w: %s", fleet.ErrConflict, s.id)
	}
	return s.Store.Save(ctx, changes)
}

func TestAConflictThatLastsFailsOnlyItsOwnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &contended{Store: memstore.New()}
		w := start(t, store.Store, func(o *registry.Options) { lasting(o); o.Store = store })
		for _, id := range []string{"a", "b", "c"} {
			w.register(spec(id), nil)
		}
		synctest.Wait()
		store.id = "a"
		release := hold(store.Store)
		state := fleet.AdminDraining
		results := map[string]error{}
		var mu sync.Mutex
		var wait sync.WaitGroup
		for _, id := range []string{"c", "a", "b"} {
			wait.Go(func() {
				_, err := w.Patch(t.Context(), id, registry.Patch{State: &state})
				mu.Lock()
				results[id] = err
				mu.Unlock()
			})
			synctest.Wait() // the first is being written, the others wait
		}
		release()
		wait.Wait()
		if !errors.Is(results["a"], fleet.ErrConflict) || results["b"] != nil || results["c"] != nil {
			t.Errorf("results %v", results)
		}
		w.stop()
	})
}

// A write whose end is not known may be there; the next change finds it.
func TestAWriteOfUnknownEndIsFound(t *testing.T) {
	store := memstore.New()
	w := stepped(t, store)
	w.register(spec("x"), active())
	weight, state := 2.5, fleet.AdminDraining
	store.Inject(memstore.Fault{Err: errors.New("the answer was lost"), After: true, Times: 1})
	if _, err := w.Patch(t.Context(), "x", registry.Patch{Weight: &weight}); err == nil {
		t.Fatal("a write that failed succeeded")
	}
	v, err := w.Patch(t.Context(), "x", registry.Patch{State: &state})
	must(t, err)
	if v.Record.Admin.Weight != weight || v.Record.Admin.State != state {
		t.Errorf("the head has %+v", v.Record.Admin)
	}
}

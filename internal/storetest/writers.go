package storetest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/feed"
	"headway/internal/policy"
	"headway/internal/registry"
	"headway/internal/routing"
)

// replica is a registry and a router over the store, as each process has them.
type replica struct {
	fleet  *registry.Registry
	router *routing.Router
}

func newReplica(t testing.TB, s Store) replica {
	t.Helper()
	metrics, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	events := event.New(metrics)
	heads, err := registry.New(registry.Options{Store: s, Events: events, Metrics: metrics, Log: log, Lease: registry.LeaseOptions{BaseInterval: time.Hour}})
	must(t, err)
	must(t, heads.Load(t.Context()))
	router, err := routing.New(routing.Options{Fleet: heads, Policies: s, Events: events, Metrics: metrics, Log: log})
	must(t, err)
	must(t, router.LoadPolicy(t.Context()))
	return replica{heads, router}
}

// change registers two heads again and again and changes them, ten times.
func (r replica) change(t *testing.T, patch func(round int) registry.Patch) {
	for round := range 10 {
		for _, id := range []string{"a", "b"} {
			spec := record(id).Spec
			spec.Endpoint = "http://10.0.0.1:8000"
			if _, err := r.fleet.Register(t.Context(), spec, nil); err != nil {
				t.Errorf("registering: %v", err)
			}
			if _, err := r.fleet.Patch(t.Context(), id, patch(round)); err != nil {
				t.Errorf("changing %s: %v", id, err)
			}
		}
	}
}

// twoRegistries has two registries change the same heads at the same time.
// Nothing that was answered is lost, and both hold in the end what is stored.
func twoRegistries(t *testing.T, open Open) {
	s, reopen := open(t)
	both := []replica{newReplica(t, s), newReplica(t, s)}
	var all sync.WaitGroup
	all.Go(func() {
		both[0].change(t, func(round int) registry.Patch {
			weight := float64(1 + round)
			return registry.Patch{Weight: &weight}
		})
	})
	all.Go(func() {
		both[1].change(t, func(round int) registry.Patch {
			labels := map[string]string{"round": string(rune('a' + round))}
			return registry.Patch{Labels: &labels}
		})
	})
	all.Wait()
	check := func(r replica) {
		t.Helper()
		r.fleet.Step(t.Context(), time.Now())
		for _, id := range []string{"a", "b"} {
			v, err := r.fleet.Head(id)
			must(t, err)
			if a := v.Record.Admin; a.Weight != 10 || a.Labels["round"] != "j" {
				t.Errorf("%s has %+v; want both last changes", id, a)
			}
		}
	}
	check(both[0])
	check(both[1])
	must(t, both[0].fleet.Deregister(t.Context(), "a"))
	both[1].fleet.Step(t.Context(), time.Now())
	if n := both[1].fleet.Snapshot().Heads; n != 1 {
		t.Errorf("after one head was removed by the other there are %d", n)
	}
	if list := heads(reopen()).all(t); len(list) != 1 || list[0].Admin.Weight != 10 {
		t.Errorf("the store has %+v", list)
	}
}

// twoRouters has two routers change the policy at the same time.
func twoRouters(t *testing.T, open Open) {
	s, _ := open(t)
	both := []replica{newReplica(t, s), newReplica(t, s)}
	ctx, stop := context.WithCancel(t.Context())
	var running, all sync.WaitGroup
	for i, r := range both {
		running.Go(func() { _ = r.router.Run(ctx) })
		all.Go(func() {
			for round := range 5 {
				name := string(rune('a'+round)) + string(rune('0'+i))
				_, err := r.router.Apply(t.Context(), routing.Change{
					Expect: routing.AnyRevision, Source: policy.SourceAPI,
					Make: func(current *policy.Policy) (*policy.Policy, error) {
						next, _ := current.Merge([]byte(`{"aliases":{"` + name + `":"m"}}`))
						return next, nil
					},
				})
				if err != nil {
					t.Errorf("a change of the policy: %v", err)
				}
			}
		})
	}
	all.Wait()
	for _, r := range both {
		reach(t, "both routers have all ten changes", func() bool { return len(r.router.Policy().Document.Aliases) == 10 })
	}
	stop()
	running.Wait()
	stored, err := s.Policy(t.Context())
	must(t, err)
	for i, r := range both {
		if got := r.router.Policy(); got.Revision != stored.Revision {
			t.Errorf("router %d has revision %d; %d is stored", i, got.Revision, stored.Revision)
		}
	}
}

// twoBooks has two books of keys over one store: what one gives or revokes the
// other knows.
func twoBooks(t *testing.T, open Open) {
	s, _ := open(t)
	books := make([]*access.Keys, 2)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i := range books {
		var err error
		books[i], err = access.OpenKeys(t.Context(), access.KeysOptions{Store: s, Audit: audit.Unrecorded{}, Now: time.Now})
		must(t, err)
	}
	owner := &access.Principal{Type: "local", ID: "local", Role: access.RoleAdmin}
	first, _, err := books[0].Create(t.Context(), owner, access.Request{Name: "first", Role: "admin"})
	must(t, err)
	for _, b := range books {
		running.Go(func() { _ = b.Run(ctx, slog.New(slog.DiscardHandler)) })
	}
	reach(t, "the other has the first key", func() bool { return len(books[1].List()) == 1 })
	_, secret, err := books[1].Create(t.Context(), owner, access.Request{Name: "second", Role: "admin"})
	must(t, err)
	reach(t, "the first has the second key", func() bool { _, err := books[0].Look(secret); return err == nil })
	stop()
	running.Wait()

	// Now neither hears of the other.
	must(t, books[0].Revoke(t.Context(), first.ID))
	before := keys(s).all(t)
	must(t, books[1].Revoke(t.Context(), first.ID))
	if after := keys(s).all(t); !keys(s).same(after, before...) {
		t.Errorf("a key that was revoked is revoked once more: %+v, before %+v", after, before)
	}
	for _, k := range books[1].List() {
		if (k.ID == first.ID) == k.RevokedAt.IsZero() {
			t.Errorf("the second book has %+v", k.Key)
		}
	}
	c, err := s.WatchKeys(feed.AtOnce(t.Context()), 0)
	must(t, err)
	if len(c.List) != 3 && !c.Whole {
		t.Errorf("%d changes were made; want 3", len(c.List))
	}
}

// reach waits until something is so.
func reach(t testing.TB, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("a minute has passed, and not yet: %s", what)
		}
	}
}

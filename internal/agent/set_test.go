package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/api"
	"headway/internal/engines"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// service is a registry that runs, and a set of agents within it.
type service struct {
	t       *testing.T
	fleet   *registry.Registry
	set     *Set
	metrics *prometheus.Registry
	run     func() // the set, if it does not run
	leave   func() // ends the set alone
	stop    func()

	mu         sync.Mutex
	registered []string // as the callback has it
}

func newService(t *testing.T) *service {
	t.Helper()
	metrics, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	r, err := registry.New(registry.Options{Store: memstore.New(), Events: event.New(metrics), Metrics: metrics, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	set, err := NewSet(SetOptions{Metrics: metrics, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running, agents sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	setCtx, end := context.WithCancel(ctx)
	s := &service{t: t, fleet: r, set: set, metrics: metrics}
	s.run = sync.OnceFunc(func() {
		agents.Go(func() {
			if err := set.Run(setCtx); err != nil {
				t.Error(err)
			}
		})
	})
	s.leave = func() { end(); agents.Wait() }
	s.stop = func() { s.leave(); cancel(); running.Wait() }
	return s
}

// head is an engine at gpu-N as the configuration names it.
func (s *service) head(id string, e *engine, region string) Head {
	return Head{Options{
		Engine: engines.Find("vllm"), URL: "http://" + id + ":8000", Transport: e, Interval: time.Second, DrainLimit: 10 * time.Second,
		Registration: api.Registration{ID: id, Endpoint: "http://" + id + ":8000", Region: region},
		Open: Within(WithinOptions{Registry: s.fleet, Log: slog.New(slog.DiscardHandler), Registered: func(id string, models []string, created bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.registered = append(s.registered, fmt.Sprintf("%s %s %t", id, strings.Join(models, "+"), created))
		}}),
	}, id + region}
}

func (s *service) apply(heads ...Head) {
	s.t.Helper()
	s.run()
	if _, _, err := s.set.Apply(heads, nil); err != nil {
		s.t.Error(err)
	}
}

// told are the registrations since the last call.
func (s *service) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := strings.Join(s.registered, ", ")
	s.registered = nil
	return told
}

// expect lists the heads as "id region status models epoch".
func (s *service) expect(after time.Duration, want ...string) {
	s.t.Helper()
	time.Sleep(after) // of the bubble
	synctest.Wait()
	var got []string
	for _, id := range []string{"gpu-1", "gpu-2", "gpu-3"} {
		if v, err := s.fleet.Head(id); err == nil {
			got = append(got, strings.Join([]string{id, v.Head.Spec.Region, v.Head.Status.String(), strings.Join(v.Head.Spec.ModelTypes, "+")}, " "))
		}
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("heads %q, want %q", got, want)
	}
}

// What is in the list is registered and stays so; what is new comes, what is
// gone leaves, what changed moves, and the rest does not notice.
func TestAListOfHeadsIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		one, two := vllm(), vllm()
		s.apply(s.head("gpu-1", one, "eu"))
		s.expect(time.Second, "gpu-1 eu active llama")
		s.expect(10*time.Minute, "gpu-1 eu active llama") // the lease is renewed
		before, _ := s.fleet.Head("gpu-1")
		s.apply(s.head("gpu-1", one, "eu"), s.head("gpu-2", two, "eu"))
		s.expect(time.Second, "gpu-1 eu active llama", "gpu-2 eu active llama")
		if after, _ := s.fleet.Head("gpu-1"); after.Head.Epoch != before.Head.Epoch {
			t.Error("an unchanged head registered again")
		}
		two.set(func(e *engine) { e.running = 1 })
		s.apply(s.head("gpu-1", one, "us"))
		s.expect(5*time.Second, "gpu-1 us active llama", "gpu-2 eu draining llama")
		s.apply(s.head("gpu-1", one, "us"), s.head("gpu-2", two, "us")) // again, while it drains
		s.expect(time.Second, "gpu-1 us active llama", "gpu-2 eu draining llama")
		s.expect(10*time.Second, "gpu-1 us active llama", "gpu-2 us active llama")
		s.apply()
		two.set(func(e *engine) { e.health = 0 })
		s.expect(10 * time.Second)
	})
}

// A head of the list whose options cannot work changes nothing.
func TestAFaultyListChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		e := vllm()
		s.apply(s.head("gpu-1", e, "eu"))
		s.expect(time.Second, "gpu-1 eu active llama")
		faulty := s.head("gpu-2", e, "")
		if _, _, err := s.set.Apply([]Head{faulty}, nil); err == nil {
			t.Error("no fault")
		}
		s.expect(5*time.Second, "gpu-1 eu active llama")
	})
}

// A head within the service follows its engine, and comes back when the registry
// has lost it or another agent registered it.
func TestALeaseWithinTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		e := vllm()
		e.running = 3
		s.apply(s.head("gpu-1", e, "eu"))
		s.expect(time.Minute, "gpu-1 eu active llama")
		if v, _ := s.fleet.Head("gpu-1"); v.Report.Load.InFlight != 3 {
			t.Errorf("load %+v", v.Report.Load)
		}
		if got := s.told(); got != "gpu-1 llama true" {
			t.Errorf("told %q", got)
		}
		e.set(func(e *engine) { e.models = "llama lora" })
		s.expect(2*time.Second, "gpu-1 eu active llama+lora")
		if got := s.told(); got != "gpu-1 llama+lora true" {
			t.Errorf("told %q", got)
		}
		e.set(func(e *engine) { e.started = 7 })
		s.expect(2*time.Second, "gpu-1 eu active llama+lora")
		if got := s.told(); got != "gpu-1 llama+lora false" {
			t.Errorf("told %q", got)
		}
		e.set(func(e *engine) { e.health = 500 })
		s.expect(4*time.Second, "gpu-1 eu offline llama+lora")
		e.set(func(e *engine) { e.health = 200 })
		s.expect(2*time.Second, "gpu-1 eu active llama+lora")
		if err := s.fleet.Deregister(t.Context(), "gpu-1"); err != nil {
			t.Fatal(err)
		}
		s.expect(time.Minute, "gpu-1 eu active llama+lora")
		spec := fleet.Spec{ID: "gpu-1", Endpoint: "http://gpu-1:8000", ModelTypes: []string{"other"}, Region: "eu"}
		if _, err := s.fleet.Register(t.Context(), spec, nil); err != nil {
			t.Fatal(err)
		}
		s.expect(time.Minute, "gpu-1 eu active llama+lora")
	})
}

// A list that is applied before the set runs is what it begins with: the last one.
func TestAListBeforeTheSetRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		for _, region := range []string{"eu", "us"} {
			if _, _, err := s.set.Apply([]Head{s.head("gpu-1", vllm(), region)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		s.expect(time.Minute)
		s.run()
		s.expect(time.Second, "gpu-1 us active llama")
	})
}

// How a list differs from the one before it, by the ids and what heads were made of.
func TestTheChangeOfAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		e := vllm()
		one, two, three := s.head("gpu-1", e, "eu"), s.head("gpu-2", e, "eu"), s.head("gpu-3", e, "eu")
		for _, step := range []struct {
			list []Head
			want Change
		}{
			{[]Head{one, two}, Change{Listed: 2, Added: 2}},
			{[]Head{one, two}, Change{Listed: 2}},
			{[]Head{three, s.head("gpu-2", e, "us")}, Change{Listed: 2, Added: 1, Removed: 1, Changed: 1}},
			{nil, Change{Removed: 2}},
		} {
			got, names, err := s.set.Apply(step.list, nil)
			if err != nil || got != step.want || names != (Change{}) {
				t.Errorf("change %+v, %+v, %v; want %+v", got, names, err, step.want)
			}
		}
	})
}

// The key of an engine is that of its endpoint, as the agent last read it.
func TestTheKeyOfAnEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		h := s.head("gpu-1", vllm(), "eu")
		var key atomic.Value
		key.Store("first")
		h.Key = func() (string, error) {
			if k := key.Load().(string); k != "" { //nolint:forcetypeassert // stored above
				return k, nil
			}
			return "", errors.New("no file")
		}
		expect := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after) // of the bubble
			synctest.Wait()
			if got := s.set.KeyOf("http://gpu-1:8000"); got != want {
				t.Errorf("key %q, want %q", got, want)
			}
		}
		s.apply(h, s.head("gpu-2", vllm(), "eu"))
		expect(time.Second, "first")
		if got := s.set.KeyOf("http://gpu-2:8000"); got != "" {
			t.Errorf("an engine without a key has %q", got)
		}
		key.Store("second")
		expect(2*time.Second, "second")
		key.Store("")
		expect(2*time.Second, "second")
		s.apply()
		expect(time.Minute, "")
	})
}

// The end of the service leaves the heads registered: it has them again when it
// starts.
func TestTheServiceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		e := vllm()
		e.running = 1
		s.apply(s.head("gpu-1", e, "eu"), s.head("gpu-2", e, "eu"))
		s.expect(time.Second, "gpu-1 eu active llama", "gpu-2 eu active llama")
		s.apply(s.head("gpu-1", e, "eu"))
		s.expect(time.Second, "gpu-1 eu active llama", "gpu-2 eu draining llama")
		began := time.Now()
		s.leave()
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
		s.expect(0, "gpu-1 eu active llama", "gpu-2 eu draining llama")
		s.apply(s.head("gpu-2", e, "eu")) // too late
		s.stop()
	})
}

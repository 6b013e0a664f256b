package policy_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"headway/internal/boltstore"
	"headway/internal/event"
	"headway/internal/local"
	"headway/internal/policy"
	"headway/internal/registry"
	"headway/internal/routing"
)

// fileWorld is a router with a policy file and a store that outlives it.
type fileWorld struct {
	testing.TB
	store   *away
	path    string
	router  *routing.Router
	file    *policy.File
	metrics *prometheus.Registry
}

func newFileWorld(t *testing.T) *fileWorld {
	t.Helper()
	store, err := boltstore.Open(filepath.Join(t.TempDir(), local.StateFile), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return &fileWorld{TB: t, store: &away{Store: store}, path: filepath.Join(t.TempDir(), "policy.yaml")}
}

// away is a store that cannot always be written.
type away struct {
	*boltstore.Store

	mu     sync.Mutex
	fails  error
	failed []time.Time // attempts to write
}

func (s *away) SavePolicy(ctx context.Context, expect uint64, p policy.Stored) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		s.failed = append(s.failed, time.Now())
		return 0, s.fails
	}
	return s.Store.SavePolicy(ctx, expect, p)
}

// failWith lets writing fail, and returns when it was tried before.
func (s *away) failWith(err error) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = err
	return s.failed
}

func (w *fileWorld) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// start is what a process does with the file at its start.
func (w *fileWorld) start() error {
	w.Helper()
	w.metrics = prometheus.NewRegistry()
	log := slog.New(slog.DiscardHandler)
	events := event.New(w.metrics)
	heads, err := registry.New(registry.Options{Store: w.store, Events: events, Metrics: w.metrics, Log: log})
	w.check(err)
	w.router, err = routing.New(routing.Options{Fleet: heads, Events: events, Metrics: w.metrics, Log: log, Policies: w.store})
	w.check(err)
	w.check(w.router.LoadPolicy(w.Context()))
	w.file, err = policy.NewFile(policy.FileOptions{Path: w.path, Store: w.store, Log: log, Metrics: w.metrics, Apply: w.apply})
	w.check(err)
	return w.file.Load(w.Context())
}

// apply brings the policy of the file into force.
func (w *fileWorld) apply(ctx context.Context, next *policy.Policy) (*policy.Policy, error) {
	return w.router.Apply(ctx, routing.Change{Make: routing.To(next), Expect: routing.AnyRevision, Source: policy.SourceFile})
}

func (w *fileWorld) write(strategy string) {
	w.Helper()
	w.check(os.WriteFile(w.path, fmt.Appendf(nil, "default_strategy: %s\ncaller_may: []\n", strategy), 0o600))
}

// put is a change over HTTP.
func (w *fileWorld) put(strategy string) {
	w.Helper()
	next, _ := policy.Compile(policy.Document{DefaultStrategy: strategy})
	_, err := w.router.Apply(w.Context(), routing.Change{Make: routing.To(next), Expect: routing.AnyRevision, Source: policy.SourceAPI})
	w.check(err)
}

func (w *fileWorld) want(strategy string, revision uint64) {
	w.Helper()
	if p := w.router.Policy(); p.Document.DefaultStrategy != strategy || p.Revision != revision {
		w.Errorf("in force is %s, revision %d; want %s, revision %d", p.Document.DefaultStrategy, p.Revision, strategy, revision)
	}
}

func (w *fileWorld) value(name string) float64 {
	w.Helper()
	families, err := w.metrics.Gather()
	w.check(err)
	for _, f := range families {
		if m := f.GetMetric()[0]; f.GetName() == name {
			if f.GetType() == dto.MetricType_COUNTER {
				return m.GetCounter().GetValue()
			}
			return m.GetGauge().GetValue()
		}
	}
	w.Fatalf("there is no %s", name)
	return 0
}

func TestAPolicyFileRulesUntilThePolicyIsChangedElsewhere(t *testing.T) {
	w := newFileWorld(t)
	w.write("random")
	w.check(w.start())
	w.want("random", 1)
	w.put("round_robin")
	w.check(w.file.Reload(t.Context()))
	w.check(w.file.Load(t.Context())) // as SIGHUP does
	w.want("round_robin", 2)
	w.check(w.start())
	w.want("round_robin", 2) // the file is the one of before

	w.write("least_loaded")
	w.check(w.file.Reload(t.Context()))
	w.want("least_loaded", 3)
	w.put("power_of_two")
	w.write("random")
	w.check(w.start()) // it changed while the service was down
	w.want("random", 5)
}

func TestAPolicyFileThatCannotBeUsedChangesNothing(t *testing.T) {
	w := newFileWorld(t)
	w.write("rondom")
	if err := w.start(); err == nil || !strings.Contains(err.Error(), `/default_strategy: line 1: unknown strategy "rondom"`) {
		t.Errorf("a start with a bad file: %v", err)
	}
	w.write("random")
	w.check(w.start())
	w.write("rondom")
	if err := w.file.Reload(t.Context()); err == nil {
		t.Error("a bad file was taken over")
	}
	if err := w.file.Reload(t.Context()); err != nil {
		t.Errorf("a bad file is read again: %v", err)
	}
	w.want("random", 1)
	if w.value("headway_policy_last_load_successful") != 0 || w.value("headway_policy_load_failures_total") != 1 {
		t.Error("the metrics do not show the bad file")
	}
	w.check(os.Remove(w.path))
	if err := w.file.Reload(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
	if err := w.file.Reload(t.Context()); err != nil {
		t.Errorf("that the file is gone is reported again: %v", err)
	}
	w.write("random")
	w.check(w.file.Reload(t.Context()))
	w.want("random", 1)
	if w.value("headway_policy_last_load_successful") != 1 {
		t.Error("the metrics do not show that the file is in force")
	}
}

// A fault that is not of the document is retried with backoff; a bad document is
// not.
func TestAPolicyFileIsTriedAgainAfterAFaultThatPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFileWorld(t)
		w.write("random")
		w.check(w.start())
		pass := func(d time.Duration) (failures int) {
			for range d / time.Second {
				time.Sleep(time.Second)
				if err := w.file.Reload(t.Context()); err != nil {
					failures++
				}
			}
			return failures
		}
		// A directory of the store that is missing is not a missing policy file.
		w.store.failWith(fmt.Errorf("write the policy: %w", fs.ErrNotExist))
		w.write("round_robin")
		pass(10 * time.Minute)
		w.want("random", 1)
		if w.value("headway_policy_last_load_successful") != 0 {
			t.Error("the metrics do not show that the policy is not in force")
		}
		tried := w.store.failWith(nil)
		if len(tried) < 12 || len(tried) > 20 || tried[1].Sub(tried[0]) > 2*time.Second {
			t.Errorf("it was tried at %v in ten minutes; want soon again, and then about once a minute", tried)
		}
		pass(time.Minute)
		w.want("round_robin", 2)
		if w.value("headway_policy_last_load_successful") != 1 {
			t.Error("the metrics do not show that the file is in force")
		}

		w.write("rondom")
		failures := w.value("headway_policy_load_failures_total")
		if n := pass(10 * time.Minute); n != 1 || w.value("headway_policy_load_failures_total") != failures+1 {
			t.Errorf("a bad document was tried %d times; want once", n)
		}
	})
}

package boltstore_test

import (
	"context"
	"errors"
	"maps"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/boltstore"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/policy"
)

// errorsOf are the failed calls by operation.
func errorsOf(t *testing.T, metrics *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "headway_store_errors_total" {
				counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return counted
}

// Calls that fail are counted, of heads, policies and keys alike. A conflict is
// no failure, and a caller that has left none of the store.
func TestFailedCallsAreCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	fill(t, path, 2)
	metrics := prometheus.NewRegistry()
	open := func(least int64) *boltstore.Store {
		s, err := boltstore.Open(path, boltstore.Options{MinFreeBytes: least, Metrics: metrics})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	check := func(want map[string]float64) {
		t.Helper()
		if got := errorsOf(t, metrics); !maps.Equal(got, want) {
			t.Errorf("counted are %v; want %v", got, want)
		}
	}
	policyOf := policy.Stored{Document: []byte(`{}`), Source: "file"}

	s := open(0)
	left, leave := context.WithCancel(t.Context())
	leave()
	_, conflict := s.SavePolicy(t.Context(), 7, policyOf)
	_, gone := s.SavePolicy(left, 1, policyOf)
	keyed := s.SaveKeys(t.Context(), []feed.Change[access.Key]{{ID: "a", Expect: 7}})
	if !errors.Is(conflict, policy.ErrConflict) || !errors.Is(gone, context.Canceled) || !errors.Is(keyed, feed.ErrConflict) {
		t.Errorf("%v; %v; %v", conflict, gone, keyed)
	}
	check(map[string]float64{"load": 0, "save": 0, "grant_epochs": 0, "watch": 0})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// A disk without room, and a file that is closed.
	metrics = prometheus.NewRegistry()
	s = open(math.MaxInt64)
	keys, err := access.OpenKeys(t.Context(), access.KeysOptions{Store: s, Audit: audit.Unrecorded{}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	_, _, made := keys.Create(t.Context(), &access.Principal{Type: "local", Role: access.RoleAdmin}, access.Request{Name: "first", Role: "admin"})
	_, saved := s.SavePolicy(t.Context(), 1, policyOf)
	_, granted := s.GrantEpochs(t.Context(), 1)
	for _, err := range []error{made, saved, granted} {
		if !errors.Is(err, fleet.ErrStoreUnavailable) {
			t.Errorf("a disk without room: %v", err)
		}
	}
	check(map[string]float64{"load": 0, "save": 2, "grant_epochs": 1, "watch": 0})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, read := s.Keys(t.Context())
	_, revisions := s.PolicyRevisions(t.Context(), 1)
	_, watched := s.Watch(feed.AtOnce(t.Context()), 0)
	if read == nil || revisions == nil || watched == nil {
		t.Errorf("a closed file: %v; %v; %v", read, revisions, watched)
	}
	check(map[string]float64{"load": 2, "save": 2, "grant_epochs": 1, "watch": 1})
}

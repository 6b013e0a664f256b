package routing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
)

// StrategyStats is how well each strategy did since the start, by name.
func (r *Router) StrategyStats() map[string]StrategyStat {
	stats := make(map[string]StrategyStat, len(r.metrics.strategies))
	for name, s := range r.metrics.strategies {
		stat := StrategyStat{
			Decisions: s.decisions.Load(),
			OK:        s.results[ResultOK].Load(), Errors: s.results[ResultError].Load(),
			Cancelled: s.results[ResultCancelled].Load(), Expired: s.results[ResultExpired].Load(),
			MeanTTFT: math.NaN(),
		}
		if n := s.ttfts.Load(); n > 0 {
			stat.MeanTTFT = float64(s.ttftMs.Load()) / float64(n)
		}
		stats[name] = stat
	}
	return stats
}

// PolicyChange says where a new policy comes from.
type PolicyChange struct {
	Source string // file or api
	Author string
	Note   string
}

// LoadPolicy takes over the policy that the store has, if it has one.
func (r *Router) LoadPolicy(ctx context.Context) error {
	if r.policies == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	stored, err := r.policies.Policy(ctx)
	switch {
	case errors.Is(err, ErrNoPolicy):
		return nil
	case err != nil:
		return fmt.Errorf("load the policy: %w", err)
	}
	doc, faults := ParsePolicy(stored.Document, "json")
	if len(faults) > 0 {
		return fmt.Errorf("stored policy revision %d: %w", stored.Revision, &fleet.InvalidError{Faults: faults})
	}
	policy, faults := Compile(doc)
	if len(faults) > 0 {
		return fmt.Errorf("stored policy revision %d: %w", stored.Revision, &fleet.InvalidError{Faults: faults})
	}
	policy.Revision = stored.Revision
	r.policy.Store(policy)
	return nil
}

// Apply makes doc the policy: it is compiled whole, stored if the stored
// revision is expect, and then swapped in at once. A document equal to the
// current one changes nothing and returns the current policy. The errors are
// *fleet.InvalidError with every fault, ErrPolicyConflict, or the store's;
// after each the policy in force is unchanged.
func (r *Router) Apply(ctx context.Context, doc Document, change PolicyChange, expect uint64) (*Policy, error) {
	policy, faults := Compile(doc)
	if len(faults) > 0 {
		return nil, &fleet.InvalidError{Faults: faults}
	}
	encoded, err := doc.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode the policy: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.policy.Load()
	if current.Revision != expect {
		return nil, fmt.Errorf("%w: it is %d, not %d", ErrPolicyConflict, current.Revision, expect)
	}
	if same, err := current.Document.Encode(); err == nil && bytes.Equal(same, encoded) {
		return current, nil
	}
	policy.Revision = expect + 1
	if r.policies != nil {
		policy.Revision, err = r.policies.SavePolicy(ctx, expect, StoredPolicy{
			Document: encoded, Source: change.Source, SavedAt: r.now().UTC().Truncate(time.Millisecond),
			Author: change.Author, Note: change.Note,
		})
		if err != nil {
			return nil, fmt.Errorf("store the policy: %w", err)
		}
	}
	r.policy.Store(policy)
	r.events.Publish(event.Event{
		Type: event.PolicyChanged, Time: r.now(),
		Data: PolicyChanged{Revision: policy.Revision, Source: change.Source, Author: change.Author},
	})
	return policy, nil
}

// PolicyChanged is the data of a policy.changed event.
type PolicyChanged struct {
	Revision uint64 `json:"revision"`
	Source   string `json:"source"`
	Author   string `json:"author,omitempty"`
}

// LogValue writes the change as fields.
func (p PolicyChanged) LogValue() slog.Value {
	return slog.GroupValue(slog.Uint64("revision", p.Revision), slog.String("source", p.Source), slog.String("author", p.Author))
}

package routing

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/policy"
	"headway/internal/strict"
)

// StrategyStats is how well each strategy did since the start, by name.
func (r *Router) StrategyStats() map[string]StrategyStat {
	stats := make(map[string]StrategyStat, len(r.metrics.strategies))
	decisions := map[string]uint64{}
	for key, t := range *r.metrics.tallies.Load() {
		decisions[key.strategy] += t.count.Load()
	}
	for name, s := range r.metrics.strategies {
		stat := StrategyStat{
			Decisions: decisions[name],
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
	Source string // policy.SourceFile, policy.SourceAPI or policy.SourceRestore
	Action string // of the audit trail; "": policy.put
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
	case errors.Is(err, policy.ErrNone):
		return nil
	case err != nil:
		return fmt.Errorf("load the policy: %w", err)
	}
	doc, faults := policy.Parse(stored.Document, "json")
	if len(faults) > 0 {
		return fmt.Errorf("stored policy revision %d: %w", stored.Revision, &strict.InvalidError{Faults: faults})
	}
	next, faults := policy.Compile(doc)
	if len(faults) > 0 {
		return fmt.Errorf("stored policy revision %d: %w", stored.Revision, &strict.InvalidError{Faults: faults})
	}
	next.Revision = stored.Revision
	r.policy.Store(next)
	return nil
}

// Apply makes doc the policy. In this order: it is compiled whole, the intent
// is recorded in the audit trail, it is stored if the stored revision is
// expect, swapped in at once, the outcome is recorded, and an event tells of
// it. A document equal to the current one changes nothing and returns the
// current policy. The errors are *strict.InvalidError with every fault,
// policy.ErrConflict, the trail's or the store's; after each the policy in force
// is unchanged.
func (r *Router) Apply(ctx context.Context, doc policy.Document, change PolicyChange, expect uint64) (*policy.Policy, error) {
	next, faults := policy.Compile(doc)
	if len(faults) > 0 {
		return nil, &strict.InvalidError{Faults: faults}
	}
	encoded, err := doc.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode the policy: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.policy.Load()
	if current.Revision != expect {
		return nil, fmt.Errorf("%w: it is %d, not %d", policy.ErrConflict, current.Revision, expect)
	}
	if same, err := current.Document.Encode(); err == nil && bytes.Equal(same, encoded) {
		return current, nil
	}
	ended, err := r.announce(ctx, current, doc, change)
	if err != nil {
		return nil, fmt.Errorf("record the change of the policy: %w", err)
	}
	next.Revision = expect + 1
	if r.policies != nil {
		outcome, err := r.save(ctx, policy.Stored{
			Revision: next.Revision, Document: encoded, Source: change.Source, SavedAt: r.now().UTC().Truncate(time.Millisecond),
			Author: change.Author, Note: change.Note,
		})
		if outcome != audit.Success {
			ended(outcome, err.Error(), nil)
			return nil, fmt.Errorf("store the policy: %w", err)
		}
	}
	r.policy.Store(next)
	r.logHidden(r.HiddenBy(next))
	ended(audit.Success, "", revisionFields(next.Revision))
	r.events.Publish(event.Event{
		Type: event.PolicyChanged, Time: r.now(),
		Data: PolicyChanged{Revision: next.Revision, Source: change.Source, Author: change.Author},
	})
	return next, nil
}

// save stores the policy of the next revision. A store that fails may have
// stored it all the same, so that it is asked: what is stored is in force at the
// next start and must not stand as a failure in the trail.
func (r *Router) save(ctx context.Context, p policy.Stored) (audit.Outcome, error) {
	_, err := r.policies.SavePolicy(ctx, p.Revision-1, p)
	if err == nil {
		return audit.Success, nil
	}
	if errors.Is(err, policy.ErrConflict) {
		return audit.Failure, err
	}
	stored, unread := r.policies.Policy(context.WithoutCancel(ctx))
	switch {
	case unread != nil && !errors.Is(unread, policy.ErrNone):
		return audit.Unknown, errors.Join(err, unread)
	case unread == nil && stored.Revision == p.Revision && stored.SavedAt.Equal(p.SavedAt):
		return audit.Success, nil
	}
	return audit.Failure, err
}

// maxAudited is how many of the differences of a policy an audit record names.
const maxAudited = 50

// announce records that the policy is to change, and where.
func (r *Router) announce(ctx context.Context, current *policy.Policy, doc policy.Document, change PolicyChange) (audit.EndFunc, error) {
	differences, err := policy.Differences(current.Document, doc)
	if err != nil {
		return nil, err
	}
	pointers := make([]string, 0, min(len(differences), maxAudited))
	for _, d := range differences[:min(len(differences), maxAudited)] {
		pointers = append(pointers, d.Pointer)
	}
	after, err := json.Marshal(struct {
		Source  string   `json:"source"`
		Note    string   `json:"note,omitempty"`
		Changed []string `json:"changed"`
		Count   int      `json:"changed_count"`
	}{change.Source, change.Note, pointers, len(differences)})
	if err != nil {
		return nil, err
	}
	return r.begin(ctx, audit.Entry{
		Category: audit.Policy, Action: cmp.Or(change.Action, "policy.put"), Target: audit.Target{Type: "policy"},
		Before: revisionFields(current.Revision), After: after,
	}.By(ctx))
}

func revisionFields(revision uint64) []byte {
	return fmt.Appendf(nil, `{"revision":%d}`, revision)
}

// Revisions returns the kept revisions of the policy, newest first, at most
// limit, and last the default in the binary as revision 0.
func (r *Router) Revisions(ctx context.Context, limit int) ([]policy.Stored, error) {
	var list []policy.Stored
	if r.policies != nil {
		stored, err := r.policies.PolicyRevisions(ctx, limit)
		if err != nil {
			return nil, fmt.Errorf("read the history of the policy: %w", err)
		}
		list = stored
	}
	if len(list) >= limit {
		return list[:limit], nil
	}
	encoded, err := policy.Default().Encode()
	if err != nil {
		return nil, fmt.Errorf("encode the default policy: %w", err)
	}
	return append(list, policy.Stored{Document: encoded, Source: policy.SourceDefault}), nil
}

// Restore makes the document of an earlier revision the policy, as a new
// revision. The errors are policy.ErrNoRevision and those of Apply.
func (r *Router) Restore(ctx context.Context, revision uint64, author string, expect uint64) (*policy.Policy, error) {
	list, err := r.Revisions(ctx, math.MaxInt)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(p policy.Stored) bool { return p.Revision == revision })
	if i < 0 {
		return nil, fmt.Errorf("revision %d: %w", revision, policy.ErrNoRevision)
	}
	doc, faults := policy.Parse(list[i].Document, "json")
	if len(faults) > 0 {
		return nil, &strict.InvalidError{Faults: faults}
	}
	return r.Apply(ctx, doc, PolicyChange{
		Source: policy.SourceRestore, Action: "policy.restore", Author: author, Note: fmt.Sprintf("revision %d", revision),
	}, expect)
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

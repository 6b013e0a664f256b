package routing

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/feed"
	"headway/internal/policy"
	"headway/internal/strict"
)

// Change says what the policy becomes and where that comes from.
type Change struct {
	// Make returns the next policy. It is called with the policy that the next
	// one replaces, while no other change is made.
	Make   func(current *policy.Policy) (*policy.Policy, error)
	Expect uint64 // the revision to replace, or AnyRevision
	Source string // policy.SourceFile, …
	Action string // of the audit trail; "": policy.put
	Author string
	Note   string
}

// AnyRevision as Change.Expect replaces the current revision, without a check.
const AnyRevision = math.MaxUint64

// To is Change.Make for a policy that does not depend on the current one.
func To(next *policy.Policy) func(*policy.Policy) (*policy.Policy, error) {
	return func(*policy.Policy) (*policy.Policy, error) { return next, nil }
}

// LoadPolicy takes over the policy that the store has, if it has one.
func (r *Router) LoadPolicy(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load(ctx, false)
}

// load takes over what the store has. The caller holds mu.
func (r *Router) load(ctx context.Context, publish bool) error {
	stored, err := r.o.Policies.Policy(ctx)
	switch {
	case errors.Is(err, policy.ErrNone):
		return nil
	case err != nil:
		return fmt.Errorf("load the policy: %w", err)
	}
	return r.takeOver(&stored, publish)
}

// takeOver brings a stored policy into force, unless that or a later one is. It
// publishes the change if another process made it just now. The caller holds mu.
func (r *Router) takeOver(stored *policy.Stored, publish bool) error {
	if stored.Revision <= r.policy.Load().Revision {
		return nil
	}
	p, faults := policy.Parse(stored.Document, "json")
	if len(faults) > 0 {
		return fmt.Errorf("stored policy revision %d: %w", stored.Revision, strict.Invalid(faults))
	}
	r.enter(p.At(stored.Revision))
	if publish {
		r.publish(stored.Revision, stored.Source, stored.Author)
	}
	return nil
}

// follow takes over what other processes store until ctx ends.
func (r *Router) follow(ctx context.Context) {
	failed := func(err error) {
		r.o.Log.Warn("a policy that another process stored is not in force here", "error", err)
	}
	feed.Follow(ctx, r.policy.Load().Revision, r.o.Policies.WatchPolicy, func(c feed.Changes[policy.Stored]) {
		if len(c.List) == 0 {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if err := r.takeOver(c.List[len(c.List)-1].Value, true); err != nil {
			failed(err)
		}
	}, failed)
}

// enter brings a stored policy into force. The caller holds mu.
func (r *Router) enter(p *policy.Policy) {
	r.policy.Store(p)
	r.logHidden(r.HiddenBy(p))
}

func (r *Router) publish(revision uint64, source, author string) {
	r.o.Events.Publish(event.Event{
		Type: event.PolicyChanged, Time: r.o.Now(), Data: PolicyChanged{Revision: revision, Source: source, Author: author},
	})
}

// maxConflicts bounds how often a change of any revision is made again because
// another replica stored a policy first.
const maxConflicts = 10

// Apply makes a change of the policy. In this order: the next policy is made,
// the intent is recorded in the audit trail, it is stored if the stored revision
// is still the current one, swapped in at once, the outcome is recorded, and an
// event is published. A policy equal to the current one changes nothing, and the
// current one is returned. The errors are those of Change.Make,
// policy.ErrConflict, the trail's and the store's; after each the policy is what
// the store has.
func (r *Router) Apply(ctx context.Context, change Change) (*policy.Policy, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for tries := 0; ; tries++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		current := r.policy.Load()
		if change.Expect != AnyRevision && change.Expect != current.Revision {
			return nil, fmt.Errorf("%w: it is %d, not %d", policy.ErrConflict, current.Revision, change.Expect)
		}
		next, err := r.replace(ctx, current, &change)
		if !errors.Is(err, policy.ErrConflict) {
			return next, err
		}
		if unread := r.load(ctx, true); unread != nil || change.Expect != AnyRevision || tries == maxConflicts {
			return nil, errors.Join(err, unread)
		}
	}
}

// replace makes the change of the current policy.
func (r *Router) replace(ctx context.Context, current *policy.Policy, change *Change) (*policy.Policy, error) {
	next, err := change.Make(current)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(next.Canonical, current.Canonical) {
		return current, nil
	}
	ended, err := r.announce(ctx, current, next, change)
	if err != nil {
		return nil, fmt.Errorf("record the change of the policy: %w", err)
	}
	revision, outcome, err := r.save(ctx, current.Revision, policy.Stored{
		Document: next.Canonical, Source: change.Source, SavedAt: r.o.Now().UTC().Truncate(time.Millisecond),
		Author: change.Author, Note: change.Note,
	})
	if outcome != audit.Success {
		ended(outcome, err.Error(), nil)
		return nil, fmt.Errorf("store the policy: %w", err)
	}
	next = next.At(revision)
	r.enter(next)
	ended(audit.Success, "", revisionFields(next.Revision))
	r.publish(next.Revision, change.Source, change.Author)
	return next, nil
}

// save stores the policy that follows expect. If the store fails, save reads
// what it has: a policy that was stored all the same is in force at the next
// start, so the trail must not call it a failure.
func (r *Router) save(ctx context.Context, expect uint64, p policy.Stored) (revision uint64, _ audit.Outcome, _ error) {
	revision, err := r.o.Policies.SavePolicy(ctx, expect, p)
	switch {
	case err == nil:
		return revision, audit.Success, nil
	case errors.Is(err, policy.ErrConflict):
		return 0, audit.Failure, err
	}
	stored, unread := r.o.Policies.Policy(context.WithoutCancel(ctx))
	switch {
	case unread != nil && !errors.Is(unread, policy.ErrNone):
		return 0, audit.Unknown, errors.Join(err, unread)
	case unread == nil && stored.Revision > expect && stored.SavedAt.Equal(p.SavedAt):
		return stored.Revision, audit.Success, nil
	}
	return 0, audit.Failure, err
}

// Revisions returns the kept revisions of the policy, newest first, at most
// limit, and last the default in the binary as revision 0.
func (r *Router) Revisions(ctx context.Context, limit int) ([]policy.Stored, error) {
	list, err := r.o.Policies.PolicyRevisions(ctx, limit)
	if err != nil {
		return nil, fmt.Errorf("read the history of the policy: %w", err)
	}
	if len(list) >= limit {
		return list[:limit], nil
	}
	return append(list, policy.Stored{Document: policy.Default().Canonical, Source: policy.SourceDefault}), nil
}

// Revision returns one kept revision of the policy. The errors are ErrNoRevision
// and the store's.
func (r *Router) Revision(ctx context.Context, number uint64) (policy.Stored, error) {
	list, err := r.Revisions(ctx, math.MaxInt)
	for _, p := range list {
		if p.Revision == number {
			return p, nil
		}
	}
	return policy.Stored{}, cmp.Or(err, fmt.Errorf("revision %d: %w", number, policy.ErrNoRevision))
}

// Restore makes the document of an earlier revision the policy, as a new
// revision. The errors are ErrNoRevision and those of Apply.
func (r *Router) Restore(ctx context.Context, revision uint64, author string, expect uint64) (*policy.Policy, error) {
	stored, err := r.Revision(ctx, revision)
	if err != nil {
		return nil, err
	}
	next, faults := policy.Parse(stored.Document, "json")
	if len(faults) > 0 {
		return nil, strict.Invalid(faults)
	}
	return r.Apply(ctx, Change{
		Make: To(next), Expect: expect,
		Source: policy.SourceRestore, Action: "policy.restore", Author: author, Note: fmt.Sprintf("revision %d", revision),
	})
}

// PolicyChanged is the data of a policy.changed event.
type PolicyChanged struct {
	Revision uint64 `json:"revision"`
	Source   string `json:"source"`
	Author   string `json:"author,omitempty"`
}

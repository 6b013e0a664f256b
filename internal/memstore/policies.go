package memstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"headway/internal/feed"
	"headway/internal/policy"
)

// Policy implements policy.Store.
func (s *Store) Policy(ctx context.Context) (p policy.Stored, err error) {
	err = s.call(ctx, false, func() error {
		if len(s.policies) == 0 {
			return policy.ErrNone
		}
		p = clonePolicy(s.policies[0])
		return nil
	})
	return p, err
}

// SavePolicy implements policy.Store.
func (s *Store) SavePolicy(ctx context.Context, expect uint64, p policy.Stored) (revision uint64, err error) {
	err = s.call(ctx, true, func() error {
		current := s.revision()
		if current != expect {
			return fmt.Errorf("%w: it is %d, not %d", policy.ErrConflict, current, expect)
		}
		revision = current + 1
		p = clonePolicy(p)
		p.Revision = revision
		s.policies = slices.Insert(s.policies, 0, p)
		s.policies = s.policies[:min(len(s.policies), keptPolicies)]
		s.counts.Changes++
		s.applied.Add(feed.Change[policy.Stored]{Revision: revision, Value: &p})
		return nil
	})
	return revision, err
}

// PolicyRevisions implements policy.Store.
func (s *Store) PolicyRevisions(ctx context.Context, limit int) (list []policy.Stored, err error) {
	err = s.call(ctx, false, func() error {
		for _, p := range s.policies[:min(limit, len(s.policies))] {
			list = append(list, clonePolicy(p))
		}
		return nil
	})
	return list, err
}

// WatchPolicy implements policy.Store.
func (s *Store) WatchPolicy(ctx context.Context, after uint64) (feed.Changes[policy.Stored], error) {
	return s.applied.Next(ctx, after, func(context.Context) (feed.Changes[policy.Stored], error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		c := feed.Changes[policy.Stored]{Revision: s.revision(), Whole: true}
		for _, p := range s.policies[:min(1, len(s.policies))] {
			c.List = []feed.Change[policy.Stored]{{Revision: p.Revision, Value: &p}}
		}
		return c, nil
	})
}

// revision is that of the current policy. s.mu must be held.
func (s *Store) revision() uint64 {
	if len(s.policies) == 0 {
		return 0
	}
	return s.policies[0].Revision
}

func clonePolicy(p policy.Stored) policy.Stored {
	p.Document = bytes.Clone(p.Document)
	return p
}

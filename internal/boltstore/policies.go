package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/go-json-experiment/json"
	bolt "go.etcd.io/bbolt"

	"headway/internal/feed"
	"headway/internal/policy"
)

// keptPolicies is how many revisions of the policy are kept.
const keptPolicies = 100

func policyKey(revision uint64) []byte { return binary.BigEndian.AppendUint64(nil, revision) }

// lastPolicy is the revision of the current policy; 0: there is none.
func lastPolicy(b *bolt.Bucket) uint64 {
	if key, _ := b.Cursor().Last(); key != nil {
		return binary.BigEndian.Uint64(key)
	}
	return 0
}

// Policy implements policy.Store.
func (s *Store) Policy(ctx context.Context) (policy.Stored, error) {
	revisions, err := s.revisions(ctx, opLoad, 1)
	if err == nil && len(revisions) == 0 {
		err = policy.ErrNone
	}
	if err != nil {
		return policy.Stored{}, err
	}
	return revisions[0], nil
}

// SavePolicy implements policy.Store.
func (s *Store) SavePolicy(ctx context.Context, expect uint64, p policy.Stored) (revision uint64, err error) {
	err = s.update(ctx, opSave, func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketPolicies)
		total, err := getSums(tx, bucketPolicies)
		if err != nil {
			return err
		}
		current := lastPolicy(b)
		if current != expect {
			return fmt.Errorf("%w: it is %d, not %d", policy.ErrConflict, current, expect)
		}
		revision = current + 1
		p.Revision = revision
		if err := putAt(b, policyKey(revision), &total, revision, p); err != nil {
			return err
		}
		for c := b.Cursor(); total.count > keptPolicies; {
			key, value := c.First()
			total.del(key, value)
			if err := b.Delete(key); err != nil {
				return err
			}
		}
		return total.put(tx, bucketPolicies)
	}, func() {
		p.Document = bytes.Clone(p.Document)
		s.policies.Add(feed.Change[policy.Stored]{Revision: revision, Value: &p})
	})
	if err != nil {
		return 0, fmt.Errorf("save the policy: %w", err)
	}
	return revision, nil
}

// PolicyRevisions implements policy.Store.
func (s *Store) PolicyRevisions(ctx context.Context, limit int) ([]policy.Stored, error) {
	return s.revisions(ctx, opLoad, limit)
}

func (s *Store) revisions(ctx context.Context, operation string, limit int) (list []policy.Stored, err error) {
	err = s.view(ctx, operation, func(tx *bolt.Tx) error {
		list, err = policiesOf(tx, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the policies: %w", err)
	}
	return list, nil
}

// WatchPolicy implements policy.Store.
func (s *Store) WatchPolicy(ctx context.Context, after uint64) (feed.Changes[policy.Stored], error) {
	return s.policies.Next(ctx, after, func(ctx context.Context) (c feed.Changes[policy.Stored], err error) {
		c.Whole = true
		newest, err := s.revisions(ctx, opWatch, 1)
		for i := range newest {
			c.Revision = newest[i].Revision
			c.List = []feed.Change[policy.Stored]{{Revision: c.Revision, Value: &newest[i]}}
		}
		return c, err
	})
}

// policiesOf are the newest policies, newest first.
func policiesOf(tx *bolt.Tx, limit int) (list []policy.Stored, err error) {
	c := tx.Bucket(bucketPolicies).Cursor()
	for key, value := c.Last(); key != nil && len(list) < limit; key, value = c.Prev() {
		revision, payload, err := split(key, value)
		if err != nil {
			return nil, err
		}
		var p policy.Stored
		if err := json.Unmarshal(payload, &p); err != nil {
			return nil, fmt.Errorf("policy %d: %w", revision, err)
		}
		list = append(list, p)
	}
	return list, nil
}

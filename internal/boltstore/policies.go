package boltstore

import (
	"context"
	"encoding/binary"
	"fmt"

	"headway/internal/policy"

	"github.com/go-json-experiment/json"
	bolt "go.etcd.io/bbolt"
)

var errPolicyConflict = policy.ErrConflict

// keptPolicies is how many revisions of the policy are kept.
const keptPolicies = 100

func policyKey(revision uint64) []byte { return binary.BigEndian.AppendUint64(nil, revision) }

// Policy implements policy.Store.
func (s *Store) Policy(ctx context.Context) (policy.Stored, error) {
	revisions, err := s.PolicyRevisions(ctx, 1)
	if err != nil {
		return policy.Stored{}, err
	}
	if len(revisions) == 0 {
		return policy.Stored{}, policy.ErrNone
	}
	return revisions[0], nil
}

// SavePolicy implements policy.Store.
func (s *Store) SavePolicy(ctx context.Context, expect uint64, p policy.Stored) (revision uint64, err error) {
	err = s.update(ctx, func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketPolicies)
		total, err := getSums(tx, bucketPolicies)
		if err != nil {
			return err
		}
		current := uint64(0)
		if key, _ := b.Cursor().Last(); key != nil {
			current = binary.BigEndian.Uint64(key)
		}
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
	})
	if err != nil {
		return 0, fmt.Errorf("save the policy: %w", err)
	}
	return revision, nil
}

// PolicyRevisions implements policy.Store.
func (s *Store) PolicyRevisions(ctx context.Context, limit int) (list []policy.Stored, err error) {
	err = s.view(ctx, func(tx *bolt.Tx) error {
		list, err = policiesOf(tx, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the policies: %w", err)
	}
	return list, nil
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

package boltstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	bolt "go.etcd.io/bbolt"

	"headway/internal/access"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/policy"
)

// schemaKeys is the first version of the layout that has API keys.
const schemaKeys = 2

// migrate brings a file of an older layout up to this one.
func (s *Store) migrate() error {
	return s.guard(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			version, err := getUint(tx, keySchema)
			if err != nil || version >= schemaKeys {
				return err
			}
			if _, err := tx.CreateBucket(bucketKeys); err != nil {
				return err
			}
			if err := (sums{}).put(tx, bucketKeys); err != nil {
				return err
			}
			return putUint(tx, keySchema, schema)
		})
	})
}

// beginFeeds keeps the changes that are made from now on.
func (s *Store) beginFeeds(tx *bolt.Tx) error {
	s.heads = feed.New[fleet.Record](tx.Bucket(bucketHeads).Sequence(), feed.Bound)
	s.keys = feed.New[access.Key](tx.Bucket(bucketKeys).Sequence(), feed.Bound)
	s.policies = feed.New[policy.Stored](lastPolicy(tx.Bucket(bucketPolicies)), keptPolicies)
	return nil
}

// read returns the records of a bucket with the ids, without any all of them.
func read[T any, P feed.Item[T]](tx *bolt.Tx, bucket []byte, ids ...string) (list []T, err error) {
	add := func(key, value []byte) error {
		revision, payload, err := split(key, value)
		if err != nil {
			return err
		}
		var v T
		if err := json.Unmarshal(payload, &v); err != nil {
			return fmt.Errorf("record %q: %w", key, err)
		}
		_, at := P(&v).Identity()
		*at = revision
		list = append(list, v)
		return nil
	}
	b := tx.Bucket(bucket)
	if len(ids) > 0 {
		for _, id := range slices.Sorted(slices.Values(ids)) {
			if value := b.Get([]byte(id)); value != nil {
				if err := add([]byte(id), value); err != nil {
					return nil, err
				}
			}
		}
		return list, nil
	}
	total, err := getSums(tx, bucket)
	if err != nil {
		return nil, err
	}
	list = make([]T, 0, total.count)
	defer release(tx)
	return list, b.ForEach(add)
}

// load reads records in a transaction of its own, with the revision of the
// bucket, which is its sequence.
func load[T any, P feed.Item[T]](ctx context.Context, s *Store, operation string, bucket []byte, ids []string) (list []T, revision uint64, err error) {
	err = s.view(ctx, operation, func(tx *bolt.Tx) error {
		revision = tx.Bucket(bucket).Sequence()
		list, err = read[T, P](tx, bucket, ids...)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the %s: %w", bucket, err)
	}
	return list, revision, nil
}

// save makes all changes or none, and adds those that were made to the feed.
func save[T any, P feed.Item[T]](ctx context.Context, s *Store, bucket []byte, f *feed.Feed[T], changes []feed.Change[T]) error {
	err := s.update(ctx, opSave, func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		total, err := getSums(tx, bucket)
		if err != nil {
			return err
		}
		for i := range changes {
			c := &changes[i]
			key := []byte(c.ID)
			have, _, err := get(b, key)
			switch {
			case err != nil:
				return err
			case have != c.Expect:
				return fmt.Errorf("%w: %s has %d, not %d", feed.ErrConflict, c.ID, have, c.Expect)
			case have == 0 && c.Value == nil:
				c.Revision = 0
				continue
			}
			if c.Revision, err = b.NextSequence(); err != nil {
				return err
			}
			if c.Value == nil {
				total.del(key, b.Get(key))
				err = b.Delete(key)
			} else {
				err = putAt(b, key, &total, c.Revision, c.Value)
			}
			if err != nil {
				return err
			}
		}
		return total.put(tx, bucket)
	}, func() {
		made := make([]feed.Change[T], 0, len(changes))
		for _, c := range changes {
			if c.Value != nil {
				_, at := P(c.Value).Identity()
				*at = c.Revision
				c.Value = P(c.Value).Clone()
			}
			if c.Revision > 0 {
				made = append(made, c)
			}
		}
		f.Add(made...)
	})
	if err != nil {
		return fmt.Errorf("save changes of %s, %d in all: %w", bucket, len(changes), err)
	}
	return nil
}

func watch[T any, P feed.Item[T]](ctx context.Context, s *Store, bucket []byte, f *feed.Feed[T], after uint64) (feed.Changes[T], error) {
	return f.Next(ctx, after, func(ctx context.Context) (feed.Changes[T], error) {
		list, revision, err := load[T, P](ctx, s, opWatch, bucket, nil)
		if err != nil {
			return feed.Changes[T]{}, err
		}
		return feed.Read[T, P](nil, list, revision), nil
	})
}

// Heads implements fleet.Store.
func (s *Store) Heads(ctx context.Context, ids ...string) ([]fleet.Record, uint64, error) {
	return load[fleet.Record](ctx, s, opLoad, bucketHeads, ids)
}

// Save implements fleet.Store.
func (s *Store) Save(ctx context.Context, changes []feed.Change[fleet.Record]) error {
	return save(ctx, s, bucketHeads, s.heads, changes)
}

// Watch implements fleet.Store.
func (s *Store) Watch(ctx context.Context, after uint64) (feed.Changes[fleet.Record], error) {
	return watch(ctx, s, bucketHeads, s.heads, after)
}

// Keys implements access.KeyStore.
func (s *Store) Keys(ctx context.Context, ids ...string) ([]access.Key, uint64, error) {
	return load[access.Key](ctx, s, opLoad, bucketKeys, ids)
}

// SaveKeys implements access.KeyStore.
func (s *Store) SaveKeys(ctx context.Context, changes []feed.Change[access.Key]) error {
	return save(ctx, s, bucketKeys, s.keys, changes)
}

// WatchKeys implements access.KeyStore.
func (s *Store) WatchKeys(ctx context.Context, after uint64) (feed.Changes[access.Key], error) {
	return watch(ctx, s, bucketKeys, s.keys, after)
}

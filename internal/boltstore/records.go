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

// kind is one kind of record. The sequence of its bucket is its revision.
type kind[T any] struct {
	bucket   []byte
	clone    func(*T) *T
	is       func(*T) (id string, revision *uint64)
	conflict error
}

var (
	heads = &kind[fleet.Record]{
		bucket: bucketHeads, clone: (*fleet.Record).Clone, conflict: fleet.ErrConflict,
		is: func(r *fleet.Record) (string, *uint64) { return r.Spec.ID, &r.Revision },
	}
	keys = &kind[access.Key]{
		bucket: bucketKeys, clone: (*access.Key).Clone, conflict: access.ErrKeyConflict,
		is: func(k *access.Key) (string, *uint64) { return k.ID, &k.Revision },
	}
)

// beginFeeds keeps the changes that are made from now on.
func (s *Store) beginFeeds(tx *bolt.Tx) error {
	s.heads = feed.New[fleet.Record](tx.Bucket(bucketHeads).Sequence(), feed.Bound)
	s.keys = feed.New[access.Key](tx.Bucket(bucketKeys).Sequence(), feed.Bound)
	s.policies = feed.New[policy.Stored](lastPolicy(tx.Bucket(bucketPolicies)), keptPolicies)
	return nil
}

// change is one change of a record; nil deletes it.
type change[T any] struct {
	id     string
	expect uint64
	value  *T
}

// read returns the records with the ids, without any all of them.
func (k *kind[T]) read(tx *bolt.Tx, ids ...string) (list []T, err error) {
	add := func(key, value []byte) error {
		revision, payload, err := split(key, value)
		if err != nil {
			return err
		}
		var v T
		if err := json.Unmarshal(payload, &v); err != nil {
			return fmt.Errorf("record %q: %w", key, err)
		}
		_, at := k.is(&v)
		*at = revision
		list = append(list, v)
		return nil
	}
	b := tx.Bucket(k.bucket)
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
	total, err := getSums(tx, k.bucket)
	if err != nil {
		return nil, err
	}
	list = make([]T, 0, total.count)
	defer release(tx)
	return list, b.ForEach(add)
}

// load is read in a transaction of its own, with the revision.
func load[T any](ctx context.Context, s *Store, operation string, k *kind[T], ids []string) (list []T, revision uint64, err error) {
	err = s.view(ctx, operation, func(tx *bolt.Tx) error {
		revision = tx.Bucket(k.bucket).Sequence()
		list, err = k.read(tx, ids...)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the %s: %w", k.bucket, err)
	}
	return list, revision, nil
}

// save makes all changes or none, and adds those that were made to the feed.
func save[T any](ctx context.Context, s *Store, k *kind[T], f *feed.Feed[T], changes []change[T]) error {
	revisions := make([]uint64, len(changes)) // 0: it was not there
	err := s.update(ctx, opSave, func(tx *bolt.Tx) error {
		b := tx.Bucket(k.bucket)
		total, err := getSums(tx, k.bucket)
		if err != nil {
			return err
		}
		for i, c := range changes {
			key := []byte(c.id)
			have, _, err := get(b, key)
			switch {
			case err != nil:
				return err
			case have != c.expect:
				return fmt.Errorf("%w: %s has %d, not %d", k.conflict, c.id, have, c.expect)
			case have == 0 && c.value == nil:
				continue
			}
			if revisions[i], err = b.NextSequence(); err != nil {
				return err
			}
			if c.value == nil {
				total.del(key, b.Get(key))
				err = b.Delete(key)
			} else {
				err = putAt(b, key, &total, revisions[i], c.value)
			}
			if err != nil {
				return err
			}
		}
		return total.put(tx, k.bucket)
	}, func() {
		made := make([]feed.Change[T], 0, len(changes))
		for i, c := range changes {
			if c.value != nil {
				_, at := k.is(c.value)
				*at = revisions[i]
				c.value = k.clone(c.value)
			}
			if revisions[i] > 0 {
				made = append(made, feed.Change[T]{ID: c.id, Revision: revisions[i], Value: c.value})
			}
		}
		f.Add(made...)
	})
	if err != nil {
		return fmt.Errorf("save changes of %s, %d in all: %w", k.bucket, len(changes), err)
	}
	return nil
}

func watch[T any](ctx context.Context, s *Store, k *kind[T], f *feed.Feed[T], after uint64) (feed.Changes[T], error) {
	return f.Next(ctx, after, func(ctx context.Context) (feed.Changes[T], error) {
		list, revision, err := load(ctx, s, opWatch, k, nil)
		if err != nil {
			return feed.Changes[T]{}, err
		}
		return feed.Read(nil, list, revision, func(v *T) (string, uint64) {
			id, at := k.is(v)
			return id, *at
		}), nil
	})
}

// Heads implements fleet.Store.
func (s *Store) Heads(ctx context.Context, ids ...string) ([]fleet.Record, uint64, error) {
	return load(ctx, s, opLoad, heads, ids)
}

// Save implements fleet.Store.
func (s *Store) Save(ctx context.Context, changes []fleet.Change) error {
	list := make([]change[fleet.Record], len(changes))
	for i, c := range changes {
		list[i] = change[fleet.Record]{c.ID, c.Expect, c.Record}
	}
	return save(ctx, s, heads, s.heads, list)
}

// Watch implements fleet.Store.
func (s *Store) Watch(ctx context.Context, after uint64) (feed.Changes[fleet.Record], error) {
	return watch(ctx, s, heads, s.heads, after)
}

// Keys implements access.KeyStore.
func (s *Store) Keys(ctx context.Context, ids ...string) ([]access.Key, uint64, error) {
	return load(ctx, s, opLoad, keys, ids)
}

// SaveKeys implements access.KeyStore.
func (s *Store) SaveKeys(ctx context.Context, changes []access.KeyChange) error {
	list := make([]change[access.Key], len(changes))
	for i, c := range changes {
		list[i] = change[access.Key]{c.ID, c.Expect, c.Key}
	}
	return save(ctx, s, keys, s.keys, list)
}

// WatchKeys implements access.KeyStore.
func (s *Store) WatchKeys(ctx context.Context, after uint64) (feed.Changes[access.Key], error) {
	return watch(ctx, s, keys, s.keys, after)
}

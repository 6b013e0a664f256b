package boltstore

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	bolt "go.etcd.io/bbolt"

	"headway/internal/access"
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

// Keys implements access.KeyStore.
func (s *Store) Keys(ctx context.Context) (list []access.Key, err error) {
	err = s.view(ctx, func(tx *bolt.Tx) error {
		list, err = keysOf(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	return list, nil
}

func keysOf(tx *bolt.Tx) (list []access.Key, err error) {
	err = tx.Bucket(bucketKeys).ForEach(func(key, value []byte) error {
		_, payload, err := split(key, value)
		if err != nil {
			return err
		}
		var k access.Key
		if err := json.Unmarshal(payload, &k); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		list = append(list, k)
		return nil
	})
	return list, err
}

// SaveKey implements access.KeyStore.
func (s *Store) SaveKey(ctx context.Context, k access.Key) error {
	err := s.update(ctx, func(tx *bolt.Tx) error {
		total, err := getSums(tx, bucketKeys)
		if err != nil {
			return err
		}
		if _, err := put(tx, bucketKeys, []byte(k.ID), &total, k); err != nil {
			return err
		}
		return total.put(tx, bucketKeys)
	})
	if err != nil {
		return fmt.Errorf("save the key: %w", err)
	}
	return nil
}

// ForgetKeys implements access.KeyStore.
func (s *Store) ForgetKeys(ctx context.Context, ids []string) error {
	err := s.update(ctx, func(tx *bolt.Tx) error {
		total, err := getSums(tx, bucketKeys)
		if err != nil {
			return err
		}
		b := tx.Bucket(bucketKeys)
		for _, id := range ids {
			key := []byte(id)
			old := b.Get(key)
			if old == nil {
				continue
			}
			total.del(key, old)
			if err := b.Delete(key); err != nil {
				return err
			}
		}
		return total.put(tx, bucketKeys)
	})
	if err != nil {
		return fmt.Errorf("forget keys: %w", err)
	}
	return nil
}

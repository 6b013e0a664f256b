package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"

	bolt "go.etcd.io/bbolt"
)

// inspect reads every page and every record of a file and changes nothing. A
// fresh file is one that bbolt made and nothing was written to: its two meta
// pages stand for transactions 0 and 1. The error is for what is not damage.
func inspect(path string) (report Report, fresh bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return Report{}, false, err
	}
	if !info.Mode().IsRegular() {
		return Report{}, false, fmt.Errorf("the state file %s is not a regular file", path)
	}
	if info.Size() == 0 {
		// bbolt would take it for a new one.
		return Report{Faults: []string{"it is empty"}}, false, nil
	}
	db, err := openBolt(path, true)
	if errors.Is(err, errDamaged) {
		return Report{Faults: []string{err.Error()}}, false, nil
	} else if err != nil {
		return Report{}, false, err
	}
	s := &Store{db: db, path: path}
	err = s.guard(func() error {
		return db.View(func(tx *bolt.Tx) error {
			if err := checkFile(path, int64(db.Info().PageSize)); err != nil {
				return err
			}
			if fresh = tx.ID() <= 1; !fresh {
				report.Buckets, report.Faults = verify(tx)
			}
			return nil
		})
	})
	if err != nil {
		report.Faults = append(report.Faults, err.Error())
	}
	// What was only read cannot fail to be written.
	_ = s.Close()
	report.Faults = report.Faults[:min(len(report.Faults), maxFaults)]
	return report, fresh, nil
}

func checkFile(path string, pageSize int64) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return checkPages(file, pageSize, info.Size())
}

// sums is the count of a bucket's records and the sum of their hashes, which
// does not depend on their order.
type sums struct{ count, sum uint64 }

func (s *sums) add(key, value []byte) { s.count++; s.sum += recordHash(key, value) }
func (s *sums) del(key, value []byte) { s.count--; s.sum -= recordHash(key, value) }

func recordHash(key, value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(key)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(value)
	return h.Sum64()
}

func sumsKey(bucket []byte) []byte { return append([]byte("sums:"), bucket...) }

func (s sums) put(tx *bolt.Tx, bucket []byte) error {
	key := sumsKey(bucket)
	payload := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, s.count), s.sum)
	return tx.Bucket(bucketMeta).Put(key, seal(key, payload))
}

func getSums(tx *bolt.Tx, bucket []byte) (sums, error) {
	key := sumsKey(bucket)
	payload, err := unseal(key, tx.Bucket(bucketMeta).Get(key))
	if err != nil || len(payload) != 16 {
		return sums{}, fmt.Errorf("%s: %w", key, errors.Join(err, errDamaged))
	}
	return sums{binary.BigEndian.Uint64(payload), binary.BigEndian.Uint64(payload[8:])}, nil
}

// verify reads everything and returns what is there and what is wrong with it.
func verify(tx *bolt.Tx) (buckets []BucketReport, faults []string) {
	add := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if tx.Bucket(bucketMeta) == nil {
		return nil, []string{"bucket meta is missing"}
	}
	v, err := getUint(tx, keySchema)
	if err != nil {
		add("%v", err)
		v = schema
	}
	for _, name := range checkedOf(v) {
		if tx.Bucket(name) == nil {
			add("bucket %s is missing", name)
		}
	}
	if len(faults) > 0 && err == nil {
		return nil, faults
	}
	if v > schema {
		return nil, append(faults, fmt.Sprintf("it was written by a newer headway (schema %d; this one knows %d): upgrade headway", v, schema))
	}
	if _, err := getUint(tx, keyEpochs); err != nil {
		add("%v", err)
	}
	for _, name := range checkedOf(v) {
		if tx.Bucket(name) == nil {
			continue
		}
		var found sums
		highest := uint64(0)
		err := tx.Bucket(name).ForEach(func(key, value []byte) error {
			found.add(key, value)
			revision, _, err := split(key, value)
			if err != nil {
				add("bucket %s: %v", name, err)
			}
			highest = max(highest, revision)
			return nil
		})
		if err != nil {
			add("bucket %s: %v", name, err)
		}
		if next := tx.Bucket(name).Sequence(); next < highest && !bytes.Equal(name, bucketPolicies) {
			add("bucket %s would give revision %d once more", name, next+1)
		}
		want, err := getSums(tx, name)
		switch {
		case err != nil:
			add("%v", err)
		case want.count != found.count:
			add("the number of records of bucket %s is %d, not %d", name, found.count, want.count)
		case want.sum != found.sum:
			add("the records of bucket %s are not those that were written", name)
		}
		buckets = append(buckets, BucketReport{Name: string(name), Records: int(found.count)})
	}
	return buckets, faults
}

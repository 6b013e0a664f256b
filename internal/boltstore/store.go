// Package boltstore is the embedded default of durable state: heads, policies
// and API keys in one bbolt file. Every answer waits for the disk.
//
// bbolt trusts its pages, so a flipped bit may come back as a wrong value, hide
// a key or have live pages overwritten. Each record therefore carries a
// checksum, and each bucket a count and the sum of its records' hashes; all are
// verified when the file is opened, as is its structure, before bbolt may write
// to it, and a file that fails is refused.
package boltstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"headway/internal/access"
	"headway/internal/disk"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/policy"
)

// Options are the settings of a Store. Zero values are the defaults.
type Options struct {
	MinFreeBytes int64                 // free space on the disk below which nothing more is written; 64 MiB
	Metrics      prometheus.Registerer // nil: not registered
}

// schema is the version of the layout. A file of a higher one was written by a
// newer program.
const schema = schemaKeys

// lockTimeout is how long Open waits for another process to let go of the file.
const lockTimeout = time.Second

// The buckets. meta holds the schema, the epochs granted and the sums.
var (
	bucketHeads    = []byte("heads")
	bucketPolicies = []byte("policies")
	bucketKeys     = []byte("keys")
	bucketMeta     = []byte("meta")

	keySchema = []byte("schema")
	keyEpochs = []byte("epochs")
)

// checked are the buckets whose records are counted and summed.
var checked = [][]byte{bucketHeads, bucketPolicies, bucketKeys}

// checkedOf are those that a file of the version has.
func checkedOf(version uint64) [][]byte {
	if version < schemaKeys {
		return checked[:2]
	}
	return checked
}

// Store is a fleet.Store, a policy.Store and an access.KeyStore. All methods are safe for
// concurrent use; writes wait for each other.
type Store struct {
	db      *bolt.DB
	path    string
	minFree int64
	metrics *metrics

	heads    *feed.Feed[fleet.Record]
	keys     *feed.Feed[access.Key]
	policies *feed.Feed[policy.Stored]

	writing sync.Mutex            // held by the one that writes, so that those who wait learn of a failure
	broken  atomic.Pointer[error] // why bbolt cannot be asked any more; nil: it can
}

// Open opens the file, or makes it. The error is one sentence that says what is
// wrong with it and what helps.
func Open(path string, o Options) (*Store, error) {
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = 64 << 20
	}
	_, err := os.Stat(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	if !fresh {
		var report Report
		if report, fresh, err = inspect(path); err != nil {
			return nil, err
		}
		if len(report.Faults) > 0 {
			return nil, sentence(path, errors.New(report.Faults[0]))
		}
	}
	db, err := openBolt(path, false)
	if errors.Is(err, errDamaged) {
		return nil, sentence(path, err)
	} else if err != nil {
		return nil, err
	}
	s := &Store{db: db, path: path, minFree: o.MinFreeBytes, metrics: newMetrics(o.Metrics)}
	if fresh {
		if err := s.lay(); err != nil {
			return nil, fmt.Errorf("make the state file %s: %w", path, errors.Join(err, db.Close()))
		}
	}
	if err := errors.Join(s.migrate(), s.guard(func() error { return s.db.View(s.beginFeeds) })); err != nil {
		return nil, fmt.Errorf("bring the state file %s up to this version: %w", path, errors.Join(err, db.Close()))
	}
	return s, nil
}

// openBolt opens a file. The error wraps errDamaged when it is no file of
// bbolt's or a damaged one.
func openBolt(path string, readOnly bool) (db *bolt.DB, err error) {
	err = guard(func() error {
		db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, ReadOnly: readOnly})
		return err
	})
	_, system := errors.AsType[syscall.Errno](err)
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("the state file %s is in use by another process; stop that headway, or use another --data-dir", path)
	case system:
		return nil, fmt.Errorf("open the state file: %w", err)
	}
	return nil, fmt.Errorf("%w: %w", errDamaged, err)
}

// guard runs f and turns what bbolt does on a damaged page, panics and memory
// faults, into an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errUnreadable, p)
		}
	}()
	return f()
}

var errUnreadable = errors.New("a page cannot be read")

// guard runs f as the function does, but not after a page could not be read: that
// leaves bbolt with its locks held, and who asks it again would wait for ever.
func (s *Store) guard(f func() error) error {
	if why := s.broken.Load(); why != nil {
		return *why
	}
	err := guard(f)
	if errors.Is(err, errUnreadable) {
		why := fmt.Errorf("the state file is read and written no more until the next start: %w", err)
		s.broken.CompareAndSwap(nil, &why)
	}
	return err
}

var errDamaged = errors.New("it is damaged")

// sentence is what an operator reads about a file that cannot be used.
func sentence(path string, err error) error {
	return fmt.Errorf("the state file %s cannot be used: %w; 'headway state check --data-dir %[3]s' lists what is wrong; move the file away and restore the last export with 'headway state import FILE --data-dir %[3]s', or start without it: heads register again by themselves", path, err, filepath.Dir(path))
}

// lay makes the buckets of a new file.
func (s *Store) lay() error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range append([][]byte{bucketMeta}, checked...) {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		if err := putUint(tx, keySchema, schema); err != nil {
			return err
		}
		for _, name := range checked {
			if err := (sums{}).put(tx, name); err != nil {
				return err
			}
		}
		return putUint(tx, keyEpochs, 0)
	})
}

// Close waits for what is being written and closes the file. Where a page could
// not be read only the end of the process does.
func (s *Store) Close() error { return s.guard(s.db.Close) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal returns the value to store under key: a CRC-32C over key and payload,
// which finds every flip of up to 5 bits in a record of this size, and the
// payload.
func seal(key, payload []byte) []byte {
	value := make([]byte, 4, 4+len(payload))
	binary.BigEndian.PutUint32(value, crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, payload))
	return append(value, payload...)
}

func unseal(key, value []byte) ([]byte, error) {
	if len(value) < 4 {
		return nil, errors.New("it is too short")
	}
	if binary.BigEndian.Uint32(value) != crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value[4:]) {
		return nil, errors.New("its checksum is wrong")
	}
	return value[4:], nil
}

func putUint(tx *bolt.Tx, key []byte, v uint64) error {
	return tx.Bucket(bucketMeta).Put(key, seal(key, binary.BigEndian.AppendUint64(nil, v)))
}

func getUint(tx *bolt.Tx, key []byte) (uint64, error) {
	payload, err := unseal(key, tx.Bucket(bucketMeta).Get(key))
	if err != nil || len(payload) != 8 {
		return 0, fmt.Errorf("%s: %w", key, errors.Join(err, errDamaged))
	}
	return binary.BigEndian.Uint64(payload), nil
}

// update runs f in a transaction, and done when that is on the disk.
func (s *Store) update(ctx context.Context, operation string, f func(*bolt.Tx) error, done func()) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer func(begin time.Time) { s.metrics.ended(operation, begin, err) }(time.Now())
	if err := s.roomLeft(); err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	err = s.guard(func() error { return s.db.Update(f) })
	switch {
	case err == nil:
		done()
		return nil
	case conflict(err):
		return err
	}
	return fmt.Errorf("%w: %w", fleet.ErrStoreUnavailable, err)
}

// roomLeft refuses writes while the disk is nearly full, which leaves room for
// the log and for people who come to help.
func (s *Store) roomLeft() error {
	free, err := disk.Free(filepath.Dir(s.path))
	if err != nil {
		return fmt.Errorf("%w: free space: %w", fleet.ErrStoreUnavailable, err)
	}
	if free < s.minFree {
		return fmt.Errorf("%w: %d MiB are free where %s stands, and %d MiB must be (state.min_free_bytes)",
			fleet.ErrStoreUnavailable, free>>20, s.path, s.minFree>>20)
	}
	return nil
}

// view runs f in a transaction that reads.
func (s *Store) view(ctx context.Context, operation string, f func(*bolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	begin := time.Now()
	err := s.guard(func() error { return s.db.View(f) })
	s.metrics.ended(operation, begin, err)
	return err
}

// putAt writes a record of a checked bucket: its revision, then the JSON of v.
func putAt(b *bolt.Bucket, key []byte, total *sums, revision uint64, v any) error {
	payload, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return err
	}
	if old := b.Get(key); old != nil {
		total.del(key, old)
	}
	value := seal(key, append(binary.BigEndian.AppendUint64(nil, revision), payload...))
	total.add(key, value)
	return b.Put(key, value)
}

// get returns the revision and the JSON of a record; revision 0 is none.
func get(b *bolt.Bucket, key []byte) (revision uint64, payload []byte, err error) {
	value := b.Get(key)
	if value == nil {
		return 0, nil, nil
	}
	return split(key, value)
}

func split(key, value []byte) (revision uint64, payload []byte, err error) {
	payload, err = unseal(key, value)
	if err == nil && len(payload) < 8 {
		err = errors.New("it is too short")
	}
	if err != nil {
		return 0, nil, fmt.Errorf("record %q: %w", key, err)
	}
	return binary.BigEndian.Uint64(payload), payload[8:], nil
}

// GrantEpochs implements fleet.Store.
func (s *Store) GrantEpochs(ctx context.Context, n uint64) (first uint64, err error) {
	err = s.update(ctx, opGrantEpochs, func(tx *bolt.Tx) error {
		granted, err := getUint(tx, keyEpochs)
		if err != nil {
			return err
		}
		first = granted + 1
		return putUint(tx, keyEpochs, granted+n)
	}, func() {})
	if err != nil {
		return 0, fmt.Errorf("grant epochs: %w", err)
	}
	return first, nil
}

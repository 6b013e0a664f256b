package boltstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"headway/internal/boltstore"
)

// What bbolt writes is sound, however the tree grows and shrinks: keys of very
// different lengths make it three levels deep, and whole ranges are deleted.
func TestEveryFileThatBboltWritesIsSound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	r := rand.New(rand.NewPCG(3, 4))
	key := func(i int) []byte { return fmt.Appendf(nil, "%05d%s", i, strings.Repeat("k", i*7919%600)) }
	keys := 0
	for round := range 70 {
		err := db.Update(func(tx *bolt.Tx) error {
			for _, name := range []string{"small", "large"} {
				if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
			}
			b := tx.Bucket([]byte("large"))
			from, n := r.IntN(2000), 1+r.IntN(300)
			var err error
			for i := from; i < from+n; i++ {
				switch {
				case round%7 > 3 || round > 60: // deletes a range
					err = errors.Join(err, b.Delete(key(i)))
				case r.IntN(3) > 0:
					err = errors.Join(err, b.Put(key(i), make([]byte, r.IntN(200)*r.IntN(60))))
				}
			}
			keys = max(keys, b.Stats().KeyN)
			return errors.Join(err, tx.Bucket([]byte("small")).Put([]byte{byte(round % 9)}, make([]byte, r.IntN(300))))
		})
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(boltstore.CheckPages(file, int64(db.Info().PageSize), info.Size()), file.Close()); err != nil {
			t.Fatalf("after round %d: %v", round, err)
		}
	}
	if keys < 300 {
		t.Errorf("the tree had at most %d keys", keys)
	}
}

package boltstore_test

import (
	"bytes"
	"crypto/sha256"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"headway/internal/access"
	"headway/internal/boltstore"
)

func key(id string) access.Key {
	hash := sha256.Sum256([]byte(id))
	return access.Key{
		ID: id, Name: "the key " + id, Role: access.RoleHead, Heads: []string{"gpu-*"}, Hash: hash[:],
		CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), CreatedBy: "local",
	}
}

func keysOf(t *testing.T, s *boltstore.Store) []access.Key {
	t.Helper()
	list, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestKeysLastAndMove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	revoked := key("a")
	for _, k := range []access.Key{key("a"), key("b")} {
		if err := s.SaveKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	revoked.RevokedAt = revoked.CreatedAt.Add(time.Hour)
	if err := s.SaveKey(t.Context(), revoked); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := []access.Key{revoked, key("b")}
	s = open(t, path)
	if got := keysOf(t, s); !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart: %+v; want %+v", got, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var export bytes.Buffer
	if err := boltstore.Export(t.Context(), path, &export); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(t.TempDir(), "state.db")
	if err := boltstore.Import(t.Context(), &export, moved); err != nil {
		t.Fatal(err)
	}
	s = open(t, moved)
	defer s.Close()
	if got := keysOf(t, s); !reflect.DeepEqual(got, want) {
		t.Errorf("after a move: %+v; want %+v", got, want)
	}
}

func TestForgottenKeysStayAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	for _, id := range []string{"a", "b", "c"} {
		if err := s.SaveKey(t.Context(), key(id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.ForgetKeys(t.Context(), []string{"a", "nobody", "c"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if report, err := boltstore.Check(path); err != nil || len(report.Faults) > 0 {
		t.Errorf("the file: %+v, %v", report, err)
	}
	s = open(t, path)
	defer s.Close()
	if got, want := keysOf(t, s), []access.Key{key("b")}; !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart: %+v; want %+v", got, want)
	}
}

// A file from before there were keys is sound, can be exported, and gets a
// place for keys when it is opened.
func TestAFileWithoutKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		if err := tx.DeleteBucket([]byte("keys")); err != nil {
			return err
		}
		if err := meta.Delete([]byte("sums:keys")); err != nil {
			return err
		}
		return meta.Put([]byte("schema"), boltstore.Seal([]byte("schema"), []byte{0, 0, 0, 0, 0, 0, 0, 1}))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if report, err := boltstore.Check(path); err != nil || len(report.Faults) > 0 {
		t.Fatalf("the old file: %+v, %v", report, err)
	}
	if err := boltstore.Export(t.Context(), path, &bytes.Buffer{}); err != nil {
		t.Errorf("export of the old file: %v", err)
	}
	s = open(t, path)
	if err := s.SaveKey(t.Context(), key("a")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	defer s.Close()
	if got := keysOf(t, s); len(got) != 1 {
		t.Errorf("it holds %+v", got)
	}
}

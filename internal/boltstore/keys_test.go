package boltstore_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"headway/internal/access"
	"headway/internal/boltstore"
	"headway/internal/feed"
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
	list, _, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if list[i].Revision == 0 {
			t.Errorf("key %s has no revision", list[i].ID)
		}
		list[i].Revision = 0
	}
	return list
}

// saveKey stores a key, and replaces one with its id.
func saveKey(t *testing.T, s *boltstore.Store, k access.Key) {
	t.Helper()
	stored, _, err := s.Keys(t.Context(), k.ID)
	change := feed.Change[access.Key]{ID: k.ID, Value: &k}
	if len(stored) > 0 {
		change.Expect = stored[0].Revision
	}
	if err := errors.Join(err, s.SaveKeys(t.Context(), []feed.Change[access.Key]{change})); err != nil {
		t.Fatal(err)
	}
}

func TestKeysLastAndMove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	revoked := key("a")
	for _, k := range []access.Key{key("a"), key("b")} {
		saveKey(t, s, k)
	}
	revoked.RevokedAt = revoked.CreatedAt.Add(time.Hour)
	saveKey(t, s, revoked)
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
		saveKey(t, s, key(id))
	}
	if err := s.SaveKeys(t.Context(), []feed.Change[access.Key]{{ID: "a", Expect: 1}, {ID: "none"}, {ID: "c", Expect: 3}}); err != nil {
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
	saveKey(t, s, key("a"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	defer s.Close()
	if got := keysOf(t, s); len(got) != 1 {
		t.Errorf("it holds %+v", got)
	}
}

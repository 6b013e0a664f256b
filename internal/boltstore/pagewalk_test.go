package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"headway/internal/policy"

	bolt "go.etcd.io/bbolt"
)

const testPage = 4096

// bboltFile is a file that bbolt wrote: a tree of two levels, a small bucket and
// free pages. Its newest commit is in the meta page of the number.
func bboltFile(t *testing.T, newest int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: testPage})
	if err != nil {
		t.Fatal(err)
	}
	key := func(i int) []byte { return fmt.Appendf(nil, "key-%04d", i) }
	steps := []func(tx *bolt.Tx) error{
		func(tx *bolt.Tx) error {
			large, err := tx.CreateBucket([]byte("large"))
			for i := 0; err == nil && i < 300; i++ {
				err = large.Put(key(i), make([]byte, 200))
			}
			return err
		},
		func(tx *bolt.Tx) error {
			small, err := tx.CreateBucket([]byte("small"))
			if err == nil {
				err = small.Put([]byte("a"), []byte("b"))
			}
			return err
		},
		func(tx *bolt.Tx) error {
			for i := range 100 {
				if err := tx.Bucket([]byte("large")).Delete(key(i)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for range newest {
		steps = append(steps, func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("large")).Delete(key(200))
		})
	}
	for _, step := range steps {
		if err := db.Update(step); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPages(bytes.NewReader(raw), testPage, int64(len(raw))); err != nil {
		t.Fatalf("bbolt's file: %v", err)
	}
	return raw
}

// meta is the meta page with the newest commit, or the other.
func meta(raw []byte, newest bool) []byte {
	first, second := raw[pageHeader:][:metaSize], raw[testPage+pageHeader:][:metaSize]
	if (order.Uint64(first[48:]) > order.Uint64(second[48:])) == newest {
		return first
	}
	return second
}

func sealMeta(m []byte) {
	h := fnv.New64a()
	_, _ = h.Write(m[:56])
	order.PutUint64(m[56:], h.Sum64())
}

func page(raw []byte, id uint64) []byte { return raw[id*testPage:][:testPage] }

// Files that bbolt does not write, and opens as if nothing were wrong, are
// refused for what is wrong with them.
func TestPagesThatBboltDoesNotWrite(t *testing.T) {
	for what, c := range map[string]struct {
		change func(raw []byte)
		want   string
	}{
		"as it is": {func([]byte) {}, ""},
		"the count of free pages stands before them": {func(raw []byte) {
			free := page(raw, order.Uint64(meta(raw, true)[32:]))
			n := order.Uint16(free[10:])
			copy(free[pageHeader+8:], bytes.Clone(free[pageHeader:][:8*int(n)]))
			order.PutUint64(free[pageHeader:], uint64(n))
			order.PutUint16(free[10:], 0xFFFF)
		}, ""},
		"a page that is neither used nor free": {func(raw []byte) {
			free := page(raw, order.Uint64(meta(raw, true)[32:]))
			order.PutUint16(free[10:], order.Uint16(free[10:])-1)
		}, "neither used nor free"},
		"a page that is free twice": {func(raw []byte) {
			free := page(raw, order.Uint64(meta(raw, true)[32:]))
			copy(free[pageHeader+8:], bytes.Clone(free[pageHeader:][:8]))
		}, "out of order"},
		"a page that is used and free": {func(raw []byte) {
			newest := meta(raw, true)
			free := page(raw, order.Uint64(newest[32:]))
			n := order.Uint16(free[10:])
			ids := []uint64{order.Uint64(newest[16:])} // the root
			for i := range int(n) {
				ids = append(ids, order.Uint64(free[pageHeader+8*i:]))
			}
			slices.Sort(ids)
			for i, id := range ids {
				order.PutUint64(free[pageHeader+8*i:], id)
			}
			order.PutUint16(free[10:], n+1)
		}, "is used twice"},
		"metas that do not follow each other": {func(raw []byte) {
			older := meta(raw, false)
			order.PutUint64(older[48:], order.Uint64(older[48:])-2)
			sealMeta(older)
		}, "do not follow each other"},
		"a newest meta of another format":   {func(raw []byte) { m := meta(raw, true); m[0]++; sealMeta(m) }, "is of another format"},
		"an older meta of another version":  {func(raw []byte) { m := meta(raw, false); m[4]++; sealMeta(m) }, "is of another format"},
		"a meta with pages of another size": {func(raw []byte) { m := meta(raw, true); m[9]++; sealMeta(m) }, "is of another format"},
		"a meta that is damaged":            {func(raw []byte) { meta(raw, false)[40]++ }, "is damaged, and with it"},
		"the newest meta is damaged":        {func(raw []byte) { meta(raw, true)[40]++ }, "is damaged, and with it"},
		"a key that belongs to the next page": {func(raw []byte) {
			for id := uint64(2); id < uint64(len(raw)/testPage); id++ {
				branch := page(raw, id)
				if order.Uint16(branch[8:]) != flagBranch || order.Uint64(branch) != id || order.Uint16(branch[10:]) < 2 {
					continue
				}
				second := branch[pageHeader+elementSize:]
				next := second[order.Uint32(second):][:order.Uint32(second[4:])]
				leaf := page(raw, order.Uint64(branch[pageHeader+8:]))
				last := leaf[pageHeader+(int(order.Uint16(leaf[10:]))-1)*elementSize:]
				copy(last[order.Uint32(last[4:]):][:order.Uint32(last[8:])], next)
			}
		}, "out of order"},
		"a small bucket whose value is too long": {func(raw []byte) {
			name := []byte("small") // its value follows: root, sequence, and the page
			for at := bytes.Index(raw, name); at >= 0; {
				order.PutUint32(raw[at+len(name)+16+pageHeader+12:], 5000)
				next := bytes.Index(raw[at+1:], name)
				if next < 0 {
					break
				}
				at += 1 + next
			}
		}, "an element of a small bucket is damaged"},
	} {
		for newest := range 2 {
			raw := bboltFile(t, newest)
			if id := order.Uint64(meta(raw, true)[48:]) % 2; id != uint64(newest) {
				t.Fatalf("the newest commit is in page %d", id)
			}
			c.change(raw)
			err := checkPages(bytes.NewReader(raw), testPage, int64(len(raw)))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s, the newest commit in page %d: %v, want %q", what, newest, err, c.want)
			}
		}
	}
}

// A file that says of its pages that each has one more below it is refused, and
// not followed until the stack is full.
func TestAChainOfPagesEnds(t *testing.T) {
	const last = 100_000
	chain := readerOf(func(at int64, b []byte) {
		clear(b)
		id := uint64(at / testPage)
		page := make([]byte, testPage)
		switch id {
		case 0, 1:
			m := page[pageHeader:]
			order.PutUint32(m, bboltMagic)
			order.PutUint32(m[4:], bboltVersion)
			order.PutUint32(m[8:], testPage)
			order.PutUint64(m[16:], 3)
			order.PutUint64(m[32:], 2)
			order.PutUint64(m[40:], last)
			order.PutUint64(m[48:], 2+id)
			sealMeta(m)
		case 2:
			order.PutUint64(page, id)
			order.PutUint16(page[8:], flagFreelist)
		default:
			order.PutUint64(page, id)
			order.PutUint16(page[8:], flagBranch)
			order.PutUint16(page[10:], 1)
			order.PutUint32(page[pageHeader:], elementSize)
			order.PutUint64(page[pageHeader+8:], id+1)
		}
		copy(b, page[at%testPage:])
	})
	for _, small := range []int64{testPage, 1, 2, 16, 17} { // of pages that are none
		err := guard(func() error { return checkPages(chain, small, last*testPage) })
		if err == nil || small == testPage && !strings.Contains(err.Error(), "deeper than those of a tree") {
			t.Errorf("pages of %d bytes: %v", small, err)
		}
	}
}

// readerOf is a file that is made as it is read.
type readerOf func(at int64, b []byte)

func (r readerOf) ReadAt(b []byte, at int64) (int, error) {
	r(at, b)
	return len(b), nil
}

func policyOf(strategy string) policy.Stored {
	return policy.Stored{Document: []byte(`{"default_strategy":"` + strategy + `"}`), Source: policy.SourceAPI}
}

// A record that was written at some time is sound by itself, and still not the
// one that was written last.
func TestAnOlderRecordIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SavePolicy(t.Context(), 0, policyOf("first")); err != nil {
		t.Fatal(err)
	}
	var older []byte
	err = s.db.View(func(tx *bolt.Tx) error {
		older = bytes.Clone(tx.Bucket(bucketPolicies).Get(policyKey(1)))
		return nil
	})
	if err != nil || older == nil {
		t.Fatalf("the record is %q, %v", older, err)
	}
	err = s.db.Update(func(tx *bolt.Tx) error { // as a write of the store, but for the sums
		return tx.Bucket(bucketPolicies).Put(policyKey(1), seal(policyKey(1), append(older[4:12:12], `{"document":{}}`...)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := Check(path)
	if err != nil || len(report.Faults) == 0 || !strings.Contains(strings.Join(report.Faults, " "), "not those that were written") {
		t.Errorf("faults %q, %v; want that the records are not those that were written", report.Faults, err)
	}
}

// A record that does not fit its checksum is found, also where the sums fit.
func TestARecordThatDoesNotFitItsChecksumIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SavePolicy(t.Context(), 0, policyOf("first")); err != nil {
		t.Fatal(err)
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		b, key := tx.Bucket(bucketPolicies), policyKey(1)
		total, err := getSums(tx, bucketPolicies)
		if err != nil {
			return err
		}
		value := bytes.Clone(b.Get(key))
		total.del(key, value)
		value[len(value)-2] ^= 1
		total.add(key, value)
		return errors.Join(b.Put(key, value), total.put(tx, bucketPolicies))
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	report, err := Check(path)
	if err != nil || !strings.Contains(strings.Join(report.Faults, " "), "its checksum is wrong") {
		t.Errorf("faults %q, %v; want that the checksum is wrong", report.Faults, err)
	}
}

// Free space is looked at again: a disk that fills while the store is open takes
// no more, and one that was emptied does.
func TestFreeSpaceIsLookedAtAgain(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "headway.db"), Options{MinFreeBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.SavePolicy(t.Context(), 0, policyOf("first")); err != nil {
		t.Fatal(err)
	}
	s.minFree = 1 << 62 // the disk has filled
	if _, err := s.SavePolicy(t.Context(), 1, policyOf("second")); err == nil {
		t.Error("a disk that has filled is written")
	}
	s.minFree = 1
	if _, err := s.SavePolicy(t.Context(), 1, policyOf("second")); err != nil {
		t.Errorf("a disk that was emptied is not written: %v", err)
	}
}

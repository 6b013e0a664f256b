package boltstore_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"headway/internal/boltstore"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/policy"
)

const pageSize = 4096

// damagedFile is a sound file, and what is done with damaged copies of it.
type damagedFile struct {
	sound          []byte
	heads          []fleet.Record
	policies       []policy.Stored
	dir            string
	tries, refused int
}

func newDamagedFile(t testing.TB) *damagedFile {
	f := &damagedFile{dir: t.TempDir()}
	path := filepath.Join(f.dir, "sound")
	f.heads, f.policies = fill(t, path, 40)
	var err error
	if f.sound, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return f
}

// flip tries the file with one bit changed.
func (f *damagedFile) flip(t *testing.T, bit int) {
	t.Helper()
	damaged := bytes.Clone(f.sound)
	damaged[bit/8] ^= 1 << (bit % 8)
	f.try(t, fmt.Sprintf("bit %d of byte %d of page %d flipped", bit%8, bit/8%pageSize, bit/8/pageSize), damaged)
}

// try opens a damaged file. It must be refused with a sentence, or serve what
// was written and take new writes, which one in three is given, after which it is as sound as any.
func (f *damagedFile) try(t *testing.T, what string, damaged []byte) {
	t.Helper()
	f.tries++
	path := filepath.Join(f.dir, fmt.Sprintf("damaged-%d", f.tries))
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(path) }()
	report, err := boltstore.Check(path)
	if err != nil {
		t.Errorf("%s: check: %v", what, err)
	}
	s, err := boltstore.Open(path, boltstore.Options{})
	if (err == nil) != (len(report.Faults) == 0) {
		t.Errorf("%s: opening says %v, and check %q", what, err, report.Faults)
	}
	if err != nil {
		f.refused++
		if msg := err.Error(); !strings.Contains(msg, "headway state") || strings.Contains(msg, "goroutine") {
			t.Errorf("%s: the refusal is no sentence that helps: %v", what, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, damaged) {
			t.Errorf("%s: a file that was refused was written to (error %v)", what, err)
		}
		return
	}
	heads, policies, err := contents(s)
	if err != nil || !reflect.DeepEqual(heads, f.heads) || !reflect.DeepEqual(policies, f.policies) {
		t.Errorf("%s: %d heads and %d policies are served, not those that were written; error %v", what, len(heads), len(policies), err)
	}
	if f.tries%3 == 0 { // for the time that syncing takes
		if err := rewrite(t, s, heads); err != nil {
			t.Errorf("%s: writes: %v", what, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if s, err = boltstore.Open(path, boltstore.Options{}); err != nil {
		t.Errorf("%s: after writes: %v", what, err)
		return
	}
	if again, _, err := contents(s); err != nil || !reflect.DeepEqual(again, heads) {
		t.Errorf("%s: after writes it serves %d heads, not those that were written; error %v", what, len(again), err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// rewrite changes every head, in two rounds, the second of which uses pages
// that the first set free.
func rewrite(t *testing.T, s *boltstore.Store, heads []fleet.Record) error {
	for round := range 2 {
		var changes []feed.Change[fleet.Record]
		for i := round; i < len(heads); i += 2 {
			heads[i].Epoch++
			changes = append(changes, feed.Change[fleet.Record]{ID: heads[i].Spec.ID, Expect: heads[i].Revision, Value: &heads[i]})
		}
		if err := s.Save(t.Context(), changes); err != nil {
			return err
		}
	}
	return nil
}

func TestADamagedFileIsRefusedOrServesWhatWasWritten(t *testing.T) {
	t.Run("any bit", func(t *testing.T) {
		f := newDamagedFile(t)
		r := rand.New(rand.NewPCG(1, 2))
		for range 60 {
			f.flip(t, r.IntN(len(f.sound)*8))
		}
	})
	// What bbolt keeps of its own has no checksum but in its meta pages.
	t.Run("the head of each page", func(t *testing.T) {
		f := newDamagedFile(t)
		const head = 80 // the header and the first elements, or all of a meta
		for page := range len(f.sound) / pageSize {
			for bit := page % 31; bit < head*8; bit += 31 {
				if f.sound[page*pageSize+bit/8]|f.sound[page*pageSize+8] != 0 {
					f.flip(t, page*pageSize*8+bit)
				}
			}
		}
		if f.refused < f.tries/3 {
			t.Errorf("%d of %d were refused; most of these bits matter", f.refused, f.tries)
		}
	})
	t.Run("cut", func(t *testing.T) {
		f := newDamagedFile(t)
		for size := 0; size < len(f.sound); size += 1 + len(f.sound)/40 {
			f.try(t, fmt.Sprintf("cut to %d bytes", size), f.sound[:size])
		}
		for size := 0; size < len(f.sound); size += pageSize {
			f.try(t, fmt.Sprintf("cut to %d bytes", size), f.sound[:size])
		}
	})
	t.Run("a page of zeros", func(t *testing.T) {
		f := newDamagedFile(t)
		for at := 0; at < len(f.sound); at += pageSize {
			damaged := bytes.Clone(f.sound)
			clear(damaged[at : at+pageSize])
			f.try(t, fmt.Sprintf("zeros at %d", at), damaged)
		}
	})
	t.Run("a page from elsewhere", func(t *testing.T) {
		f := newDamagedFile(t)
		for at := pageSize; at < len(f.sound); at += pageSize {
			damaged := bytes.Clone(f.sound)
			copy(damaged[at:at+pageSize], f.sound[at-pageSize:])
			f.try(t, fmt.Sprintf("the page before at %d", at), damaged)
		}
	})
	t.Run("another kind of file", func(t *testing.T) {
		f := newDamagedFile(t)
		f.try(t, "a text", []byte("# not a state file\n"))
		f.try(t, "a long text", bytes.Repeat([]byte("# not a state file\n"), 1000))
	})
}

package boltstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"headway/internal/boltstore"
	"headway/internal/feed"
	"headway/internal/fleet"
)

// An export of an open file makes the same state as one of a closed file, while
// others write.
func TestAnOpenFileIsExportedOfOneMoment(t *testing.T) {
	path, to := filepath.Join(t.TempDir(), "headway.db"), filepath.Join(t.TempDir(), "to.db")
	fill(t, path, 60)
	s := open(t, path)
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() { // both heads always have the same weight, in each commit
		for weight := 2.0; ctx.Err() == nil; weight++ {
			list, _, err := s.Heads(ctx)
			if err != nil {
				return
			}
			var changes []feed.Change[fleet.Record]
			for _, r := range list[:2] {
				r.Spec.Weight = weight
				changes = append(changes, feed.Change[fleet.Record]{ID: r.Spec.ID, Expect: r.Revision, Value: &r})
			}
			if err := s.Save(ctx, changes); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	var out bytes.Buffer
	for range 20 {
		out.Reset()
		if err := s.Export(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		if report, err := s.Check(t.Context()); err != nil || len(report.Faults) > 0 || report.Buckets[0].Records != 60 {
			t.Fatalf("%+v, %v", report, err)
		}
	}
	stop()
	writer.Wait()
	if err := boltstore.Import(t.Context(), &out, to); err != nil {
		t.Fatal(err)
	}
	heads, policies, err := contents(open(t, to))
	if err != nil || len(heads) != 60 || len(policies) != 1 {
		t.Fatalf("%d heads and %d policies came back, error %v", len(heads), len(policies), err)
	}
	if a, b := heads[0].Spec.Weight, heads[1].Spec.Weight; a != b {
		t.Errorf("one commit gave two heads the weights %v and %v", a, b)
	}
}

// Both exports of a state that does not change have the same records.
func TestBothExportsAreAlike(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	fill(t, path, 7)
	closed := export(t, path)
	var opened bytes.Buffer
	if err := open(t, path).Export(t.Context(), &opened); err != nil {
		t.Fatal(err)
	}
	if got, want := records(opened.String()), records(closed); !reflect.DeepEqual(got, want) {
		t.Errorf("open: %s\nclosed: %s", got, want)
	}
}

// Damage that happens under a running service is found, and never exported.
func TestDamageUnderAnOpenFileIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	fill(t, path, 30)
	s := open(t, path)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; ; at++ {
		next := bytes.Index(data[at:], []byte("10.0.0.7"))
		if next < 0 {
			break
		}
		at += next
		if _, err := file.WriteAt([]byte{'9'}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if report, err := s.Check(t.Context()); err != nil || len(report.Faults) == 0 {
		t.Errorf("a check found %v, error %v", report.Faults, err)
	}
	var out bytes.Buffer
	if err := s.Export(t.Context(), &out); err == nil || !strings.Contains(err.Error(), "damaged") || out.Len() > 0 {
		t.Errorf("exported %d bytes, error %v", out.Len(), err)
	}
}

// A file that is cut under a running service, so that its pages are no longer
// there when they are read, costs an answer and not the process.
func TestAFileThatIsCutUnderAnOpenStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	fill(t, path, 60)
	s, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if list, _, err := s.Heads(t.Context()); err == nil {
		t.Errorf("%d heads were read of what is not there", len(list))
	}
	if report, err := s.Check(t.Context()); err == nil && len(report.Faults) == 0 {
		t.Error("a check finds nothing")
	}
	if err := s.Export(t.Context(), io.Discard); err == nil {
		t.Error("it is exported")
	}
	if _, err := s.GrantEpochs(t.Context(), 1); !errors.Is(err, fleet.ErrStoreUnavailable) || !strings.Contains(err.Error(), "until the next start") {
		t.Errorf("a write: %v", err)
	}
	if err := s.Close(); err == nil {
		t.Error("it is closed as if nothing were wrong")
	}
}

// failingWriter refuses what is written to it.
type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestAnExportThatCannotBeWrittenFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "headway.db")
	fill(t, path, 3)
	s := open(t, path)
	full := errors.New("no room")
	if err := s.Export(t.Context(), failingWriter{full}); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := s.Check(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a check after the end: %v", err)
	}
	if _, err := s.GrantEpochs(t.Context(), 1); err != nil { // no transaction is left open
		t.Error(err)
	}
}

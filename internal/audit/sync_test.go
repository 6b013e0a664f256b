package audit_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"headway/internal/audit"
	"headway/internal/trail"
)

// syncs notes what the journal waits for the disk with, and fails for some.
type syncs struct {
	mu    sync.Mutex
	names []string
	fail  func(name string) bool
}

func (s *syncs) sync(f *os.File) error {
	name := filepath.Base(f.Name())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, name)
	if s.fail != nil && s.fail(name) {
		return syscall.EIO
	}
	return audit.Datasync(f)
}

// take are the names since the last time.
func (s *syncs) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := strings.Join(s.names, " ")
	s.names = nil
	return names + " "
}

// A file is as good as its name: what was made, renamed or cut is on the disk
// before it counts.
func TestNamesAndCutsAreOnTheDisk(t *testing.T) {
	disk := &syncs{}
	w := newWorld(t)
	w.o = w.o.WithFaults(nil, disk.sync)
	w.o.MaxBytes = 3000
	dir := filepath.Base(filepath.Dir(w.path)) + " "

	j := w.open()
	if got, want := disk.take(), dir+"audit.log "; got != want {
		t.Errorf("a new trail waited for %q, want %q", got, want)
	}
	for len(w.sound().Files) < 2 {
		disk.take()
		w.record(j, change("policy.put"))
	}
	// The closing record, the new name, the new file, and its first records.
	if got, want := disk.take(), "audit.log "+dir+dir+"audit.log "; got != want {
		t.Errorf("a rotation waited for %q, want %q", got, want)
	}
	w.close(j)
	disk.take()
	torn(t, w)
	w.close(w.open())
	if got := disk.take(); !strings.HasPrefix(got, "audit.log audit.log ") {
		t.Errorf("a start with a torn line waited for %q; want the cut and the first records", got)
	}
	w.sound()
}

func TestWhatTheDiskRefusesAtTheStartIsSaid(t *testing.T) {
	disk := &syncs{}
	w := newWorld(t)
	w.o = w.o.WithFaults(nil, disk.sync)
	w.fill(3)
	torn(t, w)
	disk.fail = func(name string) bool { return name == "audit.log" }
	if _, err := audit.Open(w.o); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "cut the torn last line") {
		t.Errorf("a cut that is not on the disk: %v", err)
	}
	disk.fail = nil
	w.close(w.open())

	// A directory is in the way of the new checkpoint.
	inTheWay := filepath.Join(w.path+".checkpoint.new", "x")
	if err := os.MkdirAll(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	j := w.open()
	w.record(j, change("policy.put"))
	w.close(j)
	if !strings.Contains(w.log.String(), "could not be kept in a file") {
		t.Error("a checkpoint that is not on the disk is not mentioned")
	}
	if c := w.checkpoint(); c.Seq >= w.sound().Last {
		t.Errorf("a checkpoint that is not on the disk stands in the place of the one before: %d", c.Seq)
	}
}

// torn adds the beginning of a line, as a kill leaves it.
func torn(t *testing.T, w *world) {
	t.Helper()
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(`{"v":1,"seq":`)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// A trail whose records were all rewritten with new hashes does not go on
// without a word: the checkpoint has another hash.
func TestARewrittenTrailIsSeenAtTheStart(t *testing.T) {
	w := newWorld(t)
	w.fill(5)
	checkpoint := w.checkpoint()
	var text []byte
	prev := strings.Repeat("0", 64)
	for _, r := range w.records() {
		r.Prev, r.Actor.ID = prev, "another"
		text = audit.AppendLine(text, &r)
		again, err := audit.ParseLine(text[strings.LastIndexByte(string(text[:len(text)-1]), '\n')+1 : len(text)-1])
		if err != nil {
			t.Fatal(err)
		}
		prev = again.Hash
	}
	if err := os.WriteFile(w.path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if report, err := trail.Verify(context.Background(), w.path, trail.VerifyOptions{}); err != nil || !report.Sound() {
		t.Fatalf("without the checkpoint it is sound: %v, %v", report.Faults, err)
	}
	w.close(w.open())
	if r := w.one("audit.damaged"); !strings.Contains(r.Reason, "is not that of the last checkpoint") {
		t.Errorf("recorded is %q, want that record %d is another", r.Reason, checkpoint.Seq)
	}
}

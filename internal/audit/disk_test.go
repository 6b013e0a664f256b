package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/audit"
)

// faultyDisk injects faults.
type faultyDisk struct {
	full   atomic.Bool // a write takes half and fails
	broken atomic.Bool // a sync fails
}

func (d *faultyDisk) options(o audit.Options) audit.Options {
	return o.WithFaults(
		func(f *os.File, b []byte) (int, error) {
			if d.full.Load() {
				n, err := f.Write(b[:len(b)/2])
				return n, errors.Join(err, syscall.ENOSPC)
			}
			return f.Write(b)
		},
		func(f *os.File) error {
			if d.broken.Load() {
				return syscall.EIO
			}
			return audit.Datasync(f)
		})
}

// While the disk fails nothing half-written stays, changes are refused, what
// no caller waits for is kept; and when it is back all goes on by itself.
func TestFailingDiskRefusesAndRecovers(t *testing.T) {
	faults := map[string]struct {
		fail  func(d *faultyDisk, is bool)
		cause error
	}{
		"full":       {func(d *faultyDisk, is bool) { d.full.Store(is) }, syscall.ENOSPC},
		"sync fails": {func(d *faultyDisk, is bool) { d.broken.Store(is) }, syscall.EIO},
	}
	for what, fault := range faults {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				disk := &faultyDisk{}
				w.o = disk.options(w.o)
				j := w.open()
				op, err := j.Operate(context.Background(), change("policy.put"))
				if err != nil {
					t.Fatal(err)
				}
				before := w.lines()

				fault.fail(disk, true)
				for range 3 {
					_, err := j.Record(context.Background(), audit.Result, change("key.create"))
					if !errors.Is(err, audit.ErrUnavailable) || !errors.Is(err, fault.cause) {
						t.Fatalf("Record got %v", err)
					}
				}
				if _, err := j.Begin(context.Background(), change("key.create")); !errors.Is(err, audit.ErrUnavailable) {
					t.Fatalf("Begin got %v", err)
				}
				ended, err := j.Lenient(context.Background(), change("key.revoke"))
				if err != nil {
					t.Fatalf("Lenient got %v", err)
				}
				ended(audit.Success, "", nil)
				if err := op.End(context.Background(), audit.Success, "stored", nil); !errors.Is(err, audit.ErrUnavailable) {
					t.Fatalf("End got %v", err)
				}
				j.Note(audit.Entry{Category: audit.Head, Action: "head.register", Outcome: audit.Success})
				synctest.Wait()
				if s := j.Stats(); !s.Down || s.Waiting != 4 || s.Failed != 6 || !strings.Contains(w.log.String(), fault.cause.Error()) {
					t.Errorf("%+v", s)
				}
				if now := w.lines(); len(now) != len(before) {
					t.Errorf("the file has grown from %d to %d lines", len(before), len(now))
				}

				fault.fail(disk, false)
				w.record(j, change("policy.delete"))
				synctest.Wait()
				if s := j.Stats(); s.Down || s.Waiting != 0 || s.Late != 4 || s.Open != 0 || s.Dropped != 0 {
					t.Errorf("%+v", s)
				}
				w.close(j)
				w.sound()

				for _, r := range w.records() {
					if late := strings.HasPrefix(r.Reason, "late, of "); late != (r.Action == "head.register" || r.Action == "key.revoke" || r.Reason != "" && strings.HasSuffix(r.Reason, ": stored")) {
						t.Errorf("%s %s of %s: late is %t", r.Stage, r.Reason, r.Action, late)
					}
				}
				revoked := of("key.revoke", w.records())
				if len(revoked) != 2 || revoked[0].Stage != audit.Intent || revoked[1].ID != revoked[0].ID+".result" {
					t.Errorf("the operation that was let through is recorded as %+v", revoked)
				}
				if len(of("key.create", w.records())) != 0 {
					t.Error("a record that was refused is in the trail")
				}
				if said := strings.Count(w.log.String(), `"msg":"the audit trail cannot be written"`); said != 1 {
					t.Errorf("the log says %d times that the trail cannot be written", said)
				}
			})
		})
	}
}

// What has happened and cannot be refused waits for the disk as long as that
// works, and never for one that does not.
func TestWhatHasHappenedIsDurableOrKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		disk := &faultyDisk{}
		hang := make(chan struct{})
		var hangs atomic.Bool
		w.o = disk.options(w.o)
		w.o = w.o.WithFaults(w.o.Write(), func(f *os.File) error {
			if hangs.Load() {
				<-hang
				return syscall.EIO
			}
			return audit.Datasync(f)
		})
		j := w.open()
		happened := func(what string) {
			j.Happened(audit.Entry{Category: audit.Head, Action: "head.register", Outcome: audit.Success, Target: audit.Target{Type: "head", ID: what}})
		}
		inFile := func(what string) bool { return strings.Contains(strings.Join(w.lines(), ""), `"id":"`+what+`"`) }
		happened("well")
		if !inFile("well") {
			t.Error("it returned before the record was durable")
		}
		disk.full.Store(true)
		began := time.Now()
		happened("full")
		happened("still full")
		if took := time.Since(began); took > 0 {
			t.Errorf("a full disk held it for %v", took)
		}
		disk.full.Store(false)
		time.Sleep(2 * time.Second)
		hangs.Store(true)
		began = time.Now()
		happened("hanging")
		if took := time.Since(began); took != time.Second {
			t.Errorf("a disk that hangs held it for %v, want 1s", took)
		}
		hangs.Store(false)
		close(hang)
		time.Sleep(2 * time.Second)
		for _, what := range []string{"full", "still full", "hanging"} {
			if !inFile(what) {
				t.Errorf("%s: the record is not in the trail", what)
			}
		}
		if s := j.Stats(); s.Late != 3 || s.Dropped != 0 {
			t.Errorf("%+v", s)
		}
		w.close(j)
		happened("closed")
		if s := j.Stats(); s.Dropped != 1 {
			t.Errorf("after the end %d are counted as lost, want 1", s.Dropped)
		}
		w.sound()
	})
}

// A process that is killed, or stopped, while its records wait for the disk
// leaves their number: the next start counts them and says so in the trail.
func TestWhatIsLostWithAProcessIsCounted(t *testing.T) {
	for _, stops := range []bool{false, true} {
		for _, aside := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w, next := newWorld(t), newWorld(t)
				if aside {
					w.o.SideDir, next.o.SideDir = t.TempDir(), t.TempDir()
					if err := os.MkdirAll(w.path+".waiting", 0o700); err != nil { // in the place of the file
						t.Fatal(err)
					}
				}
				disk := &faultyDisk{}
				w.o = disk.options(w.o)
				j := w.open()
				disk.full.Store(true)
				for range 7 {
					j.Happened(change("head.register"))
				}
				time.Sleep(5 * time.Second)
				want := uint64(7)
				if stops {
					if err := j.Close(); !errors.Is(err, audit.ErrUnavailable) {
						t.Errorf("Close got %v", err)
					}
					want++ // the stop itself
				}
				// What a kill leaves is what the disk has now.
				copyFile(t, w.path, next.path)
				if aside {
					side := strings.ReplaceAll(strings.TrimPrefix(w.path, "/"), "/", "-") + ".waiting"
					other := strings.ReplaceAll(strings.TrimPrefix(next.path, "/"), "/", "-") + ".waiting"
					copyFile(t, filepath.Join(w.o.SideDir, side), filepath.Join(next.o.SideDir, other))
				} else {
					copyFile(t, w.path+".waiting", next.path+".waiting")
				}
				disk.full.Store(false)

				again := next.open()
				if s := again.Stats(); s.Dropped != want {
					t.Errorf("the next start counts %d lost records, want %d", s.Dropped, want)
				}
				next.close(again)
				if r := next.one("audit.lost"); r.Outcome != audit.Failure || !strings.HasSuffix(r.Reason, fmt.Sprintf("are lost: %d", want)) {
					t.Errorf("recorded is %+v", r)
				}
				once := next.open()
				if s := once.Stats(); s.Dropped != 0 {
					t.Errorf("they are counted twice: %d", s.Dropped)
				}
				next.close(once)
				next.sound()

				if !stops {
					time.Sleep(5 * time.Second)
					if _, err := os.ReadFile(w.path + ".waiting"); !aside && !errors.Is(err, os.ErrNotExist) {
						t.Errorf("the disk is back, and the file of those that wait is there: %v", err)
					}
					w.close(j)
				}
			})
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Without another record the journal tries again by itself.
func TestLateRecordsAreWrittenWithoutBeingAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		disk := &faultyDisk{}
		w.o = disk.options(w.o)
		j := w.open()
		disk.full.Store(true)
		j.Note(change("head.register"))
		synctest.Wait()
		disk.full.Store(false)
		until(t, "the note is not written", func() bool { return j.Stats().Late == 1 })
		w.close(j)
		w.sound()
	})
}

func TestNotesAreBounded(t *testing.T) {
	w := newWorld(t)
	disk := &faultyDisk{}
	w.o = disk.options(w.o)
	j := w.open()
	disk.full.Store(true)
	for range 5000 {
		j.Note(change("head.register"))
	}
	until(t, "the disk was not tried", func() bool { return j.Stats().Down })
	if s := j.Stats(); s.Waiting != 4096 || s.Dropped != 904 {
		t.Errorf("%d wait and %d were dropped", s.Waiting, s.Dropped)
	}
	if err := j.Close(); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("Close got %v", err)
	}
	if s := j.Stats(); s.Dropped != 5001 { // the end of the trail's life as well
		t.Errorf("%d were dropped", s.Dropped)
	}
}

func TestStartOnAFullDiskIsNoFailure(t *testing.T) {
	w := newWorld(t)
	disk := &faultyDisk{}
	disk.full.Store(true)
	w.o = disk.options(w.o)
	j := w.open()
	if _, err := j.Record(context.Background(), audit.Result, change("policy.put")); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	disk.full.Store(false)
	w.record(j, change("policy.put"))
	w.close(j)
	w.sound()
	if r := w.one("audit.start"); !strings.HasPrefix(r.Reason, "late, of ") {
		t.Errorf("the start says %q", r.Reason)
	}
}

// A disk that hangs delays no caller longer than MaxWait, and what it takes
// after all is not left without an end.
func TestHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hang := make(chan struct{})
		var hangs atomic.Bool
		w.o = w.o.WithFaults(nil, func(f *os.File) error {
			if hangs.Load() {
				<-hang
			}
			return audit.Datasync(f)
		})
		j := w.open()
		op, err := j.Operate(context.Background(), change("policy.put"))
		if err != nil {
			t.Fatal(err)
		}
		hangs.Store(true)
		if _, err := j.Operate(context.Background(), change("key.create")); !errors.Is(err, audit.ErrUnavailable) || !strings.Contains(err.Error(), "did not answer within 5s") {
			t.Errorf("Begin got %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := j.Record(ctx, audit.Result, change("key.revoke")); !errors.Is(err, audit.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("Record got %v", err)
		}
		if err := op.End(context.Background(), audit.Success, "stored", nil); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("End got %v", err)
		}
		hangs.Store(false)
		close(hang)
		w.close(j)
		w.sound()

		var got []string
		for _, r := range w.records() {
			if r.Category != audit.Trail {
				got = append(got, fmt.Sprint(r.Stage, " ", r.Action, " ", r.Outcome))
			}
		}
		want := "intent policy.put ,intent key.create ,result policy.put success,result key.create failure"
		if strings.Join(got, ",") != want {
			t.Errorf("got  %s\nwant %s", strings.Join(got, ","), want)
		}
	})
}

func TestSpaceIsLeftOnTheDisk(t *testing.T) {
	w := newWorld(t)
	w.o.MinFreeBytes = 1 << 60
	j := w.open()
	_, err := j.Record(context.Background(), audit.Result, change("policy.put"))
	if !errors.Is(err, audit.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

// Where the file can't be renamed, here for a name that is too long, it grows on,
// which is said.
func TestRotationThatFailsStopsNothing(t *testing.T) {
	w := newWorld(t)
	w.path = filepath.Join(filepath.Dir(w.path), strings.Repeat("l", 240))
	w.o.Path, w.o.MaxBytes = w.path, 2000
	j := w.open()
	for range 20 {
		w.record(j, change("policy.put"))
	}
	if said := strings.Count(w.log.String(), "cannot be rotated"); said != 1 {
		t.Errorf("the log says %d times that the trail cannot be rotated", said)
	}
	w.close(j)
	if report := w.sound(); len(report.Files) != 1 {
		t.Errorf("the trail has the files %v", report.Files)
	}
}

// What others do with the file under the journal's hands: records go on in a new
// one, and the chain with them.
func TestFileIsTakenAway(t *testing.T) {
	deeds := map[string]struct {
		do     func(w *world) error
		reason string
		sound  bool
	}{
		"renamed":  {func(w *world) error { return os.Rename(w.path, w.path+".1") }, "the file before had been renamed", true},
		"deleted":  {func(w *world) error { return os.Remove(w.path) }, "the file before had been removed", false},
		"emptied":  {func(w *world) error { return os.Truncate(w.path, 0) }, "the file before had been shortened", false},
		"cut":      {func(w *world) error { return os.Truncate(w.path, 700) }, "the file before had been shortened", false},
		"appended": {appendForeign, "another program had written to the file before", false},
		"replaced": {func(w *world) error {
			return errors.Join(os.Rename(w.path, w.path+".1"), os.WriteFile(w.path, nil, 0o600))
		}, "the file before had been renamed", true},
		"replaced by something else": {func(w *world) error {
			return errors.Join(os.Rename(w.path, w.path+".1"), os.WriteFile(w.path, []byte("hello\n"), 0o600))
		}, "the file before had been renamed", false},
		"copied and emptied": {func(w *world) error {
			text, err := os.ReadFile(w.path)
			return errors.Join(err, os.WriteFile(w.path+".1", text, 0o600), os.Truncate(w.path, 0))
		}, "the file before had been shortened", true},
	}
	for what, deed := range deeds {
		for _, reopen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s reopen %t", what, reopen), func(t *testing.T) {
				w := newWorld(t)
				j := w.open()
				op, err := j.Operate(context.Background(), change("policy.put"))
				if err != nil {
					t.Fatal(err)
				}
				if err := deed.do(w); err != nil {
					t.Fatal(err)
				}
				if reopen {
					if err := j.Reopen(); err != nil {
						t.Fatal(err)
					}
				}
				if err := op.End(context.Background(), audit.Success, "", nil); err != nil {
					t.Fatal(err)
				}
				w.close(j)
				if report := w.verify(w.checkpoint()); report.Sound() != deed.sound {
					t.Errorf("faults: %v", report.Faults)
				}
				if first, err := audit.ParseLine([]byte(strings.TrimSuffix(w.lines()[0], "\n"))); err != nil || first.Action != "audit.rotate" || first.Reason != deed.reason {
					t.Errorf("the next file begins with %+v (%v)", first, err)
				}
				w.close(w.open())
				if unfinished := of("audit.unfinished", w.records()); len(unfinished) != 0 {
					t.Errorf("an operation that has ended was marked: %+v", unfinished)
				}
			})
		}
	}
}

func appendForeign(w *world) error {
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("no newline")
	return errors.Join(err, f.Close())
}

// A file that is deleted between the look at it and the write loses nothing.
func TestFileIsDeletedDuringTheWrite(t *testing.T) {
	w := newWorld(t)
	var once sync.Once
	var armed atomic.Bool
	w.o = w.o.WithFaults(func(f *os.File, b []byte) (int, error) {
		if armed.Load() {
			once.Do(func() { _ = os.Remove(w.path) })
		}
		return f.Write(b)
	}, nil)
	j := w.open()
	armed.Store(true)
	id := w.record(j, change("policy.put"))
	w.close(j)
	if !strings.Contains(strings.Join(w.lines(), ""), id) {
		t.Error("the record is lost")
	}
}

// What is wrong with a trail at the start is refused with a sentence if the
// chain can't go on, else recorded for ever.
func TestDamageAtTheStart(t *testing.T) {
	damages := map[string]struct {
		do      func(w *world) error
		refused string
		found   string
	}{
		"last line changed":    {flipIn(-1), "the last line of audit.log is no record, or was changed", ""},
		"line changed":         {flipIn(1), "", "line 2 of audit.log is no record, or was changed"},
		"line missing":         {without(2), "", "line 3 of audit.log does not follow the one before"},
		"end missing":          {without(-1), "", "records 5 to 5 are missing; the last checkpoint knows of them"},
		"file missing":         {func(w *world) error { return os.Remove(w.path) }, "", "records 1 to 5 are missing; the last checkpoint knows of them"},
		"another file":         {func(w *world) error { return os.WriteFile(w.path, []byte("log\n"), 0o600) }, "the last line of audit.log is no record, or was changed", ""},
		"another without line": {func(w *world) error { return os.WriteFile(w.path, []byte("log"), 0o600) }, "it ends with something that is no record", ""},
		"checkpoint broken":    {func(w *world) error { return os.WriteFile(audit.CheckpointPath(w.path), []byte("{}"), 0o600) }, "", "the checkpoint beside the trail cannot be read"},
	}
	for what, damage := range damages {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.fill(3)
			if err := damage.do(w); err != nil {
				t.Fatal(err)
			}
			j, err := audit.Open(w.o)
			if damage.refused != "" {
				if !errors.Is(err, audit.ErrDamaged) || !strings.Contains(err.Error(), damage.refused) || !strings.Contains(err.Error(), "move the file away") {
					t.Fatalf("got %v", err)
				}
				if err := os.Rename(w.path, w.path+".damaged"); err != nil {
					t.Fatal(err)
				}
				w.close(w.open()) // what the sentence recommends helps
				if first := w.records()[0]; first.Seq != 6 {
					t.Errorf("the next trail begins with record %d, want 6", first.Seq)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			w.close(j)
			if r := w.one("audit.damaged"); r.Reason != damage.found || r.Outcome != audit.Failure {
				t.Errorf("recorded is %+v", r)
			}
			if what != "checkpoint broken" && what != "file missing" && w.verify(nil).Sound() {
				t.Error("verifying finds nothing")
			}
			if !strings.Contains(w.log.String(), "the audit trail is damaged") {
				t.Error("the log does not say so")
			}
		})
	}
}

// flipIn changes the line with this index, from the end if it is negative.
func flipIn(n int) func(*world) error {
	return onLines(func(lines []string) []string {
		i := (n + len(lines)) % len(lines)
		lines[i] = strings.Replace(lines[i], `"category":"`, `"category":"x`, 1)
		return lines
	})
}

func without(n int) func(*world) error {
	return onLines(func(lines []string) []string {
		i := (n + len(lines)) % len(lines)
		return append(lines[:i:i], lines[i+1:]...)
	})
}

func onLines(change func([]string) []string) func(*world) error {
	return func(w *world) error {
		text := strings.Join(change(w.lines()), "")
		return os.WriteFile(w.path, []byte(strings.TrimSuffix(text, "\n")+"\n"), 0o600)
	}
}

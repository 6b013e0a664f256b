package audit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"headway/internal/audit"
	"headway/internal/trail"
)

func TestRotationClosesAndContinuesWithTheSameNumbers(t *testing.T) {
	w := newWorld(t)
	w.o.MaxBytes = 3000
	w.fill(30)
	report := w.sound()
	for i, name := range report.Files {
		lines := linesOf(t, filepath.Join(filepath.Dir(w.path), name))
		size := 0
		for _, line := range lines {
			size += len(line)
		}
		if size > 3000+2000 {
			t.Errorf("%s has %d bytes", name, size)
		}
		if i == len(report.Files)-1 {
			break
		}
		last, err := audit.ParseLine([]byte(lines[len(lines)-1]))
		if err != nil {
			t.Fatal(err)
		}
		next, err := audit.ParseLine([]byte(strings.TrimSuffix(linesOf(t, filepath.Join(filepath.Dir(w.path), report.Files[i+1]))[0], "\n")))
		if err != nil {
			t.Fatal(err)
		}
		numbers := fmt.Sprintf(`"records":%d,"seq":%d,"hash":"%s"}}`, len(lines)-1, last.Seq-1, last.Prev)
		if got, want := string(last.After), `{"closes":{`+numbers; got != want || last.Action != "audit.rotate" {
			t.Errorf("%s ends with %s, want %s", name, got, want)
		}
		if got, want := string(next.After), `{"continues":{"file":"`+name+`",`+numbers; got != want || next.Action != "audit.rotate" {
			t.Errorf("the file after %s begins with %s, want %s", name, got, want)
		}
	}
}

// Many records that are written at once fill as many files as one by one.
func TestABatchIsSpreadOverFiles(t *testing.T) {
	w := newWorld(t)
	w.o.MaxBytes = 64 << 10
	begun, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var armed atomic.Bool
	w.o = w.o.WithFaults(nil, func(f *os.File) error {
		if armed.Load() {
			once.Do(func() { close(begun); <-release })
		}
		return audit.Datasync(f)
	})
	j := w.open()
	armed.Store(true)
	var writers sync.WaitGroup
	big := change("policy.put")
	big.After = json.RawMessage(`{"x":"` + strings.Repeat("x", 4000) + `"}`)
	record := func() {
		if _, err := j.Record(context.Background(), audit.Result, big); err != nil {
			t.Error(err)
		}
	}
	writers.Go(record)
	<-begun
	for range 200 { // 800 KB wait and are one batch
		writers.Go(record)
	}
	until(t, "not all wait", func() bool { return j.Stats().Waiting == 200 })
	close(release)
	writers.Wait()
	w.close(j)
	for _, name := range w.sound().Files {
		if info, err := os.Stat(filepath.Join(filepath.Dir(w.path), name)); err != nil || info.Size() > 64<<10+20_000 {
			t.Errorf("%s has %d bytes (%v)", name, info.Size(), err)
		}
	}
}

func TestOnlyTheNewestFilesAreKept(t *testing.T) {
	w := newWorld(t)
	w.o.MaxBytes, w.o.Keep = 3000, 2
	other := w.path + ".1" // logrotate's, which the journal leaves alone
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.fill(60)
	report := w.soundUpTo(w.checkpoint())
	if len(report.Files) != 3 || report.First == 1 {
		t.Errorf("kept are %v, from record %d on", report.Files, report.First)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
	pruned := of("audit.prune", w.records())
	if len(pruned) == 0 || pruned[0].Target.ID == "" || pruned[0].Outcome != audit.Success {
		t.Errorf("deletions are recorded as %+v", pruned)
	}
}

// While records are written, files change under the journal's hands and others
// read them: nothing is lost, and no reader sees a false state.
func TestEverythingAtOnce(t *testing.T) {
	w := newWorld(t)
	w.o.MaxBytes = 20_000
	j := w.open()
	ctx, cancel := context.WithCancel(context.Background())
	var writers, others sync.WaitGroup
	var mu sync.Mutex
	written := make(map[string]bool)
	for range 8 {
		writers.Go(func() {
			for range 40 {
				op, err := j.Operate(context.Background(), change("policy.put"))
				if err != nil {
					t.Error(err)
					return
				}
				id, err := j.Record(context.Background(), audit.Result, change("key.create"))
				err = errors.Join(err, op.End(context.Background(), audit.Success, "", nil))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				written[id] = true
				mu.Unlock()
				j.Note(change("head.register"))
			}
		})
	}
	repeat := func(f func(n int) error) {
		others.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := f(n); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	turn := make(chan struct{}, 1)
	repeat(func(n int) error { // logrotate, and its signal
		select {
		case <-turn:
		case <-ctx.Done():
			return nil
		}
		if err := os.Rename(w.path, fmt.Sprintf("%s-2026112%04d", w.path, n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return j.Reopen()
	})
	repeat(func(int) error {
		report, err := trail.Verify(ctx, w.path, trail.VerifyOptions{})
		if err == nil && !report.Sound() {
			err = fmt.Errorf("a trail that is being written is not sound: %v", report.Faults)
		}
		select {
		case turn <- struct{}{}:
		default:
		}
		return err
	})
	repeat(func(int) error {
		q := trail.Query{Limit: 50}
		last := ^uint64(0)
		for pages := 0; pages < 5; pages++ {
			found, next, err := trail.Search(ctx, w.path, q)
			if err != nil {
				return err
			}
			for _, r := range found {
				if last != ^uint64(0) && r.Seq != last-1 {
					return fmt.Errorf("record %d came behind record %d", r.Seq, last)
				}
				last = r.Seq
			}
			if q.Cursor = next; next == "" {
				break
			}
		}
		_ = j.Stats()
		return nil
	})
	writers.Wait()
	cancel()
	others.Wait()
	w.close(j)
	report := w.soundUpTo(w.checkpoint())
	for _, r := range w.records() {
		delete(written, r.ID)
	}
	if len(written) > 0 {
		t.Errorf("%d records that were answered are not in the trail", len(written))
	}
	if s := j.Stats(); s.Written != report.Records || s.LastSeq != report.Last || s.Dropped != 0 || s.Rotations == 0 {
		t.Errorf("%d records up to %d, but %+v", report.Records, report.Last, s)
	}
	t.Logf("%d records in %d files", report.Records, len(report.Files))
}

func TestTooManyOpenOperationsAreMarked(t *testing.T) {
	w := newWorld(t)
	w.o = w.o.WithFaults(nil, func(*os.File) error { return nil })
	j := w.open()
	var writers sync.WaitGroup
	for range 16 {
		writers.Go(func() {
			for range audit.MaxOpen/16 + 1 {
				if _, err := j.Operate(context.Background(), change("policy.put")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	until(t, "the oldest are not marked", func() bool { return j.Stats().Open == audit.MaxOpen })
	w.close(j)
	if marked := len(of("audit.unfinished", w.records())); marked != 16 {
		t.Errorf("%d were marked, want 16", marked)
	}
}

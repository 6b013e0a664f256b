package monitor_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"headway/internal/monitor"
)

// small mounts a disk of this size; that takes root.
func small(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk takes root; TestADirectoryThatCannotBeWrittenCostsOnlyTheSnapshot has the fault of others")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// ends lets a monitor write its history and end, and returns what it logged.
func ends(t *testing.T, w *world, log *bytes.Buffer) string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	defer log.Reset()
	return log.String()
}

// costsOnlyTheSnapshot has a monitor write its history, then lets the disk fail:
// samples, queries and rules go on, the file of before stays whole, nothing lies
// about beside it, and it is written again when the disk is well.
func costsOnlyTheSnapshot(t *testing.T, file, reason string, fail, repair func()) {
	t.Helper()
	var log bytes.Buffer
	w := newWorld(t, func(o *monitor.Options) {
		o.Snapshot, o.Rules, o.Log = file, []byte(rules), slog.New(slog.NewTextHandler(&log, nil))
	})
	w.heads.Set(5)
	w.pass(100, nil)
	if said := ends(t, w, &log); said != "" {
		t.Fatalf("a disk that is well: %s", said)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fail()
	w.heads.Set(1)
	w.now = w.now.Add(15 * time.Second)
	w.pass(10, nil)
	if said := ends(t, w, &log); strings.Count(said, "\n") != 1 || !strings.Contains(said, "it is kept in memory") || !strings.Contains(said, reason) {
		t.Errorf("the log says %q; want one line with %q", said, reason)
	}
	w.near(`count_over_time(active_heads[1h])`, 110)
	w.near(`ALERTS{alertname="LowHeads",alertstate="firing"}`, 1)
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the history of before was damaged: %d bytes of %d, %v", len(after), len(before), err)
	}
	if parts, err := filepath.Glob(file + ".*"); err != nil || len(parts) != 0 {
		t.Errorf("there are %v beside the history, %v", parts, err)
	}
	repair()
	if said := ends(t, w, &log); said != "" {
		t.Errorf("a disk that is well again: %s", said)
	}
	again := newWorld(t, func(o *monitor.Options) { o.Snapshot = file })
	again.now = w.now
	again.near(`count_over_time(active_heads[1h])`, 110)
}

func TestAFullDiskCostsOnlyTheSnapshot(t *testing.T) {
	dir := small(t, "256k")
	ballast := filepath.Join(dir, "ballast")
	costsOnlyTheSnapshot(t, filepath.Join(dir, "monitor.history"), "no space left on device", func() {
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for { // what compresses to nothing takes its room all the same
			piece := make([]byte, 4096)
			_, _ = rand.Read(piece)
			if _, err := f.Write(piece); err != nil {
				return
			}
		}
	}, func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAReadOnlyDiskCostsOnlyTheSnapshot(t *testing.T) {
	dir := small(t, "1m")
	remount := func(flags uintptr) func() {
		return func() {
			if err := syscall.Mount("none", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	costsOnlyTheSnapshot(t, filepath.Join(dir, "monitor.history"), "read-only file system", remount(syscall.MS_RDONLY), remount(0))
}

func TestADirectoryThatCannotBeWrittenCostsOnlyTheSnapshot(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere; TestAReadOnlyDiskCostsOnlyTheSnapshot has root's fault")
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "monitor.history")
	costsOnlyTheSnapshot(t, file, "permission denied", func() {
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	})
}

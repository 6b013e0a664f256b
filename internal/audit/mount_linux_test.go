package audit_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"headway/internal/audit"
)

// tiny mounts a disk of this size; that takes root.
func tiny(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk takes root; the same faults are injected in other tests")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestTrulyFullDisk(t *testing.T) {
	dir := tiny(t, "256k")
	w := newWorld(t)
	w.path = filepath.Join(dir, "audit.log")
	w.o.Path = w.path
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	j := w.open()
	written := uint64(1) // the start
	fill := func() {
		t.Helper()
		for {
			e := change("policy.put")
			e.Reason = strings.Repeat("x", rand.IntN(5000))
			_, err := j.Record(context.Background(), audit.Result, e)
			if err == nil {
				written++
				continue
			}
			if !errors.Is(err, audit.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			if report := w.sound(); report.Records != written {
				t.Fatalf("%d records, but %d were answered", report.Records, written)
			}
			return
		}
	}
	fill()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	fill()
}

func TestReadOnlyDiskRecovers(t *testing.T) {
	dir := tiny(t, "1m")
	w := newWorld(t)
	w.path = filepath.Join(dir, "audit.log")
	w.o.Path = w.path
	j := w.open()
	w.record(j, change("policy.put"))
	w.close(j)
	remount := func(flags uintptr) {
		if err := syscall.Mount("none", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	if _, err := audit.Open(w.o); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Open got %v", err)
	}
	remount(0)
	w.close(w.open())
	w.sound()
}

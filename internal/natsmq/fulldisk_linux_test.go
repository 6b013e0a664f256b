package natsmq_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"headway/internal/natsmq"
)

// The disk of the queue is filled by others to the last byte: the queue says so,
// and once there is room it takes commands again without a restart, with all that
// it has acknowledged.
func TestTheQueueHealsAfterAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk takes root")
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=40m"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	said := &journal{}
	w := newWorld(t, func(o *natsmq.Options) {
		o.Dir, o.Log, o.MaxBytes = filepath.Join(disk, "queue"), slog.New(said), 256<<20
	})
	w.ready()
	nc := w.connect()
	w.storing(false)
	release := w.block() // what comes first waits to be carried out, and fails then
	defer release()
	w.ask(nc, "headway.v1.commands.heads.register", registration("gpu-1")+strings.Repeat(" ", 50_000), `"HEADWAY_COMMANDS"`) // more than fits into a block that is there
	w.until("it was tried", func() bool { return w.of("heads.register", "received") > 0 })

	ballast := filepath.Join(disk, "ballast")
	fillDisk(t, ballast)
	release()
	w.until("a write fails", func() bool { return w.of("dead_letters", "publish_failed") > 0 })
	w.ask(nc, "headway.v1.decisions.outcome", `{}`, `"code":503`)
	w.until("it is said", func() bool {
		ok, detail := w.queue.Ready()
		return !ok && strings.Contains(detail, "cannot be written") && w.value("headway_queue_up", "") == 0 && said.has("cannot be written") > 0
	})
	w.ask(nc, "headway.v1.decisions.request", `{"model_type":"x"}`, `"unknown_model_type"`) // undisturbed

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.storing(true)
	w.until("the queue is back", func() bool { ok, _ := w.queue.Ready(); return ok })
	w.ask(nc, "headway.v1.commands.heads.register", registration("gpu-2"), `"stream":"HEADWAY_COMMANDS"`)
	w.until("all that was acknowledged is carried out, or a letter", func() bool {
		_, err := w.fleet.Head("gpu-2")
		if err != nil {
			return false
		}
		if _, err := w.fleet.Head("gpu-1"); err == nil {
			return true
		}
		letters, _, err := w.queue.DeadLetters(t.Context(), 0, 1000)
		for _, l := range letters {
			if err == nil && strings.Contains(l.Body, "gpu-1") {
				return true
			}
		}
		return false
	})
	if w.value("headway_queue_heals_total", "") == 0 || said.has("were opened again") == 0 {
		t.Error("it does not say that it was opened again")
	}
}

// fillDisk fills the disk that a file stands on.
func fillDisk(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	if err := f.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

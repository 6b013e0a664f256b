package cli

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"
)

// brokenWriter fails while it is broken.
type brokenWriter struct {
	bytes.Buffer
	broken bool
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.broken {
		return 0, syscall.EPIPE
	}
	return w.Buffer.Write(p)
}

func TestLinesThatCannotBeWrittenAreCountedAndSaid(t *testing.T) {
	w := &brokenWriter{}
	log, lost := patientLogger(w, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) })
	log.Info("one")
	w.broken = true
	log.Info("two")
	log.With("a", 1).Info("three")
	if lost() != 2 {
		t.Errorf("%d lines lost", lost())
	}
	w.broken = false
	log.Info("four")
	log.Info("five")
	var lines []string
	for line := range strings.Lines(w.String()) {
		_, line, _ = strings.Cut(line, "level=")
		lines = append(lines, line)
	}
	if want := []string{
		"INFO msg=one\n", "INFO msg=four\n", "WARN msg=\"lines of the log before this one could not be written\" lines=2\n", "INFO msg=five\n",
	}; strings.Join(lines, "") != strings.Join(want, "") || lost() != 2 {
		t.Errorf("lines %q, want %q; %d lost", lines, want, lost())
	}
}

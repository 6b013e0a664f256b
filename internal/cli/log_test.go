package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
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
	log, written := patientLogger(w, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) })
	lost := written.lost.Load
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

func TestALongLineIsWritten(t *testing.T) {
	var w bytes.Buffer
	log, lines := patientLogger(&w, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) })
	log.Error(strings.Repeat("x", 2*maxLogBytes))
	if lines.flush(); w.Len() < 2*maxLogBytes || lines.lost.Load() > 0 {
		t.Errorf("%d bytes were written, %d lines lost", w.Len(), lines.lost.Load())
	}
}

// The error that ends a process is said once, behind its lines, and not waited for longer.
func TestTheLastErrorIsALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stoppedWriter{released: make(chan struct{})}
		log, lines := patientLogger(w, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) })
		began, why := time.Now(), errors.New("why")
		log.Info("before")
		err := lines.say(why)
		if lines.flush(); time.Since(began) > logPatience+logFlush {
			t.Errorf("it took %s", time.Since(began))
		}
		if !errors.Is(err, why) || lines.say(nil) != nil {
			t.Errorf("%v became %v", why, err)
		}
		close(w.released)
		lines.flush()
		if !strings.HasSuffix(w.String(), "msg=before\nheadway: why\n") {
			t.Errorf("it said %q", w)
		}
	})
}

// stoppedWriter takes nothing until it is released.
type stoppedWriter struct {
	bytes.Buffer
	released chan struct{}
}

func (w *stoppedWriter) Write(p []byte) (int, error) {
	<-w.released
	return w.Buffer.Write(p)
}

// A reader that takes nothing holds up a line once, and for a moment. What waits for it
// has a bound, comes in order when it reads on, and is waited for at the end.
func TestAReaderThatTakesNothingHoldsUpNoOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stoppedWriter{released: make(chan struct{})}
		log, lines := patientLogger(w, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) })
		const each = 1 << 10
		began, n := time.Now(), 0
		for ; lines.lost.Load() < 10; n++ {
			log.Info("line", "n", n, "text", strings.Repeat("x", each))
		}
		if took := time.Since(began); took != logPatience {
			t.Errorf("the lines took %s", took)
		}
		if kept := n - 10; kept > maxLogBytes/each || kept < maxLogBytes/each/2 {
			t.Errorf("%d lines of %d bytes wait", kept, each)
		}
		time.AfterFunc(logFlush/2, func() { close(w.released) })
		if lines.flush(); time.Since(began) != logPatience+logFlush/2 {
			t.Errorf("the end took %s", time.Since(began)-logPatience)
		}
		log.Info("after")
		got := strings.Split(strings.TrimSpace(w.String()), "\n")
		if len(got) != n-10+2 {
			t.Fatalf("%d lines were written of %d", len(got), n)
		}
		for i, line := range got[:n-10] {
			if !strings.Contains(line, fmt.Sprintf("msg=line n=%d ", i)) {
				t.Fatalf("line %d is %.80s", i, line)
			}
		}
		if gap := got[n-10]; !strings.HasSuffix(gap, "lines=10") || !strings.HasSuffix(got[n-9], "msg=after") {
			t.Errorf("then %s, %s", gap, got[n-9])
		}
		began = time.Now()
		lines.flush()
		log.Info("again")
		if took := time.Since(began); took != 0 {
			t.Errorf("a reader that reads on is waited for: %s", took)
		}
	})
}

// At the end a reader that goes on to take nothing is not waited for.
func TestTheEndWaitsForNoReaderThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stoppedWriter{released: make(chan struct{})}
		defer close(w.released)
		log, lines := patientLogger(w, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) })
		began := time.Now()
		log.Info("one")
		if lines.flush(); time.Since(began) != logPatience+logFlush {
			t.Errorf("the end took %s", time.Since(began))
		}
	})
}

package cli

import (
	"bytes"
	"io"
	"log/slog"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"headway/internal/config"
)

// newLogger is the logger of the service, and its lines.
func newLogger(w io.Writer, c config.Config) (*slog.Logger, *lineWriter) {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Log.Level)) // checked by config.Load
	options := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return patientLogger(w, func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, options) })
	}
	return patientLogger(w, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, options) })
}

// patientLogger is a logger of a process that outlives the reader of its log. A write
// to a standard stream that is closed does not end the process any more.
func patientLogger(w io.Writer, handler func(io.Writer) slog.Handler) (*slog.Logger, *lineWriter) {
	signal.Ignore(syscall.SIGPIPE)
	lines := &lineWriter{w: w, gap: slog.New(handler(w))}
	return slog.New(handler(lines)), lines
}

// Bounds of what a reader of the log that takes nothing, as a pipe whose end is not read
// or a terminal that is stopped, holds up and holds.
const (
	logPatience = 100 * time.Millisecond // for a line, once; the next ones are not waited for
	logFlush    = time.Second            // for all of them at the end
	maxLogBytes = 1 << 20                // that wait, of more than one
)

// lineWriter loses the lines that cannot be written, and counts them. The first
// that can be written again says so. Write returns when the line is written, so that no
// crash loses it, unless the reader takes nothing: then it waits among a bounded number
// of others, and who logs goes on.
type lineWriter struct {
	w    io.Writer
	gap  *slog.Logger // on w
	lost atomic.Uint64

	mu      sync.Mutex
	waiting [][]byte      // with the one that is written
	size    int           // bytes of them
	idle    chan struct{} // closed when none waits any more; nil: none does
	stuck   bool          // the reader takes nothing
	pending uint64        // lines that were lost since the last that was written
}

func (l *lineWriter) Write(line []byte) (int, error) {
	if idle := l.add(line); idle != nil && !waitFor(idle, logPatience) {
		l.mu.Lock()
		l.stuck = l.stuck || l.idle == idle
		l.mu.Unlock()
	}
	return len(line), nil
}

// say has the error that the process ends with written behind the lines, and not waited
// for any longer than they are.
func (l *lineWriter) say(err error) error {
	if err == nil {
		return nil
	}
	sayError(l, err)
	return &saidError{err}
}

// flush waits for the lines that are not written yet, for a second at most.
func (l *lineWriter) flush() {
	l.mu.Lock()
	idle := l.idle
	l.mu.Unlock()
	if idle != nil {
		waitFor(idle, logFlush)
	}
}

func waitFor(done <-chan struct{}, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// add has a line written, and returns what to wait for; nil: nothing.
func (l *lineWriter) add(line []byte) (idle chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+len(line) > maxLogBytes {
		l.lose()
		return nil
	}
	l.waiting, l.size = append(l.waiting, bytes.Clone(line)), l.size+len(line)
	if l.idle == nil {
		l.idle = make(chan struct{})
		go l.write()
	}
	if l.stuck {
		return nil
	}
	return l.idle
}

func (l *lineWriter) lose() {
	l.lost.Add(1)
	l.pending++
}

// write writes what waits, in order, until nothing does.
func (l *lineWriter) write() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) > 0 {
		line := l.waiting[0]
		l.mu.Unlock()
		_, err := l.w.Write(line)
		l.mu.Lock()
		l.waiting, l.size = l.waiting[1:], l.size-len(line)
		if err != nil {
			l.lose()
		} else {
			l.sayGap()
		}
	}
	close(l.idle)
	l.waiting, l.idle, l.stuck = nil, nil, false
}

// sayGap says how many lines were lost before the one that was written. While the reader
// has taken none of those that wait, what is lost comes behind them.
func (l *lineWriter) sayGap() {
	lines := l.pending
	if lines == 0 || len(l.waiting) > 0 {
		return
	}
	l.pending = 0
	l.mu.Unlock()
	l.gap.Warn("lines of the log before this one could not be written", "lines", lines)
	l.mu.Lock()
}

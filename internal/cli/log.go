package cli

import (
	"io"
	"log/slog"
	"os/signal"
	"sync/atomic"
	"syscall"

	"headway/internal/config"
)

// newLogger is the logger of the service, and how many of its lines were lost.
func newLogger(w io.Writer, c config.Config) (log *slog.Logger, lost func() uint64) {
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
func patientLogger(w io.Writer, handler func(io.Writer) slog.Handler) (log *slog.Logger, lost func() uint64) {
	signal.Ignore(syscall.SIGPIPE)
	lines := &lineWriter{w: w, gap: slog.New(handler(w))}
	return slog.New(handler(lines)), lines.lost.Load
}

// lineWriter loses the lines that cannot be written, and counts them. The first
// that can be written again says so. Handlers call it for one line at a time.
type lineWriter struct {
	w       io.Writer
	gap     *slog.Logger // on w
	lost    atomic.Uint64
	pending uint64 // lines that were lost since the last that was written
}

func (l *lineWriter) Write(line []byte) (int, error) {
	if _, err := l.w.Write(line); err != nil {
		l.lost.Add(1)
		l.pending++
		return len(line), nil //nolint:nilerr // the handler could do no more about it
	}
	if lines := l.pending; lines > 0 {
		l.pending = 0
		l.gap.Warn("lines of the log before this one could not be written", "lines", lines)
	}
	return len(line), nil
}

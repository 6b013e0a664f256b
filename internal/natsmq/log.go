package natsmq

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// The rate limit of a limitedLog.
const (
	logLines  = 10
	logWindow = 10 * time.Second
)

// limitedLog logs what clients can cause at will. Lines beyond the limit are
// counted.
type limitedLog struct {
	log *slog.Logger

	mu      sync.Mutex
	ends    time.Time // of the window
	lines   int       // in the window
	leftOut int
}

func (l *limitedLog) warn(message string, args ...any) {
	l.flush(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.After(l.ends) {
		l.ends, l.lines = now.Add(logWindow), 0
	}
	if l.lines++; l.lines > logLines {
		l.leftOut++
		return
	}
	l.log.Warn(message, args...)
}

// flush logs how many lines were left out: at the end of the window, or now.
func (l *limitedLog) flush(now bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leftOut > 0 && (now || time.Now().After(l.ends)) {
		l.log.Warn("message queue: more of the same was left out of this log", "left_out", l.leftOut)
		l.leftOut = 0
	}
}

// serverLog forwards the embedded server's log, which is mostly about clients,
// at a limited rate. Notices are dropped. It implements server.Logger.
type serverLog struct {
	clients, rest *limitedLog
	failed        func() // called when a stream cannot be written
}

func (l *serverLog) Noticef(format string, v ...any) { l.Debugf(format, v...) }
func (l *serverLog) Tracef(string, ...any)           {}

func (l *serverLog) Errorf(format string, v ...any) {
	if strings.Contains(format, "write error") { // the server refuses every further write, and does not answer
		l.failed()
	}
	l.Warnf(format, v...)
}

func (l *serverLog) Warnf(format string, v ...any) {
	to := l.rest
	if strings.Contains(format, "cid:") { // of a connection
		to = l.clients
	}
	to.warn("message queue", "server", fmt.Sprintf(format, v...))
}

func (l *serverLog) Fatalf(format string, v ...any) {
	l.rest.log.Error("message queue", "server", fmt.Sprintf(format, v...))
}

func (l *serverLog) Debugf(format string, v ...any) {
	if l.rest.log.Enabled(context.Background(), slog.LevelDebug) {
		l.rest.log.Debug("message queue", "server", fmt.Sprintf(format, v...))
	}
}

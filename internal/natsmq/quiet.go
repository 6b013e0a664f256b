package natsmq

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// The rate limit of a quiet log; further lines are counted.
const (
	quietLines = 10
	quietFor   = 10 * time.Second
)

// quiet logs what clients can cause at will.
type quiet struct {
	log *slog.Logger

	mu      sync.Mutex
	ends    time.Time // of the time that said counts for
	said    int
	leftOut int
}

func (l *quiet) warn(message string, args ...any) {
	l.mu.Lock()
	now := time.Now()
	if now.After(l.ends) {
		l.report()
		l.ends, l.said = now.Add(quietFor), 0
	}
	l.said++
	much := l.said > quietLines
	if much {
		l.leftOut++
	}
	l.mu.Unlock()
	if !much {
		l.log.Warn(message, args...)
	}
}

// flush logs how many lines were left out.
func (l *quiet) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report()
}

// report is flush with the lock held.
func (l *quiet) report() {
	if l.leftOut > 0 {
		l.log.Warn("message queue: more of the same was left out of this log", "left_out", l.leftOut)
		l.leftOut = 0
	}
}

// tick flushes once per interval.
func (l *quiet) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().After(l.ends) {
		l.report()
	}
}

// logger forwards the server's log, which is mostly about clients, at a limited
// rate. Notices are dropped.
type logger struct {
	clients, rest *quiet
	failed        func() // called when a stream cannot be written
}

// The rest implements server.Logger.

func (l *logger) Noticef(format string, v ...any) { l.Debugf(format, v...) }
func (l *logger) Tracef(string, ...any)           {}

func (l *logger) Errorf(format string, v ...any) {
	if strings.Contains(format, "write error") { // the server refuses every further write, and does not answer
		l.failed()
	}
	l.Warnf(format, v...)
}

func (l *logger) Warnf(format string, v ...any) {
	to := l.rest
	if strings.Contains(format, "cid:") { // of a connection
		to = l.clients
	}
	to.warn("message queue", "server", fmt.Sprintf(format, v...))
}

func (l *logger) Fatalf(format string, v ...any) {
	l.rest.log.Error("message queue", "server", fmt.Sprintf(format, v...))
}

func (l *logger) Debugf(format string, v ...any) {
	if l.rest.log.Enabled(context.Background(), slog.LevelDebug) {
		l.rest.log.Debug("message queue", "server", fmt.Sprintf(format, v...))
	}
}

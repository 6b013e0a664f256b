package decisionlog

import (
	"context"
	"time"
)

// Run writes decisions that ended until ctx ends, and then all that is left.
func (l *Log) Run(ctx context.Context) error {
	look := time.NewTicker(lookedEvery)
	defer look.Stop()
	for {
		select {
		case e := <-l.ended:
			l.write(e)
		case <-look.C:
			l.look()
		case <-ctx.Done():
			return l.end()
		}
	}
}

// look writes what is due by time.
func (l *Log) look() {
	now := l.o.Now()
	for e := l.overdue(now); e != nil; e = l.overdue(now) {
		l.write(e)
	}
	l.flush(flushEvery)
}

// end writes what is left, the decisions that have not ended too.
func (l *Log) end() error {
	for len(l.ended) > 0 {
		l.write(<-l.ended)
	}
	for _, e := range l.underWay() {
		l.write(e)
	}
	l.flush(0)
	if l.files != nil {
		return l.files.close()
	}
	return nil
}

// write adds the line of a decision, which is held no more.
func (l *Log) write(e *entry) {
	l.release(e)
	line, err := l.appendLine(nil, e)
	if err != nil {
		l.o.Log.Error("a decision is not in the decision log", "error", err)
		return
	}
	l.writeLine(line)
	l.metrics.records.Inc()
}

func (l *Log) writeLine(line []byte) {
	l.mu.Lock()
	m := &l.memory
	if len(m.lines) == 0 {
		m.since = l.o.Now()
	}
	m.lines = append(m.lines, line...)
	full := len(m.lines) >= chunkBytes
	l.mu.Unlock()
	if full {
		l.flush(0)
	}
}

// flush makes a chunk of the lines there are, if the first is that old.
func (l *Log) flush(age time.Duration) {
	now := l.o.Now()
	l.mu.Lock()
	if len(l.memory.lines) == 0 || now.Sub(l.memory.since) < age {
		l.mu.Unlock()
		return
	}
	lines, number := l.memory.next(now)
	l.mu.Unlock()
	c, err := l.packing.pack(lines, number, now)
	if err != nil {
		l.o.Log.Error("decisions are not in the decision log", "error", err)
		return
	}
	if l.files != nil {
		l.keep(&c)
	}
	l.mu.Lock()
	l.memory.add(c)
	l.mu.Unlock()
}

// keep writes a chunk to the files. It says once that it cannot, and once that it can
// again.
func (l *Log) keep(c *chunk) {
	err := l.files.write(c)
	if err != nil {
		l.metrics.failed.Inc()
	}
	switch failing := l.files.failing; {
	case err != nil && !failing:
		l.o.Log.Warn("the decision log cannot be written to its files, and is kept in memory alone", "dir", l.o.Dir, "error", err)
	case err == nil && failing:
		l.o.Log.Info("the decision log is written to its files again", "dir", l.o.Dir)
	}
	l.files.failing = err != nil
	l.metrics.disk.Set(float64(l.files.bytes))
}

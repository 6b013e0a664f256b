package trail

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/audit"
	"headway/internal/disk"
)

// Sink sends the lines of the trail elsewhere. Publish gets lines in order
// without newlines. It returns how many, from the first on, arrived, and the
// fewest receivers that one of them had (-1: unknown). The caller sends the
// rest again after an error, so a line may arrive twice. One goroutine calls
// it; it must not retain lines.
type Sink interface {
	Publish(ctx context.Context, lines [][]byte) (arrived, receivers int, err error)
}

// ShipperOptions are what a Shipper is made of.
type ShipperOptions struct {
	Path       string                // required; of the trail
	CursorPath string                // required; file that keeps how far the sink has got
	Sink       Sink                  // required
	Log        *slog.Logger          // required
	Name       string                // of the sink, in metrics
	Metrics    prometheus.Registerer // nil: not registered
	Begin      uint64                // where no cursor was kept yet, the sequence of the last record that is not shipped
	Journal    *audit.Journal        // that writes the trail; nil: every whole line is durable, and there are no checkpoints
	Grace      time.Duration         // that receivers who went away may take to come back; 0: 60 s
	Poll       time.Duration         // between looks at the file; 0: 200 ms
	Now        func() time.Time
}

const (
	shipLines  = 512     // lines in one call of the sink
	shipBytes  = 1 << 20 // and their size
	settling   = time.Second
	firstPause = 100 * time.Millisecond // after a failure
	longPause  = 10 * time.Second
)

// Cursor is how far a sink has got.
type Cursor struct {
	Seq       uint64 `json:"seq"`
	Hash      string `json:"hash,omitempty"` // of the record Seq
	Receivers int    `json:"receivers"`      // that the last lines had; -1: unknown
}

// ShipperStats are the counts of a Shipper.
type ShipperStats struct {
	Shipped   uint64        // records that arrived, repetitions included
	Missed    uint64        // records that were gone before they could be shipped
	Failures  uint64        // calls of the sink that failed
	Unheard   uint64        // records without a receiver
	Lag       uint64        // records that have not arrived; 0 without ShipperOptions.Journal
	LagTime   time.Duration // age of the oldest of them
	Receivers int           // of the last lines; -1: unknown
}

// Shipper sends the lines of a trail to a sink, in order and at least once. It
// reads the files, so the journal never waits for the sink and nothing is
// buffered. After a failure the lines of the last second are sent again with
// the same ids. If the receivers disappear they get ShipperOptions.Grace to
// return before the cursor moves on.
type Shipper struct {
	o ShipperOptions

	position Cursor // what has arrived
	marked   Cursor // what had arrived when things settled last
	settled  Cursor // what had arrived at least a second ago
	settleAt time.Time
	saved    Cursor
	sent     *audit.Checkpoint // last
	held     []byte            // a line that is not durable yet
	known    bool              // the trail is the one that was shipped before
	alone    time.Time         // since when there are no receivers any more; zero: there are some

	mu      sync.Mutex
	stats   ShipperStats
	arrived uint64    // sequence of the last record that did
	oldest  time.Time // of the records that have not arrived
}

// NewShipper reads the cursor. An unreadable cursor is set aside with a
// warning, and everything is sent again.
func NewShipper(o ShipperOptions) (*Shipper, error) {
	if o.Path == "" || o.CursorPath == "" || o.Sink == nil || o.Log == nil {
		return nil, errors.New("trail: Path, CursorPath, Sink and Log are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Grace = cmp.Or(o.Grace, time.Minute)
	o.Poll = cmp.Or(o.Poll, 200*time.Millisecond)
	s := &Shipper{o: o}
	raw, err := os.ReadFile(o.CursorPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if o.Begin > 0 {
			s.position = Cursor{Seq: o.Begin, Receivers: -1}
		}
	case err != nil:
		return nil, fmt.Errorf("read how far the audit trail was shipped: %w", err)
	default:
		if err := json.Unmarshal(raw, &s.position); err != nil { //nolint:forbidigo // our own file
			o.Log.Warn("how far the audit trail was shipped cannot be read; it is shipped from its beginning", "file", o.CursorPath, "error", err)
			s.position = Cursor{}
		}
		s.saved = s.position
	}
	s.settled, s.marked = s.position, s.position
	s.known, s.arrived = s.position.Seq == 0, s.position.Seq
	s.stats.Receivers = s.position.Receivers
	s.register(o.Metrics)
	return s, s.save()
}

// Stats returns what was done so far.
func (s *Shipper) Stats() ShipperStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	if s.o.Journal != nil {
		durable := s.o.Journal.Stats().LastSeq
		st.Lag = durable - min(durable, s.arrived)
	}
	if !s.oldest.IsZero() {
		st.LagTime = max(0, s.o.Now().Sub(s.oldest))
	}
	return st
}

// Run ships until ctx ends, then saves the cursor. Its only error is that of
// saving.
func (s *Shipper) Run(ctx context.Context) error {
	pause := firstPause
	for ctx.Err() == nil {
		err := s.follow(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil || errors.Is(err, errAnother):
			pause = firstPause
			if err == nil {
				s.sleep(ctx, s.o.Poll)
			}
		default:
			s.failed(err, pause == firstPause)
			s.sleep(ctx, pause/2+rand.N(pause/2))
			pause = min(2*pause, longPause)
		}
	}
	s.settled = s.position
	return s.save()
}

// failed returns to the settled position.
func (s *Shipper) failed(err error, first bool) {
	if first {
		s.o.Log.Warn("the audit trail is not shipped; it stays in its file and is shipped later", "error", err, "after", s.position.Seq)
	}
	receivers := s.position.Receivers
	s.position, s.marked = s.settled, s.settled
	s.position.Receivers = receivers
	s.mu.Lock()
	s.stats.Failures++
	s.mu.Unlock()
}

func (s *Shipper) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// errAnother reports that the trail was replaced.
var errAnother = errors.New("the trail is another one")

// follow ships from the position on until ctx ends. It returns nil if there is
// no file.
func (s *Shipper) follow(ctx context.Context) error {
	w := &walk{path: s.o.Path, after: s.position.Seq}
	defer w.close()
	s.held = nil
	more, err := w.next(ctx)
	if err != nil {
		return err
	}
	if !more {
		return s.rest(ctx)
	}
	for ctx.Err() == nil {
		// Checked first, so that what was written before a rename is read after
		// it.
		current := sameFile(s.o.Path, w.in.Info)
		for more := true; more; {
			if more, err = s.batch(ctx, w); err != nil {
				return err
			}
		}
		if !s.known {
			s.restart("it ends before the record that was shipped last")
			return errAnother
		}
		if err := s.rest(ctx); err != nil {
			return err
		}
		if !current && s.held == nil {
			if more, err = w.next(ctx); err != nil {
				return err
			} else if more {
				continue
			}
		}
		s.sleep(ctx, s.o.Poll)
	}
	return nil
}

func sameFile(path string, opened fs.FileInfo) bool {
	info, err := os.Stat(path)
	return err == nil && os.SameFile(info, opened)
}

// rest sends the newest checkpoint behind the records that it covers, and saves
// the cursor.
func (s *Shipper) rest(ctx context.Context) error {
	s.mu.Lock()
	s.oldest = time.Time{}
	s.mu.Unlock()
	var c *audit.Checkpoint
	if s.o.Journal != nil {
		c = s.o.Journal.Checkpoint()
	}
	if c != s.sent && c.Seq <= s.position.Seq {
		line, err := json.Marshal(struct {
			V          int               `json:"v"`
			Checkpoint *audit.Checkpoint `json:"checkpoint"`
		}{1, c})
		if err != nil {
			return err
		}
		if _, _, err := s.o.Sink.Publish(ctx, [][]byte{line}); err != nil {
			return err
		}
		s.sent = c
	}
	return s.settle()
}

// settle keeps the position of a second ago, once a second.
func (s *Shipper) settle() error {
	now := s.o.Now()
	if now.Sub(s.settleAt) < settling {
		return nil
	}
	s.settleAt = now
	s.settled, s.marked = s.marked, s.position
	return s.save()
}

func (s *Shipper) save() error {
	if s.saved == s.settled {
		return nil
	}
	raw, err := json.Marshal(s.settled)
	if err != nil {
		return err
	}
	if err := disk.Replace(s.o.CursorPath, append(raw, '\n'), 0o640); err != nil {
		return fmt.Errorf("keep how far the audit trail was shipped: %w", err)
	}
	s.saved = s.settled
	return nil
}

func (s *Shipper) restart(why string) {
	s.o.Log.Warn("the audit trail is another than the one that was shipped; it is shipped from its beginning", "because", why, "shipped", s.position.Seq)
	s.position = Cursor{Receivers: s.position.Receivers}
	s.settled, s.marked, s.known = s.position, s.position, true
}

func (s *Shipper) miss(n uint64) {
	s.o.Log.Error("records of the audit trail were gone before they were shipped", "records", n, "after", s.position.Seq)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Missed += n
}

// batch ships the available lines, up to the bounds of one call, and reports
// whether there were any.
func (s *Shipper) batch(ctx context.Context, w *walk) (more bool, err error) {
	limit := ^uint64(0)
	if s.o.Journal != nil {
		limit = s.o.Journal.Stats().LastSeq
	}
	var lines [][]byte
	var cursors []Cursor
	last, size := s.position, 0
	for len(lines) < shipLines && size < shipBytes {
		line := s.held
		if s.held = nil; line == nil {
			line, err = w.line()
		}
		if err != nil && !w.file.Compressed() { // what of a closed file cannot be read is for Verify to say
			return false, err
		}
		if line == nil {
			break
		}
		seq, _, prev, hash := audit.Inspect(line)
		if seq > limit {
			s.held = bytes.Clone(line)
			break
		}
		if seq == 0 { // no record: Verify reports it
			continue
		}
		if !s.known && seq >= last.Seq {
			if shipped := map[uint64][]byte{last.Seq: hash, last.Seq + 1: prev}[seq]; shipped != nil && last.Hash != "" && last.Hash != string(shipped) {
				s.restart("the record that was shipped last is another one now")
				return false, errAnother
			}
			s.known = true
		}
		if seq <= last.Seq {
			continue
		}
		if seq > last.Seq+1 && last.Seq > 0 {
			s.miss(seq - last.Seq - 1)
		}
		lines = append(lines, bytes.Clone(line))
		size += len(line)
		last.Seq, last.Hash = seq, string(hash)
		cursors = append(cursors, last)
	}
	if len(lines) == 0 {
		return false, nil
	}
	return true, s.publish(ctx, lines, cursors)
}

// publish retries lines until they have arrived.
func (s *Shipper) publish(ctx context.Context, lines [][]byte, cursors []Cursor) error {
	for {
		s.waiting(lines[0])
		arrived, receivers, err := s.o.Sink.Publish(ctx, lines)
		if err == nil && receivers == 0 && s.hold() {
			s.sleep(ctx, time.Second)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		if receivers != 0 {
			s.alone = time.Time{}
		}
		if arrived > 0 && (receivers != 0 || err == nil) {
			s.position = cursors[arrived-1]
			s.position.Receivers = receivers
			s.mu.Lock()
			s.stats.Shipped += uint64(arrived)
			s.arrived, s.stats.Receivers = s.position.Seq, receivers
			if receivers == 0 {
				s.stats.Unheard += uint64(arrived)
			}
			s.mu.Unlock()
		}
		if err != nil {
			return err
		}
		return s.settle()
	}
}

// hold reports whether to wait for receivers to come back.
func (s *Shipper) hold() bool {
	if s.position.Receivers == 0 {
		return false
	}
	now := s.o.Now()
	if s.alone.IsZero() {
		s.alone = now
	}
	return now.Sub(s.alone) < s.o.Grace
}

func (s *Shipper) waiting(line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, err := audit.ParseLine(line); err == nil {
		s.oldest = r.Time
	}
}

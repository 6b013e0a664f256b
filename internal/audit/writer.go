package audit

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// writer is the state of the writing goroutine.
type writer struct {
	*Journal
	trail          *chain
	began          uint64 // sequence that the trail had at the start
	pruned         uint64 // rotations after which old files were last deleted
	checkpointed   uint64 // sequence of the last checkpoint
	nextCheckpoint time.Time
	nextTry        time.Time // to write notes after a failure; zero: the last write succeeded
	nextComplaint  time.Time
	nextCount      time.Time // of the records that wait, into the ledger
	failures       uint64    // since the last success
	ledger         ledger
}

func (w *writer) run() {
	defer close(w.done)
	timer := time.NewTimer(w.untilDue())
	defer timer.Stop()
	for {
		select {
		case p := <-w.queue:
			w.commit(w.drain(p))
		case <-w.wake:
			w.commit(nil)
		case <-timer.C:
		case answer := <-w.reopens:
			answer <- w.reopen()
		case <-w.quit:
			w.finish()
			return
		}
		w.keepHouse()
		timer.Reset(w.untilDue())
	}
}

func (w *writer) drain(first *pending) []*pending {
	batch := make([]*pending, 0, 1+len(w.queue))
	for p := first; ; {
		if p.take() {
			batch = append(batch, p)
		}
		if len(batch) >= maxBatch {
			return batch
		}
		select {
		case p = <-w.queue:
		default:
			return batch
		}
	}
}

func (w *writer) untilDue() time.Duration {
	due := w.nextCheckpoint
	window, waiting := w.notes.due()
	if !window.IsZero() && window.Before(due) {
		due = window
	}
	if waiting && w.nextTry.Before(due) {
		due = w.nextTry
	}
	return max(0, due.Sub(w.o.Now()))
}

func (w *writer) keepHouse() {
	now := w.o.Now()
	for _, p := range w.notes.unfold(now, false) {
		w.notes.add(p)
	}
	if _, waiting := w.notes.due(); waiting && !now.Before(w.nextTry) {
		w.commit(nil)
	}
	if !now.Before(w.nextCheckpoint) {
		w.checkpoint()
	}
}

// maxAhead bounds the note batches written before waiting callers.
const maxAhead = 8

// commit writes queued notes and the batch, and answers the batch.
func (w *writer) commit(batch []*pending) {
	for tries := 0; ; tries++ {
		notes := w.notes.next(maxBatch)
		if tries >= maxAhead && len(batch) > 0 {
			notes = nil
		}
		if len(notes) == 0 && len(batch) == 0 {
			w.settled()
			return
		}
		if len(batch) == 0 && tries == 0 && w.o.Now().Before(w.nextTry) {
			w.notes.delay()
			return // the disk has just failed, and no caller waits
		}
		all := slices.Concat(notes, batch)
		n, err := w.trail.commit(all)
		if err != nil {
			w.failed(batch, err)
			return
		}
		w.succeeded(all[:n])
		w.notes.remove(min(n, len(notes)))
		for _, p := range all[min(n, len(notes)):n] {
			if !p.answer(nil) && p.stage == Intent {
				w.disown(p)
			}
		}
		batch = batch[max(0, n-len(notes)):]
	}
}

func (w *writer) settled() {
	if err := w.ledger.clear(); err != nil {
		w.o.Log.Warn("the count of records that waited for the disk cannot be removed", "error", err)
	}
}

// disown ends an intent whose caller has left: its operation did not happen.
func (w *writer) disown(p *pending) {
	e := p.entry
	e.Outcome, e.Reason, e.Before = Failure, "given up before the intent was durable", nil
	w.notes.add(resultOf(p.id, e, w.o.Now()))
}

func (w *writer) succeeded(records []*pending) {
	late := uint64(0)
	for _, p := range records {
		if p.late {
			late++
		}
	}
	for i := 0; i < len(w.trail.open)-maxOpen; i++ {
		w.notes.add(newPending(Result, trailEntry(ActionUnfinished, Unknown, "too many operations have begun and not ended", w.trail.open[i]), w.o.Now()))
	}
	w.counts.update(func(s *Stats) {
		s.Written = w.trail.head.seq - w.began
		s.Late += late
		s.Rotations = w.trail.rotations
		s.LastSeq, s.Open, s.Down = w.trail.head.seq, len(w.trail.open), false
	})
	if w.failures > 0 {
		w.o.Log.Info("the audit trail can be written again", "file", w.o.Path, "failed_writes", w.failures, "late_records", late)
	}
	w.failures, w.nextTry, w.nextComplaint = 0, time.Time{}, time.Time{}
	w.prune()
}

// failed answers the waiting callers. The other records stay queued, flagged
// late.
func (w *writer) failed(batch []*pending, err error) {
	now := w.o.Now()
	w.failures++
	w.nextTry = now.Add(retry)
	w.notes.delay()
	w.counts.update(func(s *Stats) {
		s.Failed += uint64(len(batch))
		s.Down = true
	})
	for _, p := range batch {
		if !p.answer(err) && p.keeps {
			w.notes.add(p.again())
		}
	}
	if !now.Before(w.nextCount) {
		w.nextCount = now.Add(retry)
		_ = w.ledger.keep(w.notes.count()) // as far as there is a place for it
	}
	if !now.Before(w.nextComplaint) {
		w.nextComplaint = now.Add(complain)
		w.o.Log.Error("the audit trail cannot be written", "file", w.o.Path, "error", err)
	}
}

func (w *writer) reopen() error {
	if err := w.trail.ready(); err != nil {
		w.failed(nil, err)
		return err
	}
	if w.trail.size > 0 || w.trail.head.seq == 0 {
		return nil
	}
	if _, err := w.trail.commit(nil); err != nil {
		w.failed(nil, err)
		return err
	}
	w.succeeded(nil)
	return nil
}

func (w *writer) finish() {
	for {
		select {
		case p := <-w.queue:
			w.commit(w.drain(p))
			continue
		default:
		}
		break
	}
	for _, p := range w.notes.unfold(w.o.Now(), true) {
		w.notes.add(p)
	}
	w.notes.add(newPending(Result, trailEntry(actionStop, Success, "", filepath.Base(w.o.Path)), w.o.Now()))
	w.nextTry = time.Time{}
	w.commit(nil)
	if lost := w.notes.close(); lost > 0 {
		_ = w.ledger.keep(lost) // as far as there is a place for it
		w.o.Log.Error("records of the audit trail are lost", "records", lost)
		w.closed = fmt.Errorf("%w: records that are lost: %d", ErrUnavailable, lost)
	}
	w.checkpoint()
	w.trail.close()
}

// prune deletes the oldest closed files beyond Keep, and records it.
func (w *writer) prune() {
	rotations := w.trail.rotations
	if w.o.Keep == 0 || rotations == w.pruned {
		return
	}
	w.pruned = rotations
	names, err := trailNames(w.o.Path)
	if err != nil {
		w.o.Log.Error("the closed files of the audit trail cannot be listed", "error", err)
		return
	}
	maps.DeleteFunc(names, func(name string, _ bool) bool {
		return !ownSuffix.MatchString(strings.TrimPrefix(name, filepath.Base(w.o.Path)))
	})
	closed := slices.Sorted(maps.Keys(names)) // in the order of time
	for _, name := range closed[:max(0, len(closed)-w.o.Keep)] {
		outcome, reason := Success, fmt.Sprintf("only the newest %d closed files are kept", w.o.Keep)
		if err := os.Remove(filepath.Join(filepath.Dir(w.o.Path), name)); err != nil {
			outcome, reason = Failure, err.Error()
			w.o.Log.Error("a closed file of the audit trail cannot be deleted", "file", name, "error", err)
		}
		w.notes.add(newPending(Result, trailEntry(actionPrune, outcome, reason, name), w.o.Now()))
	}
}

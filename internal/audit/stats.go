package audit

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are what a journal has counted since it was opened, and how it is.
type Stats struct {
	Written   uint64 // records that are durable
	Failed    uint64 // records whose callers got ErrUnavailable
	Late      uint64 // records that were written later than they happened
	Dropped   uint64 // records that nobody waited for and that were lost, those of the process before included
	Folded    uint64 // denied attempts that another record stands for
	Rotations uint64 // files begun after others
	LastSeq   uint64
	Bytes     int64 // size of the current file
	Waiting   int   // records that are not written yet
	Open      int   // operations that have begun and not ended
	Syncs     Histogram
	Down      bool      // the last write failed
	LastError string    // "": there was none
	FailedAt  time.Time // of the last error
}

// Histogram counts durations in seconds. Counts[i] are those up to Bounds[i] and
// above the bound before; the last of Counts, one more, are those above all.
type Histogram struct {
	Bounds []float64
	Counts []uint64
	Sum    float64
}

// syncBounds reach from a disk with a cache of its own to one that is dying.
var syncBounds = []float64{0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

type counters struct {
	failed atomic.Uint64 // callers count these

	mu sync.Mutex
	s  Stats
}

func (c *counters) init() { c.s.Syncs.Counts = make([]uint64, len(syncBounds)+1) }

func (c *counters) update(f func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.s)
}

func (c *counters) down() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s.Down
}

func (c *counters) synced(d time.Duration) {
	c.update(func(s *Stats) {
		i, _ := slices.BinarySearch(syncBounds, d.Seconds())
		s.Syncs.Counts[i]++
		s.Syncs.Sum += d.Seconds()
	})
}

// Stats returns a copy of the counts.
func (j *Journal) Stats() Stats {
	j.counts.mu.Lock()
	s := j.counts.s
	s.Syncs.Bounds = slices.Clone(syncBounds)
	s.Syncs.Counts = slices.Clone(s.Syncs.Counts)
	j.counts.mu.Unlock()
	s.Failed += j.counts.failed.Load()
	j.notes.mu.Lock()
	s.Dropped, s.Folded, s.Waiting = j.lostBefore+j.notes.dropped, j.notes.folded, len(j.notes.waiting)+len(j.queue)
	j.notes.mu.Unlock()
	return s
}

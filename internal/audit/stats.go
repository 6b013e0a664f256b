package audit

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Stats are the counts of a journal since it was opened, and its state.
type Stats struct {
	Written   uint64 // records that are durable
	Failed    uint64 // records whose callers got ErrUnavailable
	Late      uint64 // records that were written later than they happened
	Dropped   uint64 // records without a waiting caller that were lost, those of the process before included
	Folded    uint64 // denied attempts that another record stands for
	Rotations uint64 // files begun after others
	LastSeq   uint64
	Waiting   int  // records that are not written yet
	Open      int  // operations that have begun and not ended
	Down      bool // the last write failed
}

type counters struct {
	failed atomic.Uint64 // callers count these
	syncs  prometheus.Histogram

	mu sync.Mutex
	s  Stats
}

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

// Stats returns a copy of the counts.
func (j *Journal) Stats() Stats {
	j.counts.mu.Lock()
	s := j.counts.s
	j.counts.mu.Unlock()
	s.Failed += j.counts.failed.Load()
	j.notes.mu.Lock()
	s.Dropped, s.Folded, s.Waiting = j.lostBefore+j.notes.dropped, j.notes.folded, len(j.notes.waiting)+len(j.queue)
	j.notes.mu.Unlock()
	return s
}

func (j *Journal) register(metrics prometheus.Registerer) {
	to := promauto.With(metrics) // nil: nowhere
	j.counts.syncs = to.NewHistogram(prometheus.HistogramOpts{
		Name: "headway_audit_sync_duration_seconds", Help: "Time that the disk took to make records of the audit trail durable.",
		Buckets: []float64{0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
	})
	value := func(of func(*Stats) uint64) func() float64 {
		return func() float64 {
			s := j.Stats()
			return float64(of(&s))
		}
	}
	counter := func(name, help string, of func(*Stats) uint64) {
		to.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value(of))
	}
	gauge := func(name, help string, of func(*Stats) uint64) {
		to.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value(of))
	}
	counter("headway_audit_records_total", "Records of the audit trail that are durable.", func(s *Stats) uint64 { return s.Written })
	counter("headway_audit_write_failures_total", "Records that could not be made durable when they had to be, so that what they announced did not happen.", func(s *Stats) uint64 { return s.Failed })
	counter("headway_audit_late_total", "Records that were written later than they happened.", func(s *Stats) uint64 { return s.Late })
	counter("headway_audit_dropped_total", "Records that were lost because too many waited for the disk, or because the process before ended while they did.", func(s *Stats) uint64 { return s.Dropped })
	counter("headway_audit_folded_total", "Denied attempts that another record stands for.", func(s *Stats) uint64 { return s.Folded })
	counter("headway_audit_rotations_total", "Files of the audit trail begun after others.", func(s *Stats) uint64 { return s.Rotations })
	gauge("headway_audit_sequence", "Sequence number of the last record of the audit trail.", func(s *Stats) uint64 { return s.LastSeq })
	gauge("headway_audit_waiting", "Records that are not written yet.", func(s *Stats) uint64 { return uint64(s.Waiting) })
	gauge("headway_audit_up", "1 if the last write of the audit trail succeeded.", func(s *Stats) uint64 {
		if s.Down {
			return 0
		}
		return 1
	})
}

package effectiveness

import (
	"sync/atomic"
	"time"
)

// kind is what is counted.
type kind int

const (
	decisions     kind = iota // that ended
	observed                  // with a time to the first token
	observedTime              // µs, of those
	predictions               // with a time to the first token and one that was expected
	predictedTime             // µs, of those
	comparedTime              // µs, what those took
	errorTime                 // µs, by which those were off
	compared                  // with known regret, in thousandths
	regretTime                // µs, of those
	requestsSeen              // in flight at the heads that decisions saw, in thousandths
	requestsAbove             // of those above an even share
	promises                  // of which the head said what it had cached
	promisedTokens
	deliveredTokens
	keptTokens // of those promised
	met        // the objective
	missed
	refused          // requests, which are no decisions
	agreed           // of the decisions that a shadow was asked for, those with the same head
	shadowRegretTime // µs, as regretTime
	kinds
)

// counts are sums by kind.
type counts [kinds]atomic.Int64

// span is the longest window, in minutes; ringSize is a power of two that is larger.
const (
	span     = 60
	ringSize = 64
)

// cell is what is counted for a strategy and a model type: since the start, and by
// minute.
type cell struct {
	total counts
	ring  [ringSize]atomic.Pointer[minute]
}

// minute is what was counted in one. It is replaced, and never emptied: who holds
// one that is gone counts for nothing.
type minute struct {
	number int64 // since 1970
	counts
}

func minuteOf(t time.Time) int64 { return t.Unix() / 60 }

// counter adds to the sums since the start and of a minute.
type counter struct{ total, minute *counts }

func (c counter) add(k kind, v int64) {
	c.total[k].Add(v)
	c.minute[k].Add(v)
}

// at is where to count at a time.
func (c *cell) at(t time.Time) counter {
	number := minuteOf(t)
	place := &c.ring[uint64(number)%ringSize]
	for {
		m := place.Load()
		if m != nil && m.number >= number {
			return counter{&c.total, &m.counts}
		}
		place.CompareAndSwap(m, &minute{number: number})
	}
}

// sums are counts as they were at one time.
type sums [kinds]int64

func (s *sums) add(c *counts) {
	for k := range c {
		s[k] += c[k].Load()
	}
}

// last adds the last minutes to s, that of now among them.
func (c *cell) last(s *sums, now time.Time, minutes int) {
	newest := minuteOf(now)
	for i := range c.ring {
		if m := c.ring[i].Load(); m != nil && m.number <= newest && m.number > newest-int64(minutes) {
			s.add(&m.counts)
		}
	}
}

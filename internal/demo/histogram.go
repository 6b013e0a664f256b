package demo

import (
	"math"
	"time"
)

// Buckets grow by 5 %, so a quantile is at most 2.5 % off. They reach from 1 µs
// to about 15 minutes; larger values count in the last one.
const (
	bucketGrowth = 1.05
	bucketCount  = 424
)

var logGrowth = math.Log(bucketGrowth)

type histogram struct {
	counts [bucketCount]uint32
	total  uint64
}

func (h *histogram) add(d time.Duration) {
	i := 0
	if us := float64(d) / float64(time.Microsecond); us > 1 {
		i = min(int(math.Log(us)/logGrowth), bucketCount-1)
	}
	h.counts[i]++
	h.total++
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
}

// quantile is the value below which the share q, 0..1, of durations falls; 0
// when empty.
func (h *histogram) quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(h.total)))
	var seen uint64
	for i, n := range h.counts {
		if seen += uint64(n); seen >= max(rank, 1) {
			return time.Duration(math.Pow(bucketGrowth, float64(i)+0.5) * float64(time.Microsecond))
		}
	}
	return 0
}

package demo

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// maxSamples bounds what is kept; of more, it is a uniform sample.
const maxSamples = 10_000

type samples struct {
	kept  []time.Duration
	total uint64
}

func (s *samples) add(d time.Duration) {
	s.total++
	if len(s.kept) < maxSamples {
		s.kept = append(s.kept, d)
	} else if i := rand.Uint64N(s.total); i < maxSamples {
		s.kept[i] = d
	}
}

// merge adds what another has kept.
func (s *samples) merge(o *samples) {
	s.kept = append(s.kept, o.kept...)
	s.total += o.total
}

// quantiles are the median and the 95th and 99th percentiles; 0 when empty.
func (s *samples) quantiles() (p50, p95, p99 time.Duration) {
	sorted := slices.Sorted(slices.Values(s.kept))
	return quantile(sorted, .5), quantile(sorted, .95), quantile(sorted, .99)
}

// quantile is the least value that the share q, 0..1, does not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
